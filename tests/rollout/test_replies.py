"""Replies that were called off, and what a reply tells of the experts."""

import base64

import numpy as np
import pytest

from gcpo_mcore.rollout.config import Sampling
from gcpo_mcore.rollout.engine import Request
from gcpo_mcore.rollout.sglang.replies import Form
from gcpo_mcore.rollout.sglang.server import ServerLost
from gcpo_mcore.samples import Prompt

FORM = Form(Sampling(temperature=1.0, top_p=1.0, top_k=0, max_response_tokens=8), [0], 3, str, routing=(2, 2))
REQUEST = Request(Prompt("p", "p", "", [5, 6, 7], ""), 0, 0)


def reply(ids: list[int], experts: np.ndarray | None, reason: str) -> dict:
    meta = {
        "finish_reason": {"type": reason},
        "weight_version": "3",
        "output_token_logprobs": [[-1.0, token, None] for token in ids],
    }
    if experts is not None:
        meta["routed_experts"] = base64.b64encode(experts.astype(np.int32).tobytes()).decode()
    return {"output_ids": ids, "meta_info": meta}


def experts(tokens: int, value: int) -> np.ndarray:
    return np.full((tokens, 2, 2), value)


def test_a_part_keeps_the_experts_it_was_sampled_with():
    part, is_whole = FORM.sample(reply([1, 2], experts(4, 1), "abort"), REQUEST)
    assert not is_whole and part.routed_experts.shape == (4, 2, 2)
    whole, is_whole = FORM.sample(reply([3, 4, 0], experts(7, 9), "stop"), REQUEST, part)
    assert is_whole and whole.response_ids.tolist() == [1, 2, 3, 4, 0]
    assert whole.routed_experts.dtype == np.int16 and whole.routed_experts[:, 0, 0].tolist() == [1] * 4 + [9] * 3
    assert part.routed_experts[:, 0, 0].tolist() == [1] * 4


def test_a_reply_without_them_or_of_another_size_is_none():
    with pytest.raises(ServerLost, match="without routed experts: is the server started with enable-return-routed"):
        FORM.sample(reply([1, 0], None, "stop"), REQUEST)
    with pytest.raises(ServerLost, match=r"a reply with 12 routed experts for 4 tokens x \(2, 2\)"):
        FORM.sample(reply([1, 0], experts(3, 1), "stop"), REQUEST)


def test_a_response_called_off_behind_its_last_token_is_whole():
    full = [1, 2, 3, 4, 5, 6, 7, 8]
    cut, is_whole = FORM.sample(reply(full, experts(10, 1), "abort"), REQUEST)
    assert is_whole and cut.truncated and cut.response_ids.tolist() == full
    ended, is_whole = FORM.sample(reply([1, 0], experts(4, 1), "abort"), REQUEST)
    assert is_whole and not ended.truncated
