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

from gcpo_mcore.batch import Batch, ScoredBatch, UpdateBatch
from gcpo_mcore.objective import Algorithm
from gcpo_mcore.objective.reach import ReachGate
from gcpo_mcore.run.load import load_config
from gcpo_mcore.samples import Group, Prompt, Sample


@dataclass(frozen=True)
class BesideSpec:
    """Golden answers beside groups: mu from `weight` to `weight_end`, and which are imitated.

    reach  (bound, quantile) of the gate; None: all are
    """

    weight: float = 1.0
    weight_end: float = 1.0
    schedule: str = "constant"
    blend: bool = False
    token_weight: str = "one"
    others_zero: bool = False
    reach: tuple[float, float] | None = None


@dataclass(frozen=True)
class Spec:
    """One algorithm in words.

    advantage  std_n-1 | std_n | centred | rloo | raw | whitened | whitened_baseline
    ratio      token | sequence | product | sequence_token | none
    surrogate  clipped | log | cispo | sapo | gmpo | conspo | disco | dpo
    mismatch   (kind, level, low, high, veto): kind 'cap' | 'band' | 'reject'
    golden     old | sft | luffy
    """

    advantage: str = "std_n-1"
    ratio: str = "token"
    low: float = 0.2
    high: float = 0.2
    surrogate: str = "clipped"
    dual_clip: float | None = None
    kl: str | None = None
    kl_place: str = "loss"  # loss | unbiased | reward
    beta: float = 1e-3
    reduction: str = "sequence_mean"
    constant_tokens: int = 0
    mismatch: tuple | None = None
    entropy: float = 0.0
    golden: str = "old"
    golden_low: float | None = None
    golden_high: float | None = None
    golden_weight: float = 1.0
    golden_weight_end: float = 1.0
    golden_schedule: str = "constant"
    token_weight: str = "one"
    golden_alone: bool = False  # its advantage 1, that of the others 0
    beside: BesideSpec | None = None
    denominator: str = "wrong"  # of conspo
    mask_truncated: bool = False
    trust_region: tuple[float, float] | None = None  # (limit, penalty)

    def but(self, **changes) -> "Spec":
        return replace(self, **changes)


OPEN = math.inf  # a range without ends
GROUP = Spec(ratio="none", surrogate="conspo", reduction="group_mean", advantage="raw")
GRPO = Spec(kl="k3")  # 2402.03300 eq. 3, beta of DeepSeek-R1
DAPO = Spec(high=0.28, reduction="token_mean")  # 2503.14476 eq. 8
GCPO = Spec(ratio="sequence", low=3e-4, high=4e-4)  # 2510.07790 with 2507.18071's ratio, eq. 7, and clip range
SFT = Spec(advantage="raw", ratio="none", surrogate="log", reduction="token_mean")
PRESETS = {
    "grpo": GRPO,
    "dapo": DAPO,
    "gcpo": GCPO,
    "sft": SFT,
    "gspo": GCPO,
    "dr_grpo": Spec(advantage="centred", reduction="constant", constant_tokens=22),
    "rloo": Spec(
        advantage="rloo", ratio="none", surrogate="log", reduction="sequence_sum", kl="k1", kl_place="reward", beta=0.03
    ),
    "reinforce_pp": Spec(advantage="whitened", reduction="token_mean", kl="k1", kl_place="reward", beta=0.03),
    "reinforce_pp_baseline": Spec(advantage="whitened_baseline", reduction="token_mean", kl="k2"),
    "cispo": Spec(surrogate="cispo", reduction="token_mean"),
    "sapo": Spec(surrogate="sapo"),
    "gmpo": Spec(surrogate="gmpo"),
    "luffy": Spec(
        advantage="centred", low=OPEN, high=OPEN, reduction="constant", constant_tokens=22, golden="luffy", entropy=1e-3
    ),
    "conspo": GROUP,
    "gcpo_conspo": GROUP,
    "disco": GROUP.but(surrogate="disco", trust_region=(1e-4, 1e3)),
    "dpo": GROUP.but(surrogate="dpo"),
    "srpo": Spec(reduction="token_mean"),
    "dyme": Spec(golden_alone=True),
    "chord": Spec(beside=BesideSpec(0.9, 0.05, "cosine", blend=True, token_weight="p(1-p)")),
    "hpt": Spec(beside=BesideSpec(others_zero=True)),
    "srft": Spec(beside=BesideSpec(0.5, 0.5, token_weight="exp(-H)")),
    "gcpo_reach": GCPO.but(beside=BesideSpec(reach=(-3.0, 0.0))),
}


