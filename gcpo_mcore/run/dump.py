"""A step's batch as files: what was sampled and graded, so that the step's updates can be made again from it alone.

    debug/step_000003.json         prompts, rewards and flags; what the step came to
    debug/step_000003.safetensors  token ids, log-probs, versions, experts: flat, in the order of the rows

Numbers and text only: reading one runs nothing. It is of any layout: no row belongs to a rank.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import xxhash
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.base.collectives import to_rank_0
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.files import write_atomically
from gcpo_mcore.rollout import flat
from gcpo_mcore.run.collector import Collected
from gcpo_mcore.samples import Facts, Group, Prompt, Sample

FOLDER = "debug"
PROMPTS = "prompt_ids"
FORM = 1
FACTS = ("index", "truncated", "weight_version", "is_golden", "reward", "is_accurate")
OF_PROMPT = ("id", "source", "text", "answer", "guided_tokens")


@dataclass(frozen=True)
class Dump:
    """A dump as it was read. `after` is what the step came to, empty if it did not end."""

    path: Path
    step: int
    groups: list[Group[Facts]]
    samples: list[Sample]
    metrics: dict[str, float]
    after: dict[str, Any]

    def collected(self, rank: int, ranks: int) -> Collected:
        """The rollouts as this rank of some would have collected them, whichever ranks made them."""
        store = self.samples[rank::ranks]
        rows = [facts for group in self.groups for facts in group.samples]
        for row, facts in enumerate(rows):
            facts.home = (row % ranks, row // ranks)
        return Collected(self.groups, store, dict(self.metrics))


def path_of(run_folder: Path, step: int) -> Path:
    """The json file of the dump of a step."""
    return run_folder / FOLDER / f"step_{step:06d}.json"


def write_dump(path: Path, step: int, collected: Collected) -> None:
    """Writes the step's rollouts, on rank 0. A collective over all ranks."""
    rank = dist.get_rank()
    rows = [facts for group in collected.groups for facts in group.samples]
    mine = {row: collected.store[facts.home[1]] for row, facts in enumerate(rows) if facts.home[0] == rank}
    shares = to_rank_0(mine)
    if shares is None:
        return
    samples = [sample for _, sample in sorted(item for share in shares for item in share.items())]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(_tensors(collected.groups, samples), path.with_suffix(".safetensors"))
    found = iter(samples)
    groups = [
        {"prompt": _prompt(group.prompt), "samples": [_plain(facts, next(found)) for facts in group.samples]}
        for group in collected.groups
    ]
    _write(path, {"form": FORM, "step": step, "metrics": collected.metrics, "groups": groups, "after": {}})


def add_outcome(path: Path, metrics: Mapping[str, float], weights: str) -> None:
    """Adds what the step came to: its metrics and the sum of the weights after it."""
    content = json.loads(path.read_text())
    _write(path, content | {"after": {"metrics": dict(metrics), "weights": weights}})


def read_dump(path: Path) -> Dump:
    """The dump whose json file that is. UserError for a file that is none."""
    try:
        content = json.loads(path.read_text())
        tensors = load_file(path.with_suffix(".safetensors"))
        if content["form"] != FORM:
            raise UserError(f"{path}: form {content['form']} of a dump is not known here, but {FORM}")
        groups, samples = _rebuilt(content["groups"], tensors)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"debug.replay={path}: no dump of a step ({' '.join(str(error).split())[:200]})") from error
    return Dump(path, content["step"], groups, samples, content["metrics"], content["after"])


def weights_sum(actor: Actor) -> str:
    """A sum of every weight of the actor. A collective over all ranks."""
    total = xxhash.xxh3_128()
    for name, tensor in actor.export():
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _write(path: Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, json.dumps(content).encode())


def _prompt(prompt: Prompt) -> dict[str, Any]:
    """Without its columns, which only rewards read."""
    return {name: getattr(prompt, name) for name in OF_PROMPT} | {"tokens": len(prompt.token_ids)}


def _plain(facts: Facts, sample: Sample) -> dict[str, Any]:
    return {name: getattr(facts, name) for name in FACTS} | {
        "response": sample.response_text,
        "reward_parts": sample.reward_parts,
        "grading_failed": sample.grading_failed,
        **flat.sizes(sample),
    }


def _tensors(groups: Sequence[Group[Facts]], samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    prompts = (np.asarray(group.prompt.token_ids) for group in groups)
    return flat.arrays(samples) | {PROMPTS: flat.joined(prompts, np.int32)}


def _rebuilt(plain: Sequence[Any], tensors: Mapping[str, np.ndarray]) -> tuple[list[Group[Facts]], list[Sample]]:
    cutter = flat.Cutter(tensors)
    groups: list[Group[Facts]] = []
    samples: list[Sample] = []
    for one in plain:
        about = dict(one["prompt"])
        ids = cutter.take(PROMPTS, about.pop("tokens")).tolist()
        group: Group[Facts] = Group(Prompt(token_ids=ids, **about), [])
        for row in one["samples"]:
            samples.append(_sample(row, cutter))
            group.samples.append(_facts(row, samples[-1]))
        groups.append(group)
    return groups, samples


def _sample(row: Mapping[str, Any], cutter: flat.Cutter) -> Sample:
    return Sample(
        **{name: row[name] for name in FACTS},
        **cutter.fields(row),
        response_text=row["response"],
        reward_parts=row["reward_parts"],
        grading_failed=row["grading_failed"],
    )


def _facts(row: Mapping[str, Any], sample: Sample) -> Facts:
    return Facts(**{name: row[name] for name in FACTS}, tokens=sample.tokens, has_routing=sample.has_routing)
