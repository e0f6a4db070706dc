"""Rollouts as text that a person can read: rollouts/step_000001.jsonl, one line per sample."""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from gcpo_mcore.base.files import write_atomically
from gcpo_mcore.samples import Group, Prompt, Sample

FOLDER = "rollouts"


def write_records(
    folder: Path | str,
    step: int,
    groups: Sequence[Group],
    advantages: Mapping[tuple[int, int], float],
    limit: int | None = None,
) -> Path:
    """Writes the samples of a step and returns the file; an earlier one of that step is replaced whole.

    advantages  by (place of the group in `groups`, place of the sample in its group): one prompt may
                occur twice in a step. Null is written where it has none
    limit       at most so many samples, the first ones; None for all
    """
    samples = (
        (group.prompt, sample, advantages.get((g, s)))
        for g, group in enumerate(groups)
        for s, sample in enumerate(group.samples)
    )
    lines = [json.dumps(_record(step, *found), ensure_ascii=False) + "\n" for found in islice(samples, limit)]
    path = Path(folder) / FOLDER / f"step_{step:06d}.jsonl"
    write_atomically(path, "".join(lines))
    return path


def _record(step: int, prompt: Prompt, sample: Sample, advantage: float | None) -> dict:
    return {
        "step": step,
        "prompt_id": prompt.id,
        "source": prompt.source,
        "index": sample.index,
        "prompt": prompt.text,
        "response": sample.response_text,
        "reference": prompt.answer,
        "reward": _number(sample.reward),
        "reward_parts": {name: _number(score) for name, score in sample.reward_parts.items()},
        "is_accurate": bool(sample.is_accurate),
        "is_golden": sample.is_golden,
        "truncated": sample.truncated,
        "grading_failed": sample.grading_failed,
        "tokens": len(sample.response_ids),
        "weight_version": sample.weight_version,
        **({"token_versions": sample.token_versions.tolist()} if len(sample.token_versions) else {}),
        "advantage": _number(advantage),
        "mean_rollout_logp": _number(float(np.mean(sample.rollout_logp))) if len(sample.rollout_logp) else None,
    }


def _number(value: float | None) -> float | None:
    """A plain finite float; null for what json cannot say."""
    return float(value) if value is not None and math.isfinite(value) else None
