"""How weights travel to the servers, one file each; ../push.py is what they share.

`rollout.transport` names one: a module here, or an entry point in the group `gcpo_mcore.transports`. What it registers
(`@transports.register`) is called with the SglangConfig and the folder of the model, and gives a `Transport`.
"""

from typing import Any, Protocol

from gcpo_mcore.rollout.sglang.buckets import Bucket
from gcpo_mcore.rollout.sglang.server import Server


class Transport(Protocol):
    """Carries one version's buckets to the servers. All ranks call `pack`, only rank 0 the others."""

    def pack(self, bucket: Bucket) -> Any:
        """What rank 0 needs to send this rank's copy of the bucket; a collective where it needs one."""

    def begin(self, servers: list[Server], version: int) -> None:
        """Prepares an update of these servers. ServerLost if one of them is not to be had."""

    def send(self, bucket: Bucket, packed: Any) -> None:
        """Returns when every server has the bucket. ServerLost as `begin`."""

    def end(self) -> None:
        """Closes the update: the servers have `version`. ServerLost as `begin`."""

    def give_up(self) -> None:
        """Drops a half-finished update, and whatever ties the servers of it together."""