@functools.cache
def algorithm(*overrides: str) -> Algorithm:
    """What a user of this command line gets."""
    return load_config(list(overrides)).algorithm


@dataclass
class Row:
    """A row of the update: float64 scalars with gradient for `logp` and `entropy`, plain floats otherwise."""

    group: int
    reward: float
    golden: bool
    beside: bool
    accurate: bool
    truncated: bool
    logp: list[torch.Tensor]
    entropy: list[torch.Tensor]
    old: list[float]
    ref: list[float]
    rollout: list[float]

    @property
    def n(self) -> int:
        return len(self.logp)


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


def token_advantages(rows: list[Row], spec: Spec) -> list[list[float]]:
    """The advantage of every token of every row."""
    penalty = [[0.0] * row.n for row in rows]
    if spec.kl_place == "reward" and spec.kl:
        penalty = [[spec.beta * (o - r) for o, r in zip(row.old, row.ref, strict=True)] for row in rows]
    totals = [row.reward - math.fsum(p) for row, p in zip(rows, penalty, strict=True)]
    by_group = [[t for t, row in zip(totals, rows, strict=True) if row.group == g] for g in _groups(rows)]
    if not spec.advantage.startswith("whitened"):
        flat = advantages(by_group, spec.advantage)
        return [[a] * row.n for a, row in zip(flat, rows, strict=True)]
    if spec.advantage == "whitened_baseline":
        flat = advantages(by_group, "centred")
        raw = [[a] * row.n for a, row in zip(flat, rows, strict=True)]
    else:
        raw = [[row.reward - math.fsum(p[t:]) for t in range(row.n)] for row, p in zip(rows, penalty, strict=True)]
    trained = [a for row, of_row in zip(rows, raw, strict=True) for a in of_row if _is_trained(row, spec)]
    if not trained:
        return raw
    mean = math.fsum(trained) / len(trained)
    std = math.sqrt(math.fsum((a - mean) ** 2 for a in trained) / max(len(trained) - 1, 1))
    return [[(a - mean) / (std + 1e-8) for a in of_row] for of_row in raw]


def loss(rows: list[Row], spec: Spec, progress: float = 0.0) -> torch.Tensor:
    """The update's loss."""
    if spec.beside is None:
        return _loss_of_samples(rows, spec, progress)
    mu = _at(spec.beside.schedule, spec.beside.weight, spec.beside.weight_end, progress)
    rest = 1 - mu if spec.beside.blend else 1.0
    return rest * _loss_of_samples(rows, spec, progress) + mu * _imitation(rows, spec.beside)


def _imitation(rows: list[Row], spec: BesideSpec) -> torch.Tensor:
    beside = [row for row in rows if row.beside]
    total = torch.zeros((), dtype=torch.float64)
    for row in beside:
        if _is_imitated(row, spec):
            for t in range(row.n):
                total = total - _token_weight(row, t, spec.token_weight) * row.logp[t]
    return total / max(sum(row.n for row in beside), 1)


def _is_imitated(row: Row, spec: BesideSpec) -> bool:
    if spec.reach is None:
        return True
    bound, quantile = spec.reach
    return sorted(row.old)[math.floor(quantile * (row.n - 1))] < bound


def _token_weight(row: Row, t: int, kind: str) -> float:
    p = math.exp(row.logp[t].item())
    if kind == "unreachable":
        return float(row.old[t] < -2.0)
    return {"one": 1.0, "p": p, "p(1-p)": p - p * p, "exp(-H)": 1 / math.exp(row.entropy[t].item())}[kind]


def _at(schedule: str, start: float, end: float, progress: float) -> float:
    if schedule == "cosine":
        return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))
    return start * (1 - progress) + end * progress if schedule == "linear" else start


def _loss_of_samples(rows: list[Row], spec: Spec, progress: float) -> torch.Tensor:
    alone = {row.group for row in rows if row.golden and spec.golden_alone}
    if spec.beside and spec.beside.others_zero:
        alone = {row.group for row in rows if row.beside and _is_imitated(row, spec.beside)}
    rows = [row for row in rows if not row.beside]
    trained = [row for row in rows if _is_trained(row, spec)]
    total = torch.zeros((), dtype=torch.float64)
    if spec.surrogate in ("conspo", "disco", "dpo"):
        total = total + _contrast(trained, spec, progress)
    for row, advantage in zip(rows, token_advantages(rows, spec), strict=True):
        if not _is_trained(row, spec):
            continue
        if row.group in alone:
            advantage = [float(row.golden)] * row.n
        for t in range(row.n):
            term = torch.zeros((), dtype=torch.float64)
            if spec.surrogate not in ("conspo", "disco", "dpo"):
                term = _surrogate(row, t, advantage[t], spec) * _correction(row, t, spec)
                if row.golden:
                    weight = _at(spec.golden_schedule, spec.golden_weight, spec.golden_weight_end, progress)
                    term = term * weight * _token_weight(row, t, spec.token_weight)
            if spec.kl is not None and spec.kl_place != "reward":
                d = row.logp[t] - row.ref[t]
                estimate = {"k1": d, "k2": d * d / 2, "k3": torch.exp(-d) - 1 + d}[spec.kl]
                if spec.kl_place == "unbiased":
                    estimate = estimate * torch.exp(row.logp[t] - row.old[t])
                term = term + spec.beta * estimate
            term = term - spec.entropy * row.entropy[t]
            total = total + term / _denominator(row, trained, spec)
    return total


