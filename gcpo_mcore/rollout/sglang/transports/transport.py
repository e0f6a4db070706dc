"""What a transport offers."""

from typing import Protocol

from gcpo_mcore.rollout.sglang.buckets import Bucket
from gcpo_mcore.rollout.sglang.server import Server


class Transport(Protocol):
    """Carries one version's buckets to the servers. All ranks call `pack`, only rank 0 the others."""

    def pack(self, bucket: Bucket) -> object:
        """What rank 0 needs to send this rank's copy of the bucket; a collective where it needs one."""

    def begin(self, servers: list[Server], version: int) -> None:
        """Prepares an update of these servers. ServerLost if one of them is not to be had."""

    def send(self, bucket: Bucket, packed: object) -> None:
        """Returns when every server has the bucket. ServerLost as `begin`."""

    def end(self) -> None:
        """Closes the update: the servers have `version`. ServerLost as `begin`."""

    def give_up(self) -> None:
        """Drops a half-finished update, and whatever ties the servers of it together."""
