"""Responses that are sampled and not used yet, as bytes of a checkpoint and back, to the bit: a safetensors file."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from gcpo_mcore.rollout.engine import Leftover, Leftovers
from gcpo_mcore.samples import Sample

ROWS = "rows"  # json of every response, as bytes
FLAT = ("response_ids", "rollout_logp", "sampling_logp", "token_versions")  # end to end, in the order of the rows
EXPERTS = "routed_experts"
TYPES = {"response_ids": np.int32, "rollout_logp": np.float32, "sampling_logp": np.float32, "token_versions": np.int32}


def pack(rounds: Sequence[Leftovers]) -> bytes:
    """The responses of each of `rounds`."""
    rows: list[dict[str, Any]] = []
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (*FLAT, EXPERTS)}
    for number, of_round in enumerate(rounds):
        for (prompt, index), leftover in of_round.items():
            sample, experts = leftover.sample, leftover.sample.routed_experts
            rows.append(
                {
                    "round": number, "prompt": prompt, "index": index, "is_whole": leftover.is_whole,
                    "text": sample.response_text, "truncated": sample.truncated, "version": sample.weight_version,
                    "sizes": [len(getattr(sample, name)) for name in FLAT],
                    "experts": None if experts is None else list(experts.shape),
                }
            )  # fmt: skip
            for name in FLAT:
                parts[name].append(np.asarray(getattr(sample, name), TYPES[name]))
            if experts is not None:
                parts[EXPERTS].append(np.asarray(experts, np.int16).reshape(-1))
    types = TYPES | {EXPERTS: np.int16}
    arrays = {name: np.concatenate([np.zeros(0, types[name]), *of]) for name, of in parts.items()}
    told = json.dumps({"rounds": len(rounds), "rows": rows}).encode()
    return save(arrays | {ROWS: np.frombuffer(told, np.uint8)})


def unpack(content: bytes) -> list[Leftovers]:
    """What `pack` was given."""
    arrays = load(content)
    told = json.loads(arrays.pop(ROWS).tobytes())
    at = dict.fromkeys(arrays, 0)

    def cut(name: str, size: int) -> np.ndarray:
        at[name] += size
        return arrays[name][at[name] - size : at[name]].copy()

    rounds: list[Leftovers] = [{} for _ in range(told["rounds"])]
    for row in told["rows"]:
        shape = row["experts"]
        fields = {name: cut(name, size) for name, size in zip(FLAT, row["sizes"], strict=True)}
        sample = Sample(
            index=row["index"],
            response_text=row["text"],
            truncated=row["truncated"],
            weight_version=row["version"],
            routed_experts=None if shape is None else cut(EXPERTS, math.prod(shape)).reshape(shape),
            response_ids=fields["response_ids"],
            rollout_logp=fields["rollout_logp"],
            sampling_logp=fields["sampling_logp"],
            token_versions=fields["token_versions"],
        )
        rounds[row["round"]][row["prompt"], row["index"]] = Leftover(sample, row["is_whole"])
    return rounds
