"""The plainest engine: transformers' own model in this process, a whole forward pass for each token of one response."""

from collections.abc import Callable

import torch
from transformers import AutoModelForCausalLM

from gcpo_mcore.base import platform
from gcpo_mcore.rollout.config import RolloutConfig, Sampling
from gcpo_mcore.rollout.engine import Engine, Job, Request, Weights
from gcpo_mcore.rollout.sampling import draw, uniforms
from gcpo_mcore.samples import Sample


class PlainEngine(Engine):
    """Token ids in, token ids and log-probs out, one response after the other."""

    Config = RolloutConfig  # an engine with keys of its own extends it

    def __init__(
        self,
        config: RolloutConfig,
        model_folder: str,
        dtype: str,
        stop_token_ids: list[int],
        decode: Callable[[list[int]], str],
    ):
        self.stop, self.decode, self.version = set(stop_token_ids), decode, -1
        model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=getattr(torch, dtype))
        self.model = model.to(platform.device()).eval()

    def update_weights(self, weights: Weights) -> None:
        """Copies every tensor of the actor's stream; all ranks draw it to its end."""
        mine = self.model.state_dict()
        for name, tensor in weights.export():
            mine[name].copy_(tensor)
        self.version = weights.version

    def begin(self, requests: list[Request], sampling: Sampling, enough: int | None = None) -> Job:
        """Only notes them down: there is no other process that could start."""
        return Job(requests, sampling)

    @torch.inference_mode()
    def finish(self, job: Job) -> list[Sample]:
        """A sample for each request, in order."""
        return [self._answer(request, job.sampling) for request in job.requests]

    def _answer(self, request: Request, sampling: Sampling) -> Sample:
        ids, drawn = list(request.prompt.token_ids), []
        # A request has random numbers of its own, so that it does not matter which rank answers it.
        numbers = torch.from_numpy(uniforms(request.seed, sampling.max_response_tokens)).to(self.model.device)
        while len(drawn) < sampling.max_response_tokens and not (drawn and drawn[-1][0] in self.stop):
            logits = self.model(torch.tensor([ids], device=self.model.device)).logits[:, -1].float()
            drawn.append(tuple(one.item() for one in draw(logits, numbers[len(drawn)].unsqueeze(0), sampling)))
            ids.append(drawn[-1][0])
        response, logp, sampling_logp = zip(*drawn, strict=True)
        return Sample(
            index=request.index,
            response_ids=list(response),
            response_text=self.decode(list(response)),
            rollout_logp=torch.tensor(logp).numpy(),
            sampling_logp=torch.tensor(sampling_logp).numpy(),
            truncated=response[-1] not in self.stop,
            weight_version=self.version,
        )

    def close(self) -> None:
        """Drops the model."""
        del self.model
