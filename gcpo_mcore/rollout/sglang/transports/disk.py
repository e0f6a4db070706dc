"""Weights through a folder that trainer and servers can read: slow, and the simplest across machines."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gcpo_mcore.base.registry import transports
from gcpo_mcore.hf.folder import HfFolder
from gcpo_mcore.rollout.sglang.buckets import Bucket
from gcpo_mcore.rollout.sglang.config import SglangConfig
from gcpo_mcore.rollout.sglang.server import Server


@transports.register
class DiskTransport:
    """`rollout.weights_folder`/version_N holds the weights of the last version."""

    def __init__(self, config: SglangConfig, model_folder: str):
        assert config.weights_folder is not None  # the config refuses disk without one
        self.folder, self.model_folder = Path(config.weights_folder), Path(model_folder)
        self.servers: list[Server] = []
        self.version = -1
        self.writer: HfFolder | None = None

    def pack(self, bucket: Bucket) -> None:
        """Nothing: rank 0's copy is what is written."""

    def begin(self, servers: list[Server], version: int) -> None:
        self.servers, self.version = servers, version
        self.folder.mkdir(parents=True, exist_ok=True)
        self.writer = HfFolder(self.model_folder, self.folder / f"version_{version}")

    def send(self, bucket: Bucket, packed: None) -> None:
        assert self.writer is not None, "send comes after begin"
        self.writer.write({name: tensor.cpu().clone() for name, tensor in bucket.tensors})

    def end(self) -> None:
        assert self.writer is not None, "end comes after begin"
        written = self.writer.finish()
        payload = {"model_path": str(written.resolve()), "flush_cache": True, "weight_version": str(self.version)}
        with ThreadPoolExecutor(len(self.servers)) as pool:
            list(pool.map(lambda server: server.call("/update_weights_from_disk", payload), self.servers))
        for other in self.folder.glob("version_*"):
            if other != written:
                shutil.rmtree(other)

    def give_up(self) -> None:
        pass
