"""A server's reply as a sample, if it is whole."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gcpo_mcore.rollout.config import Sampling
from gcpo_mcore.rollout.engine import Request
from gcpo_mcore.rollout.sglang.server import ServerLost
from gcpo_mcore.samples import Sample

SEEDS = 2**31  # SGLang hashes the seed's low bits


def payload(
    request: Request, sampling: Sampling, stop: list[int], name: str, begun: Sample | None = None
) -> dict[str, Any]:
    """What /generate is asked for one response, or for the rest of a `begun` one; `name` is new at each try."""
    before = begun.response_ids if begun else []
    return {
        "rid": name,
        "input_ids": request.prompt.token_ids + before,
        "return_logprob": True,
        "sampling_params": {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            "max_new_tokens": sampling.max_response_tokens - len(before),
            "stop_token_ids": stop,
            "sampling_seed": request.seed % SEEDS,  # heeded by servers with --enable-deterministic-inference
        },
    }


def sample(
    reply: dict[str, Any],
    request: Request,
    sampling: Sampling,
    version: int,
    decode: Callable,
    begun: Sample | None = None,
) -> tuple[Sample, bool]:
    """The response in the reply, after the tokens of `begun`, and whether it is whole: not if it was called off.

    ServerLost if the reply cannot be used, or comes from other weights than `version`.
    """
    try:
        meta = reply["meta_info"]
        ids, reason = list(reply["output_ids"]), meta["finish_reason"]["type"]
        logp = np.array([entry[0] for entry in meta["output_token_logprobs"]], np.float32)
        named = [entry[1] for entry in meta["output_token_logprobs"]]
        found = str(meta["weight_version"])
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ServerLost(f"a reply without {error}") from None
    limit = sampling.max_response_tokens - (len(begun.response_ids) if begun else 0)
    if named != ids:
        raise ServerLost(f"a reply with {len(ids)} tokens and {len(named)} log-probs that do not match")
    is_whole = reason != "abort"
    is_wrong = reason not in ("stop", "length", "abort") or len(ids) > limit or (is_whole and not ids)
    if is_wrong or (reason == "length" and len(ids) != limit):
        raise ServerLost(f"a reply of {len(ids)} of {limit} tokens that ended by '{reason}'")
    if found != str(version):
        raise ServerLost(f"a reply made with weights {found}, not {version}")
    versions = np.zeros(0, np.int32)
    first_version = version
    if begun:
        versions = np.concatenate([_versions(begun), np.full(len(ids), version, np.int32)])
        ids, logp = begun.response_ids + ids, np.concatenate([begun.rollout_logp, logp])
        first_version = begun.weight_version
    # The servers' log-probs are the model's at the sampling temperature, before top-k and top-p. What those leave of
    # the distribution is not told: where they act, sampling_logp is the same number.
    made = Sample(
        index=request.index,
        response_ids=ids,
        response_text=decode(ids) if is_whole else "",
        truncated=reason == "length",
        rollout_logp=logp,
        sampling_logp=np.zeros_like(logp) if sampling.temperature == 0 else logp.copy(),
        weight_version=first_version,
        token_versions=versions,
    )
    return made, is_whole


def _versions(sample: Sample) -> np.ndarray:
    if len(sample.token_versions):
        return sample.token_versions
    return np.full(len(sample.response_ids), sample.weight_version, np.int32)
