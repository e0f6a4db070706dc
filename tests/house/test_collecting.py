"""The suite can be collected in a fresh clone by what `make install` brings; what else a lane needs comes when it runs.

What another environment, prepared data, a network or a GPU has to give is asked for in a fixture or in the test.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.launching import ENVIRONMENT, ROOT

# A plugin for pytest: whoever asks the network while tests are collected fails.
NO_NETWORK = """
import socket

def refuse(self, address):
    raise AssertionError(f"collecting asks the network: {address}")

socket.socket.connect = socket.socket.connect_ex = refuse
"""


def copy_of_the_checkout(folder: Path) -> Path:
    """What git has or would have, and nothing that was made here: no prepared/, no environment."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # else it was removed, and that is not committed yet
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def test_collecting_needs_nothing_that_make_install_does_not_bring(tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/no_network.py").write_text(NO_NETWORK)
    clone = copy_of_the_checkout(tmp_path / "clone")
    path = os.pathsep.join([str(clone), str(tmp_path / "plugins")])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-m", "", "-p", "no_network", "-p", "no:cacheprovider"],
        cwd=clone, capture_output=True, text=True,
        env=ENVIRONMENT | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "PYTEST_ADDOPTS": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    assert "tests/sglang/test_faults.py" in files
    assert files == {line.partition(":")[0] for line in done.stdout.splitlines() if line.startswith("tests/")}
