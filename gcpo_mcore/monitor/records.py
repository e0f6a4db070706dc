"""Rollouts as text that a person can read: rollouts/step_000001.jsonl, one line per sample.

token_values/step_000001.jsonl has what every token of a few of them came to; `row` is the line there, from 0.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gcpo_mcore.base.files import write_atomically
from gcpo_mcore.samples import Facts, Prompt, Sample

FOLDER = "rollouts"
TOKEN_VALUES = "token_values"


def record(step: int, prompt: Prompt, facts: Facts, sample: Sample, advantage: float | None) -> str:
    """The line of one sample. facts: what the step knows of it, its place in the group among them."""
    return json.dumps(_values(step, prompt, facts, sample, advantage), ensure_ascii=False) + "\n"


def write_records(folder: Path | str, step: int, lines: Iterable[str]) -> Path:
    """Writes the lines of a step and returns the file; an earlier one of that step is replaced whole."""
    return _write(Path(folder) / FOLDER / step_file(step), lines)


def write_token_values(
    folder: Path | str, step: int, values: Mapping[int, Mapping[str, Any]], text: Callable[[Sequence[int]], list[str]]
) -> Path:
    """Writes the token values of a step's rows and returns the file. values: row -> its `ids` and values of each;
    text: of each of some ids."""
    found = ({"row": row, "pieces": text(mine["ids"]), **mine} for row, mine in sorted(values.items()))
    return _write(Path(folder) / TOKEN_VALUES / step_file(step), (json.dumps(line) + "\n" for line in found))


def step_file(step: int) -> str:
    """The name of a step's file."""
    return f"step_{step:06d}.jsonl"


def _write(path: Path, lines: Iterable[str]) -> Path:
    """Half of a surrogate pair, which a prompt may have, is no UTF-8: it is written as json's own escape."""
    write_atomically(path, "".join(lines).encode(errors="backslashreplace"))
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
        **({"guided_tokens": prompt.guided_tokens} if prompt.guided_tokens else {}),
        "weight_version": sample.weight_version,
        **({"token_versions": sample.token_versions.tolist()} if len(sample.token_versions) else {}),
        "advantage": _number(advantage),
        "mean_rollout_logp": _number(float(np.mean(sample.rollout_logp))) if len(sample.rollout_logp) else None,
    }


def _number(value: float | None) -> float | None:
    """A plain finite float; null for what json cannot say."""
    return float(value) if value is not None and math.isfinite(value) else None
