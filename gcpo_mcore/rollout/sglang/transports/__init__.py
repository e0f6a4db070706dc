"""How weights travel to the servers, one file each; ../push.py is what they share."""

from gcpo_mcore.rollout.sglang.config import SglangConfig
from gcpo_mcore.rollout.sglang.transports.disk import DiskTransport
from gcpo_mcore.rollout.sglang.transports.distributed import DistributedTransport
from gcpo_mcore.rollout.sglang.transports.tensor import TensorTransport
from gcpo_mcore.rollout.sglang.transports.transport import Transport


def build_transport(config: SglangConfig, model_folder: str) -> Transport:
    """The transport that the configuration names."""
    return {
        "tensor": TensorTransport,
        "distributed": lambda: DistributedTransport(config.sync_deadline_s),
        "disk": lambda: DiskTransport(config.weights_folder, model_folder),
    }[config.transport]()
