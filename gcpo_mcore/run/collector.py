"""Fills a step's batch: sample -> grade -> golden answers and filter, again until it is full or the cap is reached."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.data.cursor import Mixture
from gcpo_mcore.monitor.watchdog import Phases
from gcpo_mcore.rollout.kept import pack, unpack
from gcpo_mcore.rollout.sampler import Sampler, Started
from gcpo_mcore.run.config import RunConfig
from gcpo_mcore.run.guiding import Guiding
from gcpo_mcore.samples import Facts, Group, Prompt, Sample

SHARES = ("all_wrong", "all_right")  # of the algorithm's counts: those logged as fractions of the groups


@dataclass
class Collected:
    """A step's groups to train on, as facts, and the metrics of all that was sampled for them: the same on every rank.

    store  the samples whose `home` is this rank
    """

    groups: list[Group[Facts]]
    store: list[Sample]
    metrics: dict[str, float]


@dataclass
class Round:
    """Prompts that are being sampled. occasion: what their seeds are made from; skipped: how many were not drawn."""

    started: Started
    occasion: str
    skipped: int

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs to begin it again."""
        prompts = [prompt.id for prompt in self.started.prompts]
        return {"occasion": self.occasion, "prompts": prompts, "skipped": self.skipped}


class Collector:
    """Samples, grades and selects until a step is full.

    `sync` is called before sampling: it hands the engine the actor's weights. `looks_ahead`: whether prompts of later
    steps may be sampled while the caller trains.
    """

    def __init__(
        self,
        config: RunConfig,
        cursor: Mixture,
        sampler: Sampler,
        phases: Phases,
        sync: Callable[[], None],
        looks_ahead: bool = True,
    ):
        self.config, self.cursor, self.sampler, self.phases, self.sync = config, cursor, sampler, phases, sync
        last_step = min(config.trainer.steps, config.trainer.stop_at_step or config.trainer.steps)
        self.last_step = last_step if looks_ahead else 0
        self.ahead: deque[Round] = deque()  # the next steps', with rollout.max_staleness
        self._restored: Callable[[], None] | None = None  # begins those of a checkpoint
        self.guiding = Guiding(config, sampler, phases)
        self.history: dict[str, float] = {}  # prompt id -> accuracy of its last group, if filter or curriculum want it

    def collect(self, step: int) -> Collected:
        """UserError if the batch is short at the filter's cap and the filter says to stop then."""
        wanted, algorithm = self.config.trainer.prompts_per_step, self.config.algorithm
        if self._restored:
            self._restored()
        kept: list[Group[Facts]] = []
        store: list[Sample] = []
        totals: dict[str, float] = {}
        selection: dict[str, float] = {}
        guided: dict[str, float] = {}
        rounds = 0
        while len(kept) < wanted and rounds < algorithm.filter.rounds_per_step:
            rounds += 1
            round_ = self.ahead.popleft() if self.ahead else self._begin(f"{step}|{rounds}")
            groups, graded = self._finish(round_, store)
            sums = _sums(groups)
            if algorithm.filter.needs_history or self.config.data.curriculum.needs_history:
                self.history |= {group.prompt.id: group.accuracy for group in groups}
            shares = _shares(groups)  # of what the policy did alone
            _add(totals, graded | sums)
            if rounds == 1:  # one more round at most in a step
                groups, graded, guided = self.guiding.again(groups, store, str(step))
                _add(totals, graded)
            selected, counts = algorithm.select(groups, step)
            kept += selected
            _add(selection, counts | shares)
        if len(kept) < wanted and algorithm.filter.stop_at_cap:
            raise UserError(
                f"phase sample: step {step} kept {len(kept)} of {wanted} groups after {rounds} rounds "
                "(algorithm.filter.at_cap=stop)"
            )
        for number in range(min(self.config.rollout.max_staleness, self.last_step - step) - len(self.ahead)):
            self.ahead.append(self._begin(f"{step}|ahead|{number}"))  # sampled while the caller trains
        return Collected(kept[:wanted], store, _means(totals, selection, rounds) | guided)

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs to go on with the same prompts, in plain json values."""
        ahead = [round_.state() for round_ in self.ahead]
        return {"cursor": self.cursor.state(), "history": self.history, "ahead": ahead, "guided": self.guiding.state()}

    def sampled(self) -> bytes:
        """On rank 0, what the engine has sampled that no step has used yet; empty if there is nothing."""
        engine = self.sampler.engine
        rounds = [engine.sampled(round_.started.job) for round_ in self.ahead]
        rounds.append(engine.sampled(None))
        return pack(rounds) if any(rounds) else b""

    def restore(self, state: dict[str, Any], sampled: bytes) -> None:
        """Goes on where `state` and `sampled` were taken; with the next step, when the engine has weights."""
        self.cursor.restore(state["cursor"])
        self.history = dict(state["history"])
        self.guiding.restore(state.get("guided", {}))  # older ones have none
        self._restored = partial(self._begin_again, state.get("ahead", []), sampled)  # older ones drew them again

    def _begin_again(self, ahead: list[dict[str, Any]], sampled: bytes) -> None:
        """Begins the rounds of a checkpoint, whose engine had `sampled` so much of them."""
        self._restored = None
        engine = self.sampler.engine
        *of_rounds, kept = unpack(sampled) if sampled else [{} for _ in range(len(ahead) + 1)]
        for round_, of_round in zip(ahead, of_rounds, strict=True):
            engine.take_over(of_round, is_of_a_job=True)
            prompts = self.cursor.prompts(round_["prompts"])
            self.ahead.append(self._ask(prompts, round_["occasion"], round_["skipped"]))
        engine.take_over(kept, is_of_a_job=False)

    def _begin(self, occasion: str) -> Round:
        """Hands the next prompts to the engine."""
        skipped: list[Prompt] = []
        wanted, more = self.config.trainer.prompts_per_step, self.config.rollout.oversampling
        with self.phases.phase("sample"):
            prompts = self.cursor.take(math.ceil(wanted * more), skip=partial(self._skips, into=skipped))
        return self._ask(prompts, occasion, len(skipped))

    def _ask(self, prompts: list[Prompt], occasion: str, skipped: int) -> Round:
        """Hands these prompts to the engine."""
        per_prompt, sampling = self.config.samples_per_prompt, self.config.rollout.sampling
        if per_prompt:
            self.sync()
        with self.phases.phase("sample"):
            enough = self.config.trainer.prompts_per_step if self.config.rollout.oversampling > 1 else None
            started = self.sampler.begin(prompts, per_prompt, sampling, f"train|{occasion}", enough)
            return Round(started, occasion, skipped)

    def _finish(self, round_: Round, store: list[Sample]) -> tuple[list[Group[Facts]], dict[str, float]]:
        """Graded groups of the round, with their graded golden answers if they are wanted."""
        with self.phases.phase("sample"):
            fragments, left = self.sampler.finish(round_.started)
            self.cursor.give_back(left)
        if self.config.algorithm.needs_golden:
            self.sampler.add_golden(fragments, self.config.rollout.sampling.max_response_tokens)
        with self.phases.phase("grade"):
            groups, counts = self.sampler.grade(fragments, store)
        return groups, counts | {"skipped": float(round_.skipped), "given_back": float(len(left))}

    def _skips(self, prompt: Prompt, epoch: int, into: list[Prompt]) -> bool:
        last = self.history.get(prompt.id)
        is_skipped = self.config.algorithm.filter.skips(last) or self.config.data.curriculum.skips(last, epoch)
        if is_skipped:
            into.append(prompt)
        return is_skipped


def _add(totals: dict[str, float], values: dict[str, float]) -> None:
    for name, value in values.items():
        totals[name] = totals.get(name, 0.0) + value


def _sums(groups: list[Group[Facts]]) -> dict[str, float]:
    """Sums over the sampled responses, before any golden answer joins."""
    samples = [s for g in groups for s in g.samples]
    return {
        "groups": float(len(groups)),
        "samples": float(len(samples)),
        "reward": sum(s.reward for s in samples),
        "accurate": float(sum(s.is_accurate for s in samples)),
        "tokens": float(sum(s.tokens for s in samples)),
        "truncated": float(sum(s.truncated for s in samples)),
    }


def _shares(groups: list[Group[Facts]]) -> dict[str, float]:
    """How many of the groups are all wrong, and all right (SHARES)."""
    accuracies = [group.accuracy for group in groups if group.samples]
    return dict(zip(SHARES, (float(accuracies.count(0)), float(accuracies.count(1))), strict=True))


def _means(totals: dict[str, float], selection: dict[str, float], rounds: int) -> dict[str, float]:
    """The sums of all rounds as the metrics that are logged (docs/metrics.md); `selection` is the algorithm's."""
    samples, groups = max(totals["samples"], 1.0), totals["groups"]
    return {
        "reward/mean": totals["reward"] / samples,
        "reward/accuracy": totals["accurate"] / samples,
        "rollout/tokens": totals["tokens"],
        "rollout/response_tokens_mean": totals["tokens"] / samples,
        "rollout/truncated_fraction": totals["truncated"] / samples,
        "rollout/rounds": float(rounds),
        **{f"groups/{name}_fraction": selection[name] / groups for name in SHARES},
        "groups/skipped": totals["skipped"],
        "rollout/prompts_given_back": totals["given_back"],
        **{f"groups/{name}": count for name, count in selection.items() if name not in SHARES},
        **{name: value for name, value in totals.items() if name.startswith("grading/")},
    }


def staleness(groups: list[Group[Facts]], version: int) -> dict[str, float]:
    """How many updates the weights of the sampled responses' first tokens are behind `version`."""
    behind = [version - s.weight_version for g in groups for s in g.samples if not s.is_golden] or [0]
    return {"rollout/updates_behind_mean": sum(behind) / len(behind), "rollout/updates_behind_max": float(max(behind))}
