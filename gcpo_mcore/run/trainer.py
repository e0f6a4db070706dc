"""The loop: sync -> sample -> grade -> select -> score -> weigh -> update -> log.

It never asks which algorithm or engine runs. Every rank runs it in step; rank 0 writes.
"""

import logging
import time
from collections.abc import Sequence
from functools import partial

import torch
import torch.distributed as dist

from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.actor.optimizer import UpdatesSkipped
from gcpo_mcore.actor.reference import Reference
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.stop import Stop
from gcpo_mcore.batch import Batch, WeighedBatch
from gcpo_mcore.data.drawing import mixture
from gcpo_mcore.evaluation.held_out import evaluate
from gcpo_mcore.monitor.ledger import Ledger
from gcpo_mcore.monitor.watchdog import Phases
from gcpo_mcore.objective.reach import ReachGate
from gcpo_mcore.rewarding.references import warn_of_doubtful
from gcpo_mcore.rollout.engine import Engine
from gcpo_mcore.rollout.sampler import Sampler
from gcpo_mcore.run.collector import Collected, Collector, staleness
from gcpo_mcore.run.cost import cost
from gcpo_mcore.run.dealing import Dealer
from gcpo_mcore.run.debugging import Debugging
from gcpo_mcore.run.golden_check import count_golden, measure_reach
from gcpo_mcore.run.old_logprobs import golden_logprobs, needs_pass, old_logprobs
from gcpo_mcore.run.plan import Plan
from gcpo_mcore.run.report import Report
from gcpo_mcore.run.restoring import restore
from gcpo_mcore.run.saver import Saver
from gcpo_mcore.run.stages import Stages
from gcpo_mcore.run.step_ends import StepEnds
from gcpo_mcore.samples import Facts, Group

log = logging.getLogger(__name__)


