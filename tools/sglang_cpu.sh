#!/usr/bin/env bash
# Builds SGLang's own environment for the CPU: tools/sglang_cpu.sh FOLDER [PYTHON [VERSION]]. SGLang publishes no CPU
# wheel of its kernels, and its torchvision is a CUDA build; the real server runs without either after the two steps at
# the end. VERSION is one of SGLang's, to see that it works; without it, the one that is tested.
set -euo pipefail
folder=$1
python=${2:-python3}
version=${3:-}
# requirements PACKAGE PATTERN: what the installed package requires, of that the lines that match as a whole
requirements() {
    "$folder/bin/python" -c '
import importlib.metadata, re, sys
print(*(line for line in importlib.metadata.requires(sys.argv[1]) if re.fullmatch(sys.argv[2], line)), sep="\n")
' "$@"
}
here=$(cd "$(dirname "$0")/.." && pwd)
rm -rf "$folder"
"$python" -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps torch==2.13.0
"$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$here/sglang-cpu.txt"
if [ -n "$version" ]; then
    "$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps "sglang==$version"
    # Of the pins it has of its own, those that its CPU path imports; then what its transformers asks for.
    mapfile -t pins < <(requirements sglang '(transformers|tokenizers|xgrammar)==[\w.]+')
    "$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps "${pins[@]}"
    mapfile -t pins < <(requirements transformers '(huggingface.hub|tokenizers)\b[^;]*')
    "$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps httpcore "${pins[@]}"
fi
packages=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
mkdir -p "$packages/sgl_kernel"
cat > "$packages/sgl_kernel/__init__.py" <<'PYTHON'
"""Stands in for SGLang's CUDA kernels, which its CPU path names and never calls."""

__version__ = "0.4.10"


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*args, **kwargs):
        raise NotImplementedError(f"sgl_kernel.{name} needs CUDA")

    return missing
PYTHON
# torchvision registers shapes of CUDA operators that this torch does not have.
sed -i -e 's/^from torchvision import _meta_registrations, /from torchvision import /' \
    -e '/^    _meta_registrations,/d' "$packages/torchvision/__init__.py"
SGLANG_USE_CPU_ENGINE=1 "$folder/bin/python" -W ignore -c 'import sglang.launch_server'
touch "$folder/.installed"
