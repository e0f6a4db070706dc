"""The papers' equations, row by row and token by token, in float64 scalars. Shares no code with gcpo_mcore.objective.

`loss` and its gradients are what the property tests hold the parts against. Constants of the presets are
written out here on purpose: a changed yaml has to fail.
"""

import functools
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from hypothesis import strategies as st

from gcpo_mcore.batch import Batch
from gcpo_mcore.config.load import load_config
from gcpo_mcore.objective import Algorithm
from gcpo_mcore.samples import Group, Prompt, Sample


@dataclass(frozen=True)
class Spec:
    """One algorithm in words.

    advantage: std_n-1 | std_n | centred | rloo | raw; ratio: token | sequence | product | none
    """

    advantage: str = "std_n-1"
    ratio: str = "token"
    low: float = 0.2
    high: float = 0.2
    dual_clip: float | None = None
    kl: str | None = None
    beta: float = 1e-3
    reduction: str = "sequence_mean"
    constant_tokens: int = 0
    tis_cap: float | None = None
    entropy: float = 0.0

    def but(self, **changes) -> "Spec":
        return replace(self, **changes)


GRPO = Spec(kl="k3")  # 2402.03300 eq. 3, beta of DeepSeek-R1
DAPO = Spec(high=0.28, reduction="token_mean")  # 2503.14476 eq. 8
GCPO = Spec(ratio="sequence", low=3e-4, high=4e-4)  # 2510.07790 with 2507.18071's ratio, eq. 7, and clip range
SFT = Spec(advantage="raw", ratio="none", reduction="token_mean")
PRESETS = {"grpo": GRPO, "dapo": DAPO, "gcpo": GCPO, "sft": SFT}


@functools.cache
def algorithm(*overrides: str) -> Algorithm:
    """What a user of this command line gets."""
    return load_config(list(overrides)).algorithm


def advantages(groups: list[list[float]], kind: str) -> list[float]:
    """Advantages of all rows, group by group, from their rewards."""
    out = []
    for rewards in groups:
        n = len(rewards)
        mean = math.fsum(rewards) / n
        squares = math.fsum((r - mean) ** 2 for r in rewards)
        for i, r in enumerate(rewards):
            others = [x for j, x in enumerate(rewards) if j != i]
            if kind == "raw":
                out.append(r)
            elif kind == "rloo":
                out.append(r - (math.fsum(others) / len(others) if others else r))
            elif kind == "centred":
                out.append(r - mean)
            else:
                degrees = n - 1 if kind == "std_n-1" else n
                out.append((r - mean) / (math.sqrt(squares / max(degrees, 1)) + 1e-6) if n > 1 else 0.0)
    return out


@dataclass
class Row:
    """A row of the update: float64 scalars with gradient for `logp` and `entropy`, plain floats otherwise."""

    advantage: float
    golden: bool
    logp: list[torch.Tensor]
    entropy: list[torch.Tensor]
    old: list[float]
    ref: list[float]
    rollout: list[float]


def loss(rows: list[Row], spec: Spec) -> torch.Tensor:
    """The update's loss."""
    all_tokens = sum(len(row.logp) for row in rows)
    total = torch.zeros((), dtype=torch.float64)
    for row in rows:
        n = len(row.logp)
        change = [now - old for now, old in zip(row.logp, row.old, strict=True)]
        for t in range(n):
            if spec.ratio == "none":
                term = -row.advantage * row.logp[t]
            else:
                if spec.ratio == "token":
                    ratio = torch.exp(change[t])
                else:
                    ratio = torch.exp(sum(change) / (n if spec.ratio == "sequence" else 1))
                term = _clipped(ratio, row.advantage, spec)
            if spec.tis_cap is not None and not row.golden:
                term = term * min(math.exp(row.old[t] - row.rollout[t]), spec.tis_cap)
            if spec.kl is not None:
                d = row.logp[t] - row.ref[t]
                term = term + spec.beta * {"k1": d, "k2": d * d / 2, "k3": torch.exp(-d) - 1 + d}[spec.kl]
            term = term - spec.entropy * row.entropy[t]
            denominator = {
                "token_mean": all_tokens,
                "sequence_mean": len(rows) * n,
                "sequence_sum": len(rows),
                "constant": len(rows) * spec.constant_tokens,
            }[spec.reduction]
            total = total + term / denominator
    return total


