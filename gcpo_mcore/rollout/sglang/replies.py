"""What a job's requests ask of a server, and a server's reply as a sample, if it is whole."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gcpo_mcore.rollout.config import Sampling
from gcpo_mcore.rollout.engine import Request
from gcpo_mcore.rollout.sglang.server import ServerLost
from gcpo_mcore.samples import Sample

SEEDS = 2**31  # SGLang hashes the seed's low bits


@dataclass(frozen=True)
class Form:
    """Of all requests of a job.

    stop     token ids that end a response
    version  the weights that must answer
    routing  layers and experts per token, if the servers are to tell which experts they chose; None: they are not
    adapter  the one that the servers put on their base, by its name there; None: they have all weights
    """

    sampling: Sampling
    stop: list[int]
    version: int
    decode: Callable[[list[int]], str]
    routing: tuple[int, int] | None
    adapter: str | None = None

    def payload(self, request: Request, name: str, begun: Sample | None = None) -> dict[str, Any]:
        """What /generate is asked for one response, or for the rest of a `begun` one; `name` is new at each try."""
        sampling, before = self.sampling, begun.response_ids.tolist() if begun else []
        return {
            "rid": name,
            "input_ids": request.prompt.token_ids + before,
            "return_logprob": True,
            **({"return_routed_experts": True} if self.routing else {}),
            **({"lora_path": self.adapter} if self.adapter else {}),
            "sampling_params": {
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k or -1,
                "max_new_tokens": sampling.max_response_tokens - len(before),
                "stop_token_ids": self.stop,
                "sampling_seed": request.seed % SEEDS,  # heeded by servers with --enable-deterministic-inference
            },
        }

    def sample(self, reply: dict[str, Any], request: Request, begun: Sample | None = None) -> tuple[Sample, bool]:
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
        before = begun.response_ids.tolist() if begun else []
        limit = self.sampling.max_response_tokens - len(before)
        if named != ids:
            raise ServerLost(f"a reply with {len(ids)} tokens and {len(named)} log-probs that do not match")
        if reason == "abort" and ids and (ids[-1] in self.stop or len(ids) == limit):
            reason = "stop" if ids[-1] in self.stop else "length"  # called off behind its last token
        is_whole = reason != "abort"
        is_wrong = reason not in ("stop", "length", "abort") or len(ids) > limit or (is_whole and not ids)
        if is_wrong or (reason == "length" and len(ids) != limit):
            raise ServerLost(f"a reply of {len(ids)} of {limit} tokens that ended by '{reason}'")
        if found != str(self.version):
            raise ServerLost(f"a reply made with weights {found}, not {self.version}")
        experts = self._experts(meta, len(request.prompt.token_ids) + len(before) + len(ids) - 1) if ids else None
        versions, first_version = np.zeros(0, np.int32), self.version
        if begun:
            versions = np.concatenate([_versions(begun), np.full(len(ids), self.version, np.int32)])
            ids, logp = before + ids, np.concatenate([begun.rollout_logp, logp])
            first_version = begun.weight_version
            # What was read for the earlier part counts where it was read first.
            if experts is not None and begun.routed_experts is not None:
                experts[: len(begun.routed_experts)] = begun.routed_experts
        # The servers' log-probs are the model's at the sampling temperature, before top-k and top-p. What those leave
        # of the distribution is not told: where they act, sampling_logp is the same number.
        made = Sample(
            index=request.index,
            response_ids=np.array(ids, np.int32),
            response_text=self.decode(ids) if is_whole else "",
            truncated=reason == "length",
            rollout_logp=logp,
            sampling_logp=np.zeros_like(logp) if self.sampling.temperature == 0 else logp.copy(),
            weight_version=first_version,
            token_versions=versions,
            routed_experts=experts,
        )
        return made, is_whole

    def _experts(self, meta: dict[str, Any], tokens: int) -> np.ndarray | None:
        """[tokens, layers, experts per token] int16, as in Sample."""
        if self.routing is None:
            return None
        if not meta.get("routed_experts"):
            raise ServerLost("a reply without routed experts: is the server started with enable-return-routed-experts?")
        told = np.frombuffer(base64.b64decode(meta["routed_experts"]), np.int32)
        if told.size != tokens * self.routing[0] * self.routing[1]:
            raise ServerLost(f"a reply with {told.size} routed experts for {tokens} tokens x {self.routing}")
        return told.reshape(tokens, *self.routing).astype(np.int16)


def _versions(sample: Sample) -> np.ndarray:
    if len(sample.token_versions):
        return sample.token_versions
    return np.full(sample.tokens, sample.weight_version, np.int32)