class Trainer:
    """One run on this rank, from its plan and the built actor, engine and sampler (gcpo_mcore/run/setup.py)."""

    def __init__(
        self,
        plan: Plan,
        actor: Actor,
        engine: Engine,
        sampler: Sampler,
        reference: Reference | None,
        report: Report,
    ):
        self.plan = plan
        self.actor, self.engine, self.sampler, self.reference = actor, engine, sampler, reference
        self.report = report
        self.is_writer = dist.get_rank() == 0
        self.memory = Ledger()
        self.phases = Phases(dist.get_rank(), plan.config.monitor.phase_deadline_s, self.memory)
        self.saver = Saver(plan, actor, self.phases)
        self.debugging = Debugging(plan.config.debug, plan.folder.path)
        self.stages = Stages(plan.config, self.is_writer)
        self.enter_stage()
        self.dealer = Dealer(plan.layout, dist.get_rank(), actor.peers, plan.arch)
        self.step, self.stopped_by = 0, ""

    def enter_stage(self) -> None:
        """Goes on with algorithm, learning rate and prompts of the present training stage: its own, from the first."""
        self.config = self.stages.config
        self.algorithm, self.report.config = self.config.algorithm, self.config
        self.actor.optimizer_config = self.config.optimizer
        self.reach_gate = ReachGate(self.algorithm.golden)
        prompts = {name: loaded.prompts for name, loaded in self.plan.train.items()}
        cursor = mixture(prompts, self.config.data, self.config.seed, self.stages.only_golden_rows)
        looks_ahead = self.stages.is_last  # before, the next step may be another stage's
        self.collector = Collector(self.config, cursor, self.sampler, self.phases, self.sync, looks_ahead)

    def run(self, stop: Stop) -> dict[str, float]:
        """Trains to the configured step, or to the end of that in which `stop` asks for it on some rank (`stopped_by`
        then says so); returns the last evaluation's metrics."""
        trainer, evaluation = self.config.trainer, self.config.evaluation
        if self.plan.checkpoint_step:
            self.restore(self.plan.checkpoint_step)
            self.saver.resume_exports()
        if self.is_writer:
            warn_of_doubtful(self.config.reward, {n: loaded.prompts for n, loaded in self.plan.train.items()})
        self.report.start(self.step, self.check_golden())
        if self.step == 0 and evaluation.at_start:
            self.report.write(0, self.evaluate())
        result: dict[str, float] = {}
        is_stop, ends = False, StepEnds(trainer, stop)
        stop.wait_for_step_ends()
        while self.step < ends.end and not is_stop:
            started = time.monotonic()
            self.step += 1
            try:
                with self.debugging.profiled(self.step, self.phases):
                    metrics, collected, batch = self.train_step()
            except UpdatesSkipped as error:
                raise UserError(f"{error}; {self.saver.usable()}") from error
            self.debugging.note(self.step, metrics, self.actor)
            is_last = self.step == trainer.steps
            if evaluation.every_steps and (is_last or self.step % evaluation.every_steps == 0):
                result = self.evaluate()
            metrics |= self.stages.metrics() | self.memory.drain() | result
            seconds, wall_s = self.phases.drain(), time.monotonic() - started
            self.report.step(self.step, metrics, collected, batch, seconds, wall_s)
            if self.stages.end(self.step, metrics):
                self.enter_stage()
            self.saver.keeps_all = self.actor.stepper.skipped_in_a_row > 0
            self.saver.poll()
            is_stop, is_due = ends.agree(self.step)
            if is_due:
                self.save(is_stop)
            result = result if is_last else {}
        self.stopped_by = ends.stopped_by
        self.report.close()
        self.saver.close(is_stopped=bool(self.stopped_by))
        if self.stopped_by:
            log.debug("%s: stopped at step %d, with a checkpoint", self.stopped_by, self.step)
            stop.done()
        return result

    def check_golden(self) -> dict[str, object]:
        """What of the golden answers can be used, and what sampling reaches, for the table of sizes; {} if none are."""
        if not any(algorithm.needs_golden for algorithm in self.plan.config.algorithms):
            return {}
        longest, rows = self.config.rollout.sampling.max_response_tokens, self.config.data.golden_checked_rows
        with self.phases.phase("check"):
            counts = count_golden(self.plan.train, self.sampler.grader, longest, rows)
            self.engine.rest()  # servers that share the device have it until now
            self.actor.onload()
            bound, deal = self.plan.config.algorithm.golden.reach_bound, partial(self.dealer.deal, updates=1)
            reach = measure_reach(self.plan.train, self.actor.score, deal, longest, bound, rows)
            self.actor.offload()
        said: dict[str, object] = {f"golden answers, {name}": count for name, count in counts.items()}
        return said | {f"golden answers in reach, {name}": found for name, found in reach.items()}

    def train_step(self) -> tuple[dict[str, float], Collected, WeighedBatch | None]:
        """One rollout batch and its updates. Returns metrics, what was collected and this rank's rows of it."""
        collected = self.collector.collect(self.step)
        self.debugging.dump(self.step, collected)
        self.engine.rest()
        metrics = collected.metrics | self.engine.metrics() | staleness(collected.groups, self.actor.version)
        if not collected.groups:
            return metrics | {"update/count": 0.0} | cost(self.config, collected, None), collected, None
        updates, algorithm = self.config.trainer.updates_per_step, self.algorithm
        with self.phases.phase("deal"):
            batch = self.dealer.deal(collected.groups, collected.store, updates)
        with self.phases.phase("score"):
            self.actor.onload()  # the engine has had its turn
            old_logp = old_logprobs(self.config, self.actor, batch)
            batch, admitted = self.admit(batch, collected.groups, old_logp)
            ref_logp = self.reference.score(batch) if self.reference and algorithm.needs_reference else None
        weighed, measured = algorithm.weigh(batch.scored(old_logp, ref_logp))
        metrics |= measured | admitted
        with self.phases.phase("update"):
            each, own_logp, first_row = weighed.split(updates), [], 0
            for number, rows in enumerate(each):
                done, total = self.stages.updates_done(self.step, number)
                is_moved = number > 0 and algorithm.surrogate.compares_samples
                logp = self.actor.score(rows) if is_moved else rows.old_logp
                update, measured = algorithm.begin_update(rows, logp, done / total)
                loss = self.report.token_values.watched(algorithm.loss, first_row)
                trained, logp = self.actor.update(update, loss, done, total)
                first_row += len(rows.table)
                metrics |= measured | trained
                own_logp.append(logp)
        # Without a pass before the updates, the first one's log-probs are those of the weights that sampled.
        scored = weighed if needs_pass(self.config) else algorithm.settle(each[0], own_logp[0])
        metrics |= algorithm.measure(scored) | cost(self.config, collected, batch.table)
        return metrics | {"update/count": float(len(each))}, collected, weighed

    def admit(
        self, batch: Batch, groups: Sequence[Group[Facts]], old_logp: torch.Tensor | None
    ) -> tuple[Batch, dict[str, float]]:
        """`batch` with the golden answers that are to be imitated now, if that depends on their log-probs; metrics."""
        if not self.algorithm.golden.measures_reach:
            return batch, {}
        logp = golden_logprobs(self.actor, batch) if old_logp is None else old_logp
        return self.reach_gate.admit(batch, logp, [group.prompt.id for group in groups])

    def sync(self) -> None:
        """Hands the actor's weights to the engine, unless it has them."""
        if self.engine.version != self.actor.version:
            with self.phases.phase("sync"):
                self.actor.offload(keeps_weights=True)  # room for the engine's
                self.engine.update_weights(self.actor)
        self.actor.offload()  # what follows is the engine's turn

    def evaluate(self) -> dict[str, float]:
        """Accuracy of the present weights on every held-out source."""
        self.sync()
        with self.phases.phase("evaluate"):
            return evaluate(self.sampler, self.plan.eval, self.config.evaluation)

    def save(self, is_stop: bool) -> None:
        """Takes a checkpoint of this step, if it is worth keeping.

        It is not while updates are being left out: from there a run may never come back. At a stop their weights are
        taken all the same, for they are those from before, but never weights that are not finite: UserError then.
        """
        self.engine.rest()  # an evaluation may have been the last to use it
        skipped = self.actor.stepper.skipped_in_a_row
        with self.phases.phase("checkpoint"):
            is_finite = self.actor.is_finite()
        if not is_finite:
            problem = "the weights are not finite"
        elif skipped and not is_stop:
            problem = f"the last {skipped} updates were left out, for their gradients were not finite"
        else:
            state = {"step": self.step, "version": self.actor.version, "skipped_updates": skipped}
            state |= {"inputs": dict(self.plan.inputs), "stage": self.stages.state()}
            state |= {"imitated_prompts": self.reach_gate.state()}
            with self.phases.phase("checkpoint"):
                sampled = self.collector.sampled()
            self.saver.save(self.step, state | self.collector.state(), sampled)
            return
        words = f"phase checkpoint: none is taken of step {self.step}: {problem}; {self.saver.usable()}"
        if is_stop:
            raise UserError(words)
        if self.is_writer:
            log.warning(words)

    def restore(self, step: int) -> None:
        """Goes on from the checkpoint of `step`, or an older one if that is damaged."""
        with self.phases.phase("restore"):
            state, sampled = restore(self.actor, self.plan.folder, step)
            self.step, self.actor.version = state["step"], state["version"]
            self.actor.stepper.skipped_in_a_row = state.get("skipped_updates", 0)  # older ones have none
            self.stages.restore(state.get("stage"))  # older ones have none
            self.enter_stage()
            self.reach_gate.restore(state.get("imitated_prompts", []))
            self.collector.restore(state, sampled)
