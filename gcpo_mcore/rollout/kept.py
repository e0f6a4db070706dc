"""Responses that are sampled and not used yet, as bytes of a checkpoint and back, to the bit: a safetensors file."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from gcpo_mcore.rollout import flat
from gcpo_mcore.rollout.engine import Leftover, Leftovers
from gcpo_mcore.samples import Sample

ROWS = "rows"  # json of every response, as bytes


def pack(rounds: Sequence[Leftovers]) -> bytes:
    """The responses of each of `rounds`."""
    rows: list[dict[str, Any]] = []
    samples: list[Sample] = []
    for number, of_round in enumerate(rounds):
        for (prompt, index), leftover in of_round.items():
            sample = leftover.sample
            rows.append(
                {
                    "round": number, "prompt": prompt, "index": index, "is_whole": leftover.is_whole,
                    "text": sample.response_text, "truncated": sample.truncated, "version": sample.weight_version,
                    **flat.sizes(sample),
                }
            )  # fmt: skip
            samples.append(sample)
    told = json.dumps({"rounds": len(rounds), "rows": rows}).encode()
    return save(flat.arrays(samples) | {ROWS: np.frombuffer(told, np.uint8)})


def unpack(content: bytes) -> list[Leftovers]:
    """What `pack` was given."""
    arrays = load(content)
    told = json.loads(arrays.pop(ROWS).tobytes())
    cutter = flat.Cutter(arrays)
    rounds: list[Leftovers] = [{} for _ in range(told["rounds"])]
    for row in told["rows"]:
        sample = Sample(
            index=row["index"],
            response_text=row["text"],
            truncated=row["truncated"],
            weight_version=row["version"],
            **cutter.fields(row),
        )
        rounds[row["round"]][row["prompt"], row["index"]] = Leftover(sample, row["is_whole"])
    return rounds
