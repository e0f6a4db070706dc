"""The adapter alone, to servers that hold its base: a PEFT folder of megabytes in place of all weights.

Of each version a server loads the adapter under a name that no other process uses, forgets the one before, and is told
the version's number; requests then name the adapter. Rank 0 writes and asks; nothing may be under way on the servers.
"""

import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gcpo_mcore.base.files import named_when_good
from gcpo_mcore.hf.lora import ATTENTION, MLP
from gcpo_mcore.hf.peft import WEIGHTS, LoraFactors, write_peft
from gcpo_mcore.rollout.sglang.config import LOADED_ADAPTERS, SglangConfig
from gcpo_mcore.rollout.sglang.server import Server

TARGETS = (*ATTENTION, *MLP)  # of all adapters that there can be; an expert's layers have the names of a dense MLP's


def start_options(config: SglangConfig) -> dict[str, object]:
    """What a server is started with that shall be given adapters; nothing if it shall not."""
    if not config.sends_adapter:
        return {}
    return {
        "enable-lora": True,
        "max-lora-rank": config.adapter_rank,
        "lora-target-modules": list(TARGETS),
        "max-loras-per-batch": LOADED_ADAPTERS,
    }


class AdapterSync:
    """Hands over one version after the other, through `rollout.adapter_folder`."""

    def __init__(self, config: SglangConfig, model_folder: str):
        assert config.adapter_folder is not None, "the engine asks first"
        self.folder, self.model_folder = Path(config.adapter_folder), model_folder
        self._run = uuid.uuid4().hex[:8]

    def name(self, version: int) -> str:
        """How the servers know the adapter of a version; a server that outlives a run has others of other names."""
        return f"{self._run}_{version}"

    def push(self, adapter: LoraFactors, servers: list[Server], version: int) -> int:
        """Returns the bytes of the adapter when all servers have it. ServerLost if one is not to be had."""
        name = self.name(version)
        self.folder.mkdir(parents=True, exist_ok=True)
        place = self.folder / name
        with named_when_good(place, replaces=True) as unchecked:
            unchecked.mkdir()
            write_peft(unchecked, adapter, self.model_folder)

        def give(server: Server) -> None:
            server.take_adapter(name, str(place.resolve()), version)

        with ThreadPoolExecutor(len(servers)) as pool:
            list(pool.map(give, servers))
        for other in self.folder.glob(f"{self._run}_*"):
            if other != place:
                shutil.rmtree(other)
        return (place / WEIGHTS).stat().st_size