def _is_trained(row: Row, spec: Spec) -> bool:
    return not (spec.mask_truncated and row.truncated)


def _groups(rows: list[Row]) -> list[int]:
    return sorted({row.group for row in rows})


def _denominator(row: Row, trained: list[Row], spec: Spec) -> float:
    if spec.reduction == "token_mean":
        return sum(other.n for other in trained)
    if spec.reduction == "group_mean":
        return len(_groups(trained)) * sum(other.group == row.group for other in trained) * row.n
    return len(trained) * {"sequence_mean": row.n, "sequence_sum": 1, "constant": spec.constant_tokens}[spec.reduction]


def _ratio(row: Row, t: int, spec: Spec) -> torch.Tensor:
    change = [now - old for now, old in zip(row.logp, row.old, strict=True)]
    if row.golden and spec.golden == "luffy":
        p = torch.exp(row.logp[t])
        return p / (p + 0.1)
    if spec.ratio == "none" or (row.golden and spec.golden == "sft"):
        return torch.exp(row.logp[t] - row.logp[t].item())
    if spec.ratio == "token":
        return torch.exp(change[t])
    if spec.ratio == "sequence_token":
        return math.exp(sum(change).item() / row.n) * torch.exp(row.logp[t] - row.logp[t].item())
    return torch.exp(sum(change) / (row.n if spec.ratio == "sequence" else 1))


def _surrogate(row: Row, t: int, a: float, spec: Spec) -> torch.Tensor:
    if spec.surrogate == "log":
        return -a * row.logp[t]
    w = _ratio(row, t, spec)
    if spec.surrogate == "cispo":
        return -min(w.item(), 5.0) * a * row.logp[t]
    if spec.surrogate == "sapo":
        tau = 1.0 if a > 0 else 1.05
        return -a * 4 / tau / (1 + torch.exp(-tau * (w - 1)))
    if spec.surrogate == "gmpo":
        bounded = []
        for u in range(row.n):
            log = torch.log(_ratio(row, u, spec))
            gains = log.item() > 0.4 if a > 0 else log.item() < -0.4
            bounded.append(torch.tensor(math.copysign(0.4, a), dtype=torch.float64) if gains and a != 0 else log)
        return -a * torch.exp(sum(bounded) / row.n)
    return _clipped(w, a, row, spec)


def _clipped(ratio: torch.Tensor, advantage: float, row: Row, spec: Spec) -> torch.Tensor:
    """-min(w A, clip(w) A), by cases: which of the two is smaller, and whether the bound is a constant."""
    low, high = spec.low, spec.high
    if row.golden and spec.golden != "old":
        low = high = OPEN
    if row.golden and spec.golden_low is not None:
        low = spec.golden_low
    if row.golden and spec.golden_high is not None:
        high = spec.golden_high
    if advantage >= 0:
        gain = ratio * advantage if ratio.item() <= 1 + high else torch.tensor((1 + high) * advantage)
    else:
        gain = ratio * advantage if ratio.item() >= 1 - low else torch.tensor((1 - low) * advantage)
        if spec.dual_clip is not None and gain.item() < spec.dual_clip * advantage:
            gain = torch.tensor(spec.dual_clip * advantage)
    return -gain


def _correction(row: Row, t: int, spec: Spec) -> float:
    """The factor for engine against actor."""
    if spec.mismatch is None or row.golden:
        return 1.0
    kind, level, low, high, veto = spec.mismatch
    logs = [old - rollout for old, rollout in zip(row.old, row.rollout, strict=True)]
    if veto is not None and min(logs) < math.log(veto):
        return 0.0
    rho = math.exp({"token": logs[t], "sequence": sum(logs), "geometric": sum(logs) / row.n}[level])
    if kind == "cap":
        return min(rho, high)
    return (rho if kind == "band" else 1.0) if low <= rho <= high else 0.0


