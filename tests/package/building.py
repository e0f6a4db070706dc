"""The wheel, built from a copy of the tree; an environment that holds it and sees nothing of the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tests.launching import ENVIRONMENT, ROOT

FILES = ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "NOTICE", "CHANGELOG.md", "CITATION.cff",
         "constraints.txt", "sglang-cpu.txt")  # fmt: skip
FOLDERS = ("gcpo_mcore", "algorithms", "rewards", "configs")


def copy_tree(source: Path) -> None:
    """Writes what the distribution is made from into `source`: a build leaves its folders there, not in the tree."""
    source.mkdir(parents=True)
    for name in FILES:
        shutil.copy(ROOT / name, source)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))


def build_wheel(source: Path, out: Path) -> Path:
    """The wheel that pip makes of a folder or an sdist, with the setuptools that is here; nothing is fetched."""
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(out)]
    _python("-m", "pip", "wheel", *options, str(source))
    (wheel,) = out.glob("*.whl")
    return wheel


def build_sdist(source: Path, out: Path) -> Path:
    """The sdist, by the call that every build front end makes."""
    out.mkdir()
    _python("-c", "import sys, setuptools.build_meta as b; b.build_sdist(sys.argv[1])", str(out), cwd=source)
    (sdist,) = out.glob("*.tar.gz")
    return sdist


def content(archive: Path) -> dict[str, bytes]:
    """Name -> bytes of the files of a wheel or an sdist."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist()}
    with tarfile.open(archive) as sdist:
        opened = {m.name: sdist.extractfile(m) for m in sdist.getmembers() if m.isfile()}
        return {name: file.read() for name, file in opened.items() if file}


@dataclass(frozen=True)
class Environment:
    """A virtual environment at `folder`, with commands that start in `home`, away from the checkout."""

    folder: Path
    home: Path

    def install(self, package: Path) -> None:
        """Installs a wheel or a folder by pip, without its dependencies."""
        options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
        _python("-m", "pip", "--python", str(self.folder / "bin/python"), "install", *options, str(package))

    def run(self, program: str, *arguments: str, timeout_s: float = 1800) -> subprocess.CompletedProcess[str]:
        """A program of the environment, which alone is on the PATH: no git, no compiler, nothing of the system."""
        variables = {k: v for k, v in ENVIRONMENT.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        return subprocess.run(
            [str(self.folder / "bin" / program), *arguments],
            cwd=self.home,
            env={**variables, "PATH": str(self.folder / "bin"), "PYTHONNOUSERSITE": "1"},
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )


def make_environment(folder: Path, wheel: Path) -> Environment:
    """A new environment with the wheel; other packages are those of this one, whose editable install it cannot see."""
    home = folder / "home"
    home.mkdir(parents=True)
    made = Environment(folder / "env", home)
    _python("-m", "venv", "--without-pip", str(made.folder))
    made.install(wheel)
    # A .pth line adds a folder to the path; the .pth files in that folder (an editable install's) are not read.
    others = [path for path in sys.path if Path(path).name == "site-packages"]
    site = sysconfig.get_path("purelib", vars={"base": str(made.folder)})
    Path(site, "others.pth").write_text("\n".join(others) + "\n")
    return made


def _python(*arguments: str, cwd: Path | None = None) -> None:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=dict(os.environ), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
