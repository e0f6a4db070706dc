"""What a plan is known by: its configuration, its inputs, and the code that carries it out."""

import json
import sys
from collections.abc import Collection, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import xxhash

from gcpo_mcore.base.config import flat, is_below, without_passwords
from gcpo_mcore.base.places import PACKAGE
from gcpo_mcore.base.sums import code_digest, sum_file
from gcpo_mcore.data.dataset import Loaded
from gcpo_mcore.hf import peft
from gcpo_mcore.hf.identity import model_identity
from gcpo_mcore.run.manifest import PACKAGES
from gcpo_mcore.run.plan import Plan

OF_A_NODE = {"data.cache.folder"}  # a key that may be another on every node
ALL_PACKAGES = (*PACKAGES, "transformers", "tokenizers", "numpy", "sglang")
BESIDE = ("gcpo_mcore.algorithms", "gcpo_mcore.rewards")  # in a checkout not in the package's own folder


def facts(plan: Plan) -> dict[str, str]:
    """All that the ranks of a run need to have in common, by what to call it in a message."""
    return {**dict(_configuration(plan.resolved, set(plan.config.secret_keys()))), **plan.inputs, **dict(_programs())}


def inputs(plan: Plan) -> dict[str, str]:
    """What the run reads besides its configuration, each by a digest."""
    config = plan.config.data
    found = {"the files of model.path": model_identity(plan.config.model.path)}
    if (adapter := plan.config.model.lora) and adapter.start:
        for name in (peft.CONFIG, peft.WEIGHTS):
            found[f"{name} of model.adapter.start"] = sum_file(Path(adapter.start) / name).digest
    for name, loaded in plan.train.items():
        found |= _source(f"data.train.{name}", loaded)
    for name, loaded in plan.eval.items():
        limit = config.eval[name].max_rows
        rows = "all rows" if limit is None else f"{limit} rows"
        found |= _source(f"data.eval.{name} ({rows} of {loaded.path})", loaded)
    return found


def _source(name: str, loaded: Loaded) -> dict[str, str]:
    return {f"the {part} of {name}": digest for part, digest in loaded.prompts.digests().items()}


def _configuration(resolved: dict[str, Any], secret: Collection[str]) -> Iterator[tuple[str, str]]:
    for key, value in flat(resolved):
        if is_below(key, secret):
            yield key, f"(a value of digest {xxhash.xxh3_64_hexdigest(json.dumps(value, default=str).encode())})"
        elif not is_below(key, OF_A_NODE):
            yield key, without_passwords(str(value))


def _programs() -> Iterator[tuple[str, str]]:
    yield "Python", sys.version.split()[0]
    for package in ALL_PACKAGES:
        try:
            yield f"the package {package}", version(package)
        except PackageNotFoundError:
            yield f"the package {package}", "not installed"
    yield "the code of gcpo_mcore", code_digest(PACKAGE)
    for name in BESIDE:
        spec = find_spec(name)
        yield f"the code of {name}", code_digest(*map(Path, (spec and spec.submodule_search_locations) or ()))