def _contrast(rows: list[Row], spec: Spec, progress: float) -> torch.Tensor:
    losses = []
    for group in _groups(rows):
        mine = [row for row in rows if row.group == group]
        right = [_score(row, spec) for row in mine if row.accurate]
        wrong = [_score(row, spec) for row in mine if not row.accurate]
        if not right or not wrong:
            continue
        if spec.surrogate == "conspo":
            margin, tau = 0.5 * progress, 0.5
            each = []
            for i, s in enumerate(right):
                top = torch.exp((s - margin) / tau)
                others = wrong + [x for j, x in enumerate(right) if j != i and spec.denominator == "all"]
                each.append(-torch.log(top / (top + sum(torch.exp(x / tau) for x in others))))
            losses.append(sum(each) / len(each))
        elif spec.surrogate == "disco":
            hardest = 10.0 * torch.log(sum(torch.exp(x / 10.0) for x in wrong) / len(wrong))
            losses.append(hardest - sum(right) / len(right))
        else:
            pairs = [torch.log(1 + torch.exp(-0.1 * (s - x))) for s in right for x in wrong]
            losses.append(sum(pairs) / len(pairs))
    total = sum(losses) / len(losses) if losses else torch.zeros((), dtype=torch.float64)
    if spec.trust_region is not None:
        limit, penalty = spec.trust_region
        tokens = [old - now for row in rows if not row.golden for old, now in zip(row.old, row.logp, strict=True)]
        kl = sum(tokens, torch.zeros((), dtype=torch.float64)) / max(len(tokens), 1)
        if kl.item() > limit:
            total = total + penalty / 2 * (kl - limit) ** 2
    return total


def _score(row: Row, spec: Spec) -> torch.Tensor:
    if spec.surrogate == "dpo":
        return sum(now - ref for now, ref in zip(row.logp, row.ref, strict=True))
    return sum(row.logp) / row.n


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
                truncated=draw(st.integers(0, 3)) == 0,
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

    batch: UpdateBatch
    scored: ScoredBatch  # as it was before
    logp: torch.Tensor
    entropy: torch.Tensor
    rows: list[Row]


def make_update(part: Algorithm, groups: list[Group], seed: int, moved: float, progress: float = 0.0) -> Update:
    """Random log-probs for `groups`, old ones about `moved` away from now's; weighed by `part`, ready for its loss."""
    rng = np.random.default_rng(seed)
    for group in groups:
        for sample in group.samples:
            if not sample.is_golden:
                sample.rollout_logp = -rng.random(len(sample.response_ids)).astype(np.float32) * 3
    batch = Batch.of(groups)
    mask = batch.mask.double()
    old = -torch.tensor(rng.random(mask.shape)) * 3
    now = old + torch.tensor(rng.normal(size=mask.shape)) * moved
    ref_logp = (now + torch.tensor(rng.normal(size=mask.shape))) * mask
    scored = replace(batch, rollout_logp=batch.rollout_logp.double()).scored(old * mask, ref_logp)
    logp = (now * mask).requires_grad_()
    entropy = (torch.tensor(rng.random(mask.shape)) * mask).requires_grad_()

    rows = []
    samples = [(number, sample) for number, group in enumerate(groups) for sample in group.samples]
    for i, (number, sample) in enumerate(samples):
        n = len(sample.response_ids)
        rows.append(
            Row(
                group=number,
                reward=sample.reward,
                golden=sample.is_golden,
                beside=sample.is_beside,
                accurate=sample.is_accurate,
                truncated=sample.truncated,
                logp=[logp[i, t] for t in range(n)],
                entropy=[entropy[i, t] for t in range(n)],
                old=scored.old_logp[i, :n].tolist(),
                ref=ref_logp[i, :n].tolist(),
                rollout=scored.rollout_logp[i, :n].tolist(),
            )
        )
    if part.golden.measures_reach:
        scored, _ = ReachGate(part.golden).admit(scored, scored.old_logp, [group.prompt.id for group in groups])
    weighed, _ = part.weigh(scored)
    update, _ = part.begin_update(weighed, logp.detach(), progress)
    return Update(update, scored, logp, entropy, rows)


def value_and_gradients(value: torch.Tensor, update: Update) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(loss, d loss / d logp, d loss / d entropy), zeros where the loss does not depend on it."""
    inputs = (update.logp, update.entropy)
    zeros = tuple(torch.zeros_like(x) for x in inputs)
    found = torch.autograd.grad(value, inputs, allow_unused=True, retain_graph=True) if value.requires_grad else zeros
    return value.detach().double(), *(z if g is None else g for g, z in zip(found, zeros, strict=True))
