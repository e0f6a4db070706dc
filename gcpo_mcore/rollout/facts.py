"""Graded samples as they are told to the other ranks: a row of a few numbers each, the sample itself stays."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gcpo_mcore.samples import Facts, Group, Prompt, Sample

FACTS = np.dtype(
    [
        ("group", np.int32),
        ("place", np.int32),  # in its rank's store
        ("index", np.int32),
        ("tokens", np.int32),
        ("weight_version", np.int32),
        ("reward", np.float64),
        ("truncated", np.bool_),
        ("is_golden", np.bool_),
        ("is_accurate", np.bool_),
        ("has_routing", np.bool_),
    ]
)
TOLD = [name for name in FACTS.names or () if name not in ("group", "place")]


def tell(graded: Sequence[tuple[int, Sample]], store: list[Sample]) -> np.ndarray:
    """[n] FACTS of this rank's samples, each with the number of its group; adds them to the rank's `store`."""
    told = np.zeros(len(graded), FACTS)
    for row, (number, sample) in enumerate(graded):
        told[row] = (number, len(store), *(getattr(sample, name) for name in TOLD))
        store.append(sample)
    return told


def hear(prompts: Sequence[Prompt], shares: Sequence[np.ndarray]) -> list[Group[Facts]]:
    """The group of every prompt, from what each rank told, in their order; samples by their index."""
    groups: list[Group[Facts]] = [Group(prompt, []) for prompt in prompts]
    for rank, share in enumerate(shares):
        rows: list[Any] = share.tolist()
        for number, place, *values in rows:
            facts = _facts((rank, place), *values)
            if facts.is_golden:
                groups[number].golden = facts
            else:
                groups[number].samples.append(facts)
    for group in groups:
        group.samples.sort(key=lambda facts: facts.index)
    return groups


def _facts(
    home: tuple[int, int],
    index: int,
    tokens: int,
    weight_version: int,
    reward: float,
    truncated: bool,
    is_golden: bool,
    is_accurate: bool,
    has_routing: bool,
) -> Facts:
    """The facts of a row of FACTS."""
    return Facts(
        index,
        tokens=tokens,
        weight_version=weight_version,
        reward=reward,
        truncated=truncated,
        is_golden=is_golden,
        is_accurate=is_accurate,
        has_routing=has_routing,
        home=home,
    )
