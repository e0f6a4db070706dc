"""Who is handed which copy of the weights, and which versions can be handed any. (No GPU: nothing is handed here.)"""

import pytest
import torch

from gcpo_mcore.base import platform
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.rollout.sglang.buckets import Bucket, buckets
from gcpo_mcore.rollout.sglang.pairs import KNOWN, check_pair
from gcpo_mcore.rollout.sglang.server import Server, ServerInfo, ServerLost
from gcpo_mcore.rollout.sglang.transports import tensor
from gcpo_mcore.rollout.sglang.transports.tensor import DEVICE, TensorTransport, by_uuid, deal, handles, ranks_read
from gcpo_mcore.run.load import load_config
from gcpo_mcore.run.setup import process_group


def server(first_rank: int | None, gpus: int, release: str = "0.5.23", device: str = "cuda") -> Server:
    made = Server("http://127.0.0.1:1", 1.0, first_rank)
    made._info = ServerInfo(release, gpus, device)
    return made


@pytest.mark.parametrize(
    "servers, world, expected",
    [
        ([server(0, 1)], 8, [[0]]),  # one server beside eight ranks: seven of them are read by nobody
        ([server(0, 2), server(2, 2)], 4, [[0, 1], [2, 3]]),
        ([server(8, 2)], 16, [[8, 9]]),  # of another node
        ([server(None, 1), server(None, 1)], 4, [[0], [1]]),
        ([server(0, 4)], 1, [[0, 0, 0, 0]]),  # one process, four GPUs: four readers
        ([server(0, 1), server(1, 1)], 1, [[0], [0]]),
    ],
)
def test_the_rank_that_each_gpu_reads(servers, world, expected):
    assert ranks_read(servers, world) == expected


def test_every_reader_has_a_copy_of_its_own():
    """Torch frees the memory behind a copy when one reader has let it go: two of one would read what is used again."""
    packed = [["0a", "0b", "0c"], [], ["2a"]]
    dealt = deal(packed, [[0, 2], [0, 0]], is_shared=False)
    assert dealt == [["0a", "2a"], ["0b", "0c"]]
    assert deal([["bytes"]], [[0], [0, 0]], is_shared=True) == [["bytes"], ["bytes", "bytes"]]


def test_a_tensor_of_the_host_never_becomes_a_handle():
    with pytest.raises(RuntimeError, match=r"phase sync: model.norm.weight is on the cpu, not on a GPU"):
        handles([("model.norm.weight", torch.zeros(2))])


def test_no_rank_makes_handles_once_a_push_has_failed(monkeypatch):
    """Nobody would read them, and the memory behind them would stay."""

    def lost(path, payload):
        raise ServerLost(f"{path}: nobody is there")

    bucket = Bucket(torch.zeros(4, dtype=torch.uint8), [("model.norm.weight", torch.zeros(1))], is_last=True)
    two = [server(None, 1, release="0.5.17") for _ in range(2)]  # which opens no session: nobody is asked anything
    for one in two:
        monkeypatch.setattr(one, "call", lost)
    transport = TensorTransport(load_config(["rollout=sglang"]).rollout, "")
    with process_group(1, 900), monkeypatch.context() as on_gpu:
        on_gpu.setattr(platform, "HAS_CUDA", True)
        on_gpu.setattr(tensor, "handles", lambda tensors: "handles")
        transport.begin(two, version=1)
        packed = transport.pack(bucket)
        assert packed == [["handles", "handles"]]
        with pytest.raises(ServerLost, match="/update_weights_from_tensor: nobody is there"):
            transport.send(bucket, packed)
        assert transport.pack(bucket) == [[]]


def test_a_bucket_is_on_the_device_wherever_its_weights_come_from(monkeypatch):
    """A folder's are on the host; meta stands for the GPU."""
    monkeypatch.setattr(platform, "device", lambda: torch.device("meta"))
    weights = [("a", torch.zeros(2, 3)), ("b", torch.zeros(4, dtype=torch.bfloat16))]
    (found,) = buckets(weights, size=2**20)
    assert found.flat.is_meta and all(each.is_meta for _, each in found.tensors)
    made, wanted = ([(name, each.shape, each.dtype) for name, each in of] for of in (found.tensors, weights))
    assert made == wanted


def test_the_device_of_a_handle_is_its_uuid():
    """The arguments of torch's rebuild_cuda_tensor, by name: the device's number and nothing else is replaced."""
    import inspect

    from torch.multiprocessing.reductions import rebuild_cuda_tensor

    names = tuple(inspect.signature(rebuild_cuda_tensor).parameters)
    assert names[DEVICE] == "storage_device"
    assert by_uuid(names, "GPU-1") == tuple("GPU-1" if name == "storage_device" else name for name in names)


# trainer's torch, SGLang -> whether 'tensor' and 'distributed' work (METADATA of the wheels; not run on a GPU)
PAIRS = {
    ("2.11.0+cu130", "0.5.17"): (True, True),
    ("2.11.0+cu130", "0.5.20"): (True, False),
    ("2.11.0+cu130", "0.5.23"): (True, False),
    ("2.13.0+cu130", "0.5.17"): (False, False),
    ("2.13.0+cu130", "0.5.18"): (True, True),
    ("2.13.0+cu130", "0.5.21"): (True, True),
    ("2.13.0+cu130", "0.5.23"): (True, False),
    ("2.14.1+cu130", "0.5.17"): (False, False),
    ("2.14.1+cu130", "0.5.21"): (True, False),
    ("2.14.1+cu130", "0.5.22"): (True, True),
    ("2.15.0", "0.5.23"): (True, True),  # not known: nothing is refused
}


@pytest.mark.parametrize("pair", PAIRS)
def test_pairs_of_versions(pair):
    ours, release = pair
    for transport, works in zip(("tensor", "distributed", "disk"), (*PAIRS[pair], True), strict=True):
        if works:
            check_pair(server(0, 1, release), transport, ours, None)
        else:
            with pytest.raises(UserError, match=rf"^rollout.transport={transport}: .* goes with SGLang 0.5.\d+"):
                check_pair(server(0, 1, release), transport, ours, None)
        check_pair(server(0, 1, release, device="cpu"), transport, ours, None)


def test_an_nccl_that_was_made_equal_passes():
    check_pair(server(0, 1, "0.5.23"), "distributed", "2.13.0+cu130", KNOWN[-1].nccl)
    with pytest.raises(UserError, match=r"NCCL 2.30.7 here \(torch 2.13\) and 2.29.7 at http://127.0.0.1:1"):
        check_pair(server(0, 1, "0.5.21"), "distributed", "2.13.0+cu130", KNOWN[-1].nccl)


def test_a_broadcast_group_with_servers_on_the_same_gpu_is_refused(monkeypatch):
    load_config(["rollout=sglang", "rollout.transport=distributed"])  # gloo knows no such limit
    monkeypatch.setattr(platform, "HAS_CUDA", True)
    with pytest.raises(UserError, match=r"rollout.transport=distributed: NCCL makes no group of two processes on one"):
        load_config(["rollout=sglang", "rollout.transport=distributed"])
