"""Peak memory of tools/convert.py against model size: python bench/convert_memory.py --layers 28 [--shape 7b]

Makes random bf16 Qwen2 models, converts each to a checkpoint and back, compares the weights bitwise and prints the
peak of resident and of anonymous memory. Resident memory counts file pages, which the kernel may drop at any time;
anonymous memory is what a machine must have.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import Qwen2Config

from gcpo_mcore.actor.model import start_parallel
from gcpo_mcore.convert.shards import ONE_LAYOUT, empty_model, hf_tensors
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.hf.folder import write_hf
from gcpo_mcore.run.setup import process_group

ROOT = Path(__file__).resolve().parents[1]
SHAPES = {
    "small": {"hidden_size": 1024, "intermediate_size": 4864, "num_attention_heads": 16, "num_key_value_heads": 4,
              "vocab_size": 32000},
    "7b": {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4,
           "vocab_size": 152064},
}  # fmt: skip


def make(folder: Path, shape: dict, layers: int) -> None:
    """A random model, written without ever being held."""
    config = folder.with_name("config")
    Qwen2Config(
        **shape, num_hidden_layers=layers, dtype="bfloat16", architectures=["Qwen2ForCausalLM"]
    ).save_pretrained(config)
    with process_group(threads=None, deadline_s=600):
        arch = read_architecture(str(config))
        start_parallel(ONE_LAYOUT, seed=0)
        model = empty_model(arch, torch.bfloat16)
        weights = hf_tensors(model, arch, dict(model.named_parameters()).__getitem__)
        random = ((n, 0.02 * torch.randn(t.shape, dtype=torch.bfloat16) + ("norm" in n)) for n, t in weights)
        write_hf(random, config, folder)


def measure(*arguments: str) -> tuple[float, float, float]:
    """Runs tools/convert.py; (peak resident GiB, peak anonymous GiB, seconds)."""
    started, resident, anonymous = time.monotonic(), 0.0, 0.0
    process = subprocess.Popen([sys.executable, str(ROOT / "tools/convert.py"), *arguments], stderr=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        found = {
            line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith(("VmRSS", "RssAnon"))
        }
        resident = max(resident, int(found.get("VmRSS", 0)) / 2**20)
        anonymous = max(anonymous, int(found.get("RssAnon", 0)) / 2**20)
        time.sleep(0.02)
    assert process.wait() == 0, arguments
    return resident, anonymous, time.monotonic() - started


def same(one: Path, other: Path) -> bool:
    """Whether two folders have the same tensors, bit for bit."""
    places = [{n: path for path in f.glob("*.safetensors") for n in safe_open(path, "pt").keys()} for f in (one, other)]  # noqa: SIM118
    get = [lambda n, p=p: safe_open(p[n], "pt").get_tensor(n) for p in places]
    return places[0].keys() == places[1].keys() and all(torch.equal(get[0](n), get[1](n)) for n in places[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--shard-gib", default="2", help="of to-hf")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        hf, megatron, back = (Path(temporary) / name for name in ("hf", "megatron", "back"))
        make(hf, SHAPES[arguments.shape], arguments.layers)
        gib = sum(p.stat().st_size for p in hf.glob("*.safetensors")) / 2**30
        to_hf = ["to-hf", str(megatron), str(back), "--shard-gib", arguments.shard_gib]
        for command in (["to-megatron", str(hf), str(megatron)], to_hf):
            resident, anonymous, seconds = measure(*command)
            row = {"shape": arguments.shape, "layers": arguments.layers, "weights_gib": gib, "command": command[0]}
            row |= {"resident_gib": resident, "anonymous_gib": anonymous, "seconds": seconds}
            print(json.dumps({k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()}), flush=True)
        assert same(hf, back)


if __name__ == "__main__":
    main()
