"""A server's reply as a sample, if it is whole."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gcpo_mcore.rollout.config import Sampling
from gcpo_mcore.rollout.engine import Request
from gcpo_mcore.rollout.sglang.server import ServerLost
from gcpo_mcore.samples import Sample

SEEDS = 2**31  # SGLang hashes the seed's low bits


def payload(request: Request, sampling: Sampling, stop: list[int], name: str) -> dict[str, Any]:
    """What /generate is asked for one response; `name` is the request's id, new at each try."""
    return {
        "rid": name,
        "input_ids": request.prompt.token_ids,
        "return_logprob": True,
        "sampling_params": {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            "max_new_tokens": sampling.max_response_tokens,
            "stop_token_ids": stop,
            "sampling_seed": request.seed % SEEDS,  # heeded by servers with --enable-deterministic-inference
        },
    }


def sample(reply: dict[str, Any], request: Request, sampling: Sampling, version: int, decode: Callable) -> Sample:
    """The response in the reply. ServerLost if it is not whole or comes from other weights than `version`."""
    try:
        meta = reply["meta_info"]
        ids, reason = list(reply["output_ids"]), meta["finish_reason"]["type"]
        logp = np.array([entry[0] for entry in meta["output_token_logprobs"]], np.float32)
        named = [entry[1] for entry in meta["output_token_logprobs"]]
        found = str(meta["weight_version"])
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ServerLost(f"a reply without {error}") from None
    limit = sampling.max_response_tokens
    if named != ids:
        raise ServerLost(f"a reply with {len(ids)} tokens and {len(named)} log-probs that do not match")
    if reason not in ("stop", "length") or not 0 < len(ids) <= limit or (reason == "length" and len(ids) != limit):
        raise ServerLost(f"a reply of {len(ids)} of {limit} tokens that ended by '{reason}'")
    if found != str(version):
        raise ServerLost(f"a reply made with weights {found}, not {version}")
    # The servers' log-probs are the model's at the sampling temperature, before top-k and top-p. What those leave of
    # the distribution is not told: where they act, sampling_logp is the same number.
    return Sample(
        index=request.index,
        response_ids=ids,
        response_text=decode(ids),
        truncated=reason == "length",
        rollout_logp=logp,
        sampling_logp=np.zeros_like(logp) if sampling.temperature == 0 else logp.copy(),
        weight_version=version,
    )
