"""Engines whose servers are the run's own, with the tests' server in the place of SGLang's."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from gcpo_mcore.rollout.engine import FixedWeights
from gcpo_mcore.rollout.sglang.engine import SglangEngine
from gcpo_mcore.run.load import load_config
from gcpo_mcore.run.setup import process_group

HERE = Path(__file__).resolve().parent


def environment(folder: Path, **more: str) -> str:
    """The override that has the tests' server started, which writes below FOLDER/servers."""
    values = {"PYTHONPATH": str(HERE / "own_servers"), "FAKE_FOLDER": str(folder / "servers"), **more}
    quoted = ",".join(f"{name}:'{value}'" for name, value in values.items())
    return f"++rollout.environment={{{quoted}}}"


@contextlib.contextmanager
def own_engine(model: Path, folder: Path, *overrides: str, fault: str = "none") -> Iterator[SglangEngine]:
    """An engine with servers of its own, without weights yet."""
    config = load_config(
        [
            "rollout=sglang",
            f"rollout.log_folder={folder}/logs",
            "rollout.health_every_s=0.2",
            environment(folder, FAKE_FAULT=fault),
            *overrides,
        ]
    ).rollout
    with process_group(1, 900), contextlib.closing(SglangEngine(config, str(model), "float32", [1], str)) as made:
        yield made


def weights_of(model: Path, version: int) -> FixedWeights:
    """The weights in a folder, as version `version`."""
    from transformers import AutoModelForCausalLM

    state = AutoModelForCausalLM.from_pretrained(model).state_dict()
    return FixedWeights(version, lambda: ((n, t) for n, t in state.items() if n != "lm_head.weight"))


def calls(folder: Path) -> list[dict]:
    """What the servers were asked, with what was released and under way then, one server's calls after another's."""
    files = sorted((folder / "servers").glob("*/calls.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def deaths(folder: Path) -> list[str]:
    """What servers died of."""
    return [path.read_text() for path in (folder / "servers").glob("*/died")]