def _clipped(ratio: torch.Tensor, advantage: float, spec: Spec) -> torch.Tensor:
    """-min(w A, clip(w) A), by cases: which of the two is smaller, and whether the bound is a constant."""
    if advantage >= 0:
        gain = ratio * advantage if ratio.item() <= 1 + spec.high else torch.tensor((1 + spec.high) * advantage)
    else:
        gain = ratio * advantage if ratio.item() >= 1 - spec.low else torch.tensor((1 - spec.low) * advantage)
        if spec.dual_clip is not None and gain.item() < spec.dual_clip * advantage:
            gain = torch.tensor(spec.dual_clip * advantage)
    return -gain


# --- random updates -----------------------------------------------------------------------------------------------

REWARDS = (0.0, 1.0, -1.0, 0.1, 1.1, 0.7)


@st.composite
def ragged_groups(draw, most_groups: int = 4, most_samples: int = 5) -> list[Group]:
    """Groups of different sizes and lengths; accuracy is drawn apart from the reward, golden answers may be bad."""
    groups = []
    for number in range(draw(st.integers(1, most_groups))):
        prompt = Prompt(f"s:{number}", "s", "", list(range(1 + number)), "")
        hopeless = draw(st.booleans())
        samples = [
            Sample(
                index=i,
                response_ids=[1] * draw(st.integers(1, 5)),
                response_text="",
                reward=draw(st.sampled_from(REWARDS)),
                is_accurate=not hopeless and draw(st.booleans()),
            )
            for i in range(draw(st.integers(2, most_samples)))
        ]
        golden = None
        if draw(st.integers(0, 3)):
            golden = Sample(
                -1, [2] * draw(st.integers(1, 5)), "", is_golden=True, reward=draw(st.sampled_from(REWARDS))
            )
            golden.is_accurate = draw(st.integers(0, 3)) > 0
        groups.append(Group(prompt, samples, golden))
    return groups


@dataclass
class Update:
    """A weighed batch with the actor's log-probs and entropies of now, and the same as reference rows."""

    batch: Batch
    logp: torch.Tensor
    entropy: torch.Tensor
    rows: list[Row]


def make_update(part: Algorithm, spec: Spec, groups: list[Group], seed: int, moved: float) -> Update:
    """Random log-probs for `groups`, old ones about `moved` away from now's; weighed by `part`."""
    rng = np.random.default_rng(seed)
    for group in groups:
        for sample in group.samples:
            if not sample.is_golden:
                sample.rollout_logp = -rng.random(len(sample.response_ids)).astype(np.float32) * 3
    batch = Batch.of(groups)
    mask = batch.mask.double()
    old = -torch.tensor(rng.random(mask.shape)) * 3
    now = old + torch.tensor(rng.normal(size=mask.shape)) * moved
    batch.old_logp = old * mask
    batch.ref_logp = (now + torch.tensor(rng.normal(size=mask.shape))) * mask
    batch.rollout_logp = batch.rollout_logp.double()
    logp = (now * mask).requires_grad_()
    entropy = (torch.tensor(rng.random(mask.shape)) * mask).requires_grad_()

    of_rows = advantages([[s.reward for s in g.samples] for g in groups], spec.advantage)
    rows = []
    for i, sample in enumerate(s for g in groups for s in g.samples):
        n = len(sample.response_ids)
        rows.append(
            Row(
                advantage=of_rows[i],
                golden=sample.is_golden,
                logp=[logp[i, t] for t in range(n)],
                entropy=[entropy[i, t] for t in range(n)],
                old=batch.old_logp[i, :n].tolist(),
                ref=batch.ref_logp[i, :n].tolist(),
                rollout=batch.rollout_logp[i, :n].tolist(),
            )
        )
    part.weigh(batch)
    return Update(batch, logp, entropy, rows)


def value_and_gradients(value: torch.Tensor, update: Update) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(loss, d loss / d logp, d loss / d entropy), zeros where the loss does not depend on it."""
    inputs = (update.logp, update.entropy)
    zeros = tuple(torch.zeros_like(x) for x in inputs)
    found = torch.autograd.grad(value, inputs, allow_unused=True, retain_graph=True) if value.requires_grad else zeros
    return value.detach().double(), *(z if g is None else g for g, z in zip(found, zeros, strict=True))
