"""What is said, or chosen, by the number of GPUs. (No GPU: the numbers are given.)"""

import pytest
from torch.distributed.distributed_c10d import Backend, BackendConfig

from gcpo_mcore.base import platform
from gcpo_mcore.base.errors import UserError


@pytest.mark.parametrize(
    "local_rank, processes, count, refused",
    [(0, 1, 1, None), (7, 8, 8, None), (0, 2, 1, None), (1, 2, 1, "2 processes on this machine, 1 GPU: start 1"),
     (3, 4, 2, "4 processes on this machine, 2 GPUs: start 2 ")],
)  # fmt: skip
def test_a_process_without_a_gpu_is_one_line(local_rank, processes, count, refused):
    if refused is None:
        platform.check_gpus(local_rank, processes, count)
        return
    with pytest.raises(UserError, match=refused):
        platform.check_gpus(local_rank, processes, count)


@pytest.mark.parametrize(
    "variable, count, expected",
    [(None, 2, ["0", "1"]), ("", 0, []), ("4,6", 2, ["4", "6"]), ("GPU-a,GPU-b", 2, ["GPU-a", "GPU-b"])],
)
def test_gpus_by_the_names_that_this_process_has_for_them(monkeypatch, variable, count, expected):
    monkeypatch.setattr(platform, "gpus", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert platform.visible_gpus() == expected


def test_messages_are_not_for_the_gpu(monkeypatch):
    """By what torch reads of the name: objects go by the CPU's backend, where there is one."""
    monkeypatch.setattr(platform, "HAS_CUDA", True)
    found = BackendConfig(Backend(platform.backends())).get_device_backend_map()
    assert found == {"cpu": "gloo", "cuda": "nccl"}
