"""Rollouts as text that a person can read: rollouts/step_000001.jsonl, one line per sample."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from gcpo_mcore.base.files import write_atomically
from gcpo_mcore.samples import Facts, Prompt, Sample

FOLDER = "rollouts"


def record(step: int, prompt: Prompt, facts: Facts, sample: Sample, advantage: float | None) -> str:
    """The line of one sample. facts: what the step knows of it, its place in the group among them."""
    return json.dumps(_values(step, prompt, facts, sample, advantage), ensure_ascii=False) + "\n"


def write_records(folder: Path | str, step: int, lines: Iterable[str]) -> Path:
    """Writes the lines of a step and returns the file; an earlier one of that step is replaced whole."""
    path = Path(folder) / FOLDER / f"step_{step:06d}.jsonl"
    write_atomically(path, "".join(lines))
    return path


def _values(step: int, prompt: Prompt, facts: Facts, sample: Sample, advantage: float | None) -> dict[str, Any]:
    return {
        "step": step,
        "prompt_id": prompt.id,
        "source": prompt.source,
        "index": facts.index,
        "prompt": prompt.text,
        "response": sample.response_text,
        "reference": prompt.answer,
        "reward": _number(sample.reward),
        "reward_parts": {name: _number(score) for name, score in sample.reward_parts.items()},
        "is_accurate": bool(sample.is_accurate),
        "is_golden": sample.is_golden,
        "truncated": sample.truncated,
        "grading_failed": sample.grading_failed,
        "tokens": sample.tokens,
        "weight_version": sample.weight_version,
        **({"token_versions": sample.token_versions.tolist()} if len(sample.token_versions) else {}),
        "advantage": _number(advantage),
        "mean_rollout_logp": _number(float(np.mean(sample.rollout_logp))) if len(sample.rollout_logp) else None,
    }


def _number(value: float | None) -> float | None:
    """A plain finite float; null for what json cannot say."""
    return float(value) if value is not None and math.isfinite(value) else None
