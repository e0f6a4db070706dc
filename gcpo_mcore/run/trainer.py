"""The loop: sync -> sample -> grade -> select -> score -> weigh -> update -> log.

It never asks which algorithm or engine runs. Every rank runs it in step; rank 0 writes.
"""

import logging
import time

import torch.distributed as dist

from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.actor.optimizer import UpdatesSkipped
from gcpo_mcore.actor.reference import Reference
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.batch import WeighedBatch
from gcpo_mcore.data.curriculum import kept_order
from gcpo_mcore.data.cursor import Mixture
from gcpo_mcore.evaluation.held_out import evaluate
from gcpo_mcore.monitor.ledger import Ledger
from gcpo_mcore.monitor.watchdog import Phases
from gcpo_mcore.rewarding.references import warn_of_doubtful
from gcpo_mcore.rollout.engine import Engine
from gcpo_mcore.rollout.sampler import Sampler
from gcpo_mcore.run.collector import Collected, Collector, staleness
from gcpo_mcore.run.dealing import Dealer
from gcpo_mcore.run.debugging import Debugging
from gcpo_mcore.run.golden_check import GoldenCount, count_golden
from gcpo_mcore.run.old_logprobs import needs_pass, old_logprobs
from gcpo_mcore.run.plan import Plan
from gcpo_mcore.run.report import Report
from gcpo_mcore.run.restoring import restore
from gcpo_mcore.run.saver import Saver

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
        self.plan, self.config, self.algorithm = plan, plan.config, plan.config.algorithm
        self.actor, self.engine, self.sampler, self.reference = actor, engine, sampler, reference
        self.report = report
        self.is_writer = dist.get_rank() == 0
        self.memory = Ledger()
        self.phases = Phases(dist.get_rank(), plan.config.monitor.phase_deadline_s, self.memory)
        self.saver = Saver(plan, actor, self.phases)
        self.debugging = Debugging(plan.config.debug, plan.folder.path)
        cursor = Mixture(
            {name: loaded.prompts for name, loaded in plan.train.items()},
            {name: plan.config.data.train[name].weight for name in plan.train},
            plan.config.seed,
            kept_order(plan.config.data.curriculum),
        )
        self.collector = Collector(plan.config, cursor, sampler, self.phases, self.sync)
        self.dealer = Dealer(plan.layout, dist.get_rank(), actor.peers, plan.arch)
        self.step = 0

    def run(self) -> dict[str, float]:
        """Trains to the configured step; returns the last evaluation's metrics."""
        trainer, evaluation = self.config.trainer, self.config.evaluation
        end = min(trainer.steps, trainer.stop_at_step or trainer.steps)
        if self.plan.checkpoint_step:
            self.restore(self.plan.checkpoint_step)
        if self.is_writer:
            warn_of_doubtful(self.config.reward, {n: loaded.prompts for n, loaded in self.plan.train.items()})
        self.report.start(self.step, self.golden_counts())
        if self.step == 0 and evaluation.at_start:
            self.report.write(0, self.evaluate())
        result: dict[str, float] = {}
        while self.step < end:
            started = time.monotonic()
            self.step += 1
            try:
                with self.debugging.profiled(self.step, self.phases):
                    metrics, collected, batch = self.train_step()
            except UpdatesSkipped as error:
                raise UserError(f"{error}; {self.saver.usable()}") from error
            self.debugging.note(self.step, metrics, self.actor)
            is_last, is_stop = self.step == trainer.steps, self.step == end
            if evaluation.every_steps and (is_last or self.step % evaluation.every_steps == 0):
                result = self.evaluate()
            metrics |= self.memory.drain() | result
            seconds, wall_s = self.phases.drain(), time.monotonic() - started
            self.report.step(self.step, metrics, collected, batch, seconds, wall_s)
            self.saver.keeps_all = self.actor.stepper.skipped_in_a_row > 0
            self.saver.poll()
            if is_stop or (trainer.checkpoint_every_steps and self.step % trainer.checkpoint_every_steps == 0):
                self.save(is_stop)
            result = result if is_last else {}
        self.report.close()
        self.saver.close()
        return result

    def golden_counts(self) -> dict[str, GoldenCount]:
        """What of the golden answers can be used, by source; empty if the algorithm uses none."""
        if not self.algorithm.golden.needs_golden:
            return {}
        longest = self.config.rollout.sampling.max_response_tokens
        with self.phases.phase("check"):
            return count_golden(self.plan.train, self.sampler.grader, longest, self.config.data.golden_checked_rows)

    def train_step(self) -> tuple[dict[str, float], Collected, WeighedBatch | None]:
        """One rollout batch and its updates. Returns metrics, what was collected and this rank's rows of it."""
        collected = self.collector.collect(self.step)
        self.debugging.dump(self.step, collected)
        self.engine.rest()
        metrics = collected.metrics | self.engine.metrics() | staleness(collected.groups, self.actor.version)
        if not collected.groups:
            return metrics | {"update/count": 0.0}, collected, None
        updates, algorithm = self.config.trainer.updates_per_step, self.algorithm
        with self.phases.phase("deal"):
            batch = self.dealer.deal(collected.groups, collected.store, updates)
        with self.phases.phase("score"):
            self.actor.onload()  # the engine has had its turn
            old_logp = old_logprobs(self.config, self.actor, batch)
            ref_logp = self.reference.score(batch) if self.reference is not None else None
        weighed, measured = algorithm.weigh(batch.scored(old_logp, ref_logp))
        metrics |= measured
        with self.phases.phase("update"):
            each, own_logp, first_row = weighed.split(updates), [], 0
            for number, rows in enumerate(each):
                done, total = (self.step - 1) * updates + number, self.config.trainer.steps * updates
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
        metrics |= algorithm.measure(scored)
        return metrics | {"update/count": float(len(each))}, collected, weighed

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
            state |= {"inputs": dict(self.plan.inputs)}
            self.saver.save(self.step, state | self.collector.state())
            return
        words = f"phase checkpoint: none is taken of step {self.step}: {problem}; {self.saver.usable()}"
        if is_stop:
            raise UserError(words)
        if self.is_writer:
            log.warning(words)

    def restore(self, step: int) -> None:
        """Goes on from the checkpoint of `step`, or an older one if that is damaged."""
        with self.phases.phase("restore"):
            state = restore(self.actor, self.plan.folder, step)
            self.step, self.actor.version = state["step"], state["version"]
            self.actor.stepper.skipped_in_a_row = state.get("skipped_updates", 0)  # older ones have none
            self.collector.restore(state)
