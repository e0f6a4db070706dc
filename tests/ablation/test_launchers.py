"""Cells side by side have GPUs of their own. (No GPU: the cells only say which they were given.)"""

import sys

import pytest

from gcpo_mcore.ablation.launchers import Local
from gcpo_mcore.base.errors import UserError

SAY = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True)"


def test_each_cell_has_gpus_of_its_own_and_gives_them_back(tmp_path):
    launcher = Local(["4", "5", "6", "7", "8"], per_cell=2)
    assert launcher.places == 2
    running = [launcher.start("cell", [sys.executable, "-c", SAY], tmp_path / f"{number}.log") for number in range(2)]
    while any(child.poll() is None for child in running):
        pass
    assert [child.poll() for child in running] == [0, 0]
    third = launcher.start("cell", [sys.executable, "-c", SAY], tmp_path / "2.log")
    while third.poll() is None:
        pass
    assert [(tmp_path / f"{number}.log").read_text() for number in range(3)] == ["4,5\n", "6,7\n", "4,5\n"]
    assert launcher.free.qsize() == 2  # a process that is looked at twice has not given back twice


def test_a_cell_that_needs_more_than_there_are_is_one_line():
    with pytest.raises(UserError, match="a cell of 4 processes needs as many GPUs; this machine has 2"):
        Local(["0", "1"], per_cell=4)
    assert Local([], per_cell=4).places == 0  # on the CPU
