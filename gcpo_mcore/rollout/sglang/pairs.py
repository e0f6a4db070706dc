"""Which versions of the trainer's torch and of SGLang can hand weights over, by which transport.

SGLang pins its torch, and with it NCCL (METADATA of the wheels 0.5.17, 0.5.21, 0.5.23, and of torch's). NCCL refuses a
group of different versions. A CUDA IPC handle begins with the number of its format, 2 in torch 2.11 and 3 in 2.13 and
2.14; a newer handle is refused by an older torch. Read in the wheels, not run on a GPU.
"""

from dataclasses import dataclass

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.rollout.sglang.server import Server

Version = tuple[int, ...]


@dataclass(frozen=True)
class Torch:
    """What matters of a torch: its NCCL, the format of its IPC handles, and the SGLang versions that bring it."""

    release: str
    nccl: Version
    handle: int
    first: Version
    last: Version

    @property
    def servers(self) -> str:
        """The SGLang versions that bring it."""
        first, last = (".".join(map(str, version)) for version in (self.first, self.last))
        return f"SGLang {first}" if first == last else f"SGLang {first} to {last}"


KNOWN = (
    Torch("2.11", (2, 28, 9), 2, (0, 5, 17), (0, 5, 17)),
    Torch("2.13", (2, 29, 7), 3, (0, 5, 18), (0, 5, 21)),
    Torch("2.14", (2, 30, 7), 3, (0, 5, 22), (0, 5, 23)),
)


def check_pair(server: Server, transport: str, torch_release: str, nccl: Version | None) -> None:
    """UserError, naming a pair that works, if weights of a trainer with `torch_release` and `nccl` (None: as torch
    brings it) cannot reach the server. Versions that are not known pass."""
    info = server.info()
    theirs = next((one for one in KNOWN if one.first <= info.version <= one.last), None)
    ours = next((one for one in KNOWN if torch_release.split("+")[0].startswith(one.release + ".")), None)
    if theirs is None or ours is None or info.device != "cuda":
        return
    if transport == "distributed" and (nccl or ours.nccl) != theirs.nccl:
        raise UserError(
            f"rollout.transport=distributed: NCCL {_words(nccl or ours.nccl)} here (torch {ours.release}) and "
            f"{_words(theirs.nccl)} at {server} (SGLang {info.release}, torch {theirs.release}) make no group; "
            f"torch {ours.release} goes with {ours.servers}, or take rollout.transport=disk"
        )
    if transport == "tensor" and ours.handle > theirs.handle:
        raise UserError(
            f"rollout.transport=tensor: {server} is SGLang {info.release} with torch {theirs.release}, which cannot "
            f"read the CUDA IPC handles of torch {ours.release}; that goes with {ours.servers} and later, or take "
            "rollout.transport=disk"
        )


def _words(version: Version) -> str:
    return ".".join(map(str, version))
