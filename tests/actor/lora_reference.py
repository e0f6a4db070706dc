"""LoRA without Megatron: gradients and updates in float64, by transformers' full gradient and the chain rule.

dL/dB = s dL/dW A^T        dL/dA = s B^T dL/dW        at W + s B A
"""

from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from gcpo_mcore.hf.tensors import tensors_on_disk
from tests.actor.worker import OPTIMIZER, make_batch

Factors = dict[tuple[str, str], torch.Tensor]


def make_factors(model: Path, layers: list[str], rank: int) -> Factors:
    """Random A and B, both far from 0, of the layers of the folder."""
    weights = tensors_on_disk(AutoModelForCausalLM.from_pretrained(model))
    found = {}
    for number, layer in enumerate(layers):
        generator = torch.Generator().manual_seed(number)
        out, into = weights[f"{layer}.weight"].shape
        found[layer, "A"] = torch.randn(rank, into, generator=generator) / np.sqrt(into)
        found[layer, "B"] = 0.1 * torch.randn(out, rank, generator=generator)
    return found


def loss_of(model, vocabulary: int) -> torch.Tensor:
    """adapter_worker.probability_loss over all rows, at the worker's temperature."""
    total = torch.zeros((), dtype=torch.float64)
    batch = make_batch(vocabulary)
    for prompt, response in zip(batch.prompt_ids, batch.response_ids, strict=True):
        logits = model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
        logp = (logits / 1.3).log_softmax(-1)
        chosen = logp.gather(1, torch.tensor(response.tolist()).unsqueeze(1))
        total = total + chosen.exp().sum() + 0.01 * (logp.exp() * logp).sum()
    return total


class Reference:
    """The factors of `start` on the model of `folder`, trained in float64."""

    def __init__(self, folder: Path, start: Factors, scale: float):
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, experts_implementation="eager")
        self.vocabulary, self.scale = self.model.config.vocab_size, scale
        self.base = {name: tensor.clone() for name, tensor in tensors_on_disk(self.model).items()}
        self.factors = {name: torch.nn.Parameter(value.double()) for name, value in start.items()}
        o = OPTIMIZER
        self.adamw = torch.optim.AdamW(
            list(self.factors.values()), lr=o.lr, betas=(o.beta1, o.beta2), eps=o.eps, weight_decay=o.weight_decay
        )

    def merged(self) -> dict[str, torch.Tensor]:
        """Every weight by its name on disk, the products in it."""
        found = {name: tensor.clone() for name, tensor in self.base.items()}
        for layer in {layer for layer, _ in self.factors}:
            found[f"{layer}.weight"] += self.scale * self.factors[layer, "B"].data @ self.factors[layer, "A"].data
        return found

    def gradients(self) -> Factors:
        """Of the loss at the present factors."""
        merged = self.merged()
        for name, tensor in tensors_on_disk(self.model).items():
            tensor.copy_(merged[name])
        self.model.zero_grad()
        loss_of(self.model, self.vocabulary).backward()
        weights = [(parameter, parameter.data) for parameter in self.model.parameters()]
        for parameter, _ in weights:
            parameter.data = parameter.grad
        full = {name: tensor.clone() for name, tensor in tensors_on_disk(self.model).items()}
        for parameter, data in weights:
            parameter.data = data
        found = {}
        for layer in {layer for layer, _ in self.factors}:
            a, b, grad = self.factors[layer, "A"].data, self.factors[layer, "B"].data, full[f"{layer}.weight"]
            found |= {(layer, "A"): self.scale * b.T @ grad, (layer, "B"): self.scale * grad @ a.T}
        return found

    def update(self) -> None:
        """One step of AdamW behind the clipped gradient."""
        for name, gradient in self.gradients().items():
            self.factors[name].grad = gradient
        torch.nn.utils.clip_grad_norm_(self.factors.values(), OPTIMIZER.clip_grad_norm)
        self.adamw.step()
