"""Builds what a plan describes: process groups, actor, engine, graders, trainer. And takes it down again."""

import contextlib
import logging
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import torch.distributed as dist
from torch._C._distributed_c10d import HashStore  # torch.distributed's, which its stubs leave out
from torch.distributed import distributed_c10d

from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.actor.model import start_parallel
from gcpo_mcore.actor.reference import Reference
from gcpo_mcore.base import last_words, platform
from gcpo_mcore.base.errors import Stopped, UserError
from gcpo_mcore.base.files import problem_of
from gcpo_mcore.base.registry import engines
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.hf.special_tokens import decoder, end_tokens
from gcpo_mcore.monitor import heartbeat
from gcpo_mcore.monitor.run_log import run_log
from gcpo_mcore.rewarding.grader import Grader
from gcpo_mcore.rollout.engine import Engine, NoEngine
from gcpo_mcore.rollout.sampler import Sampler
from gcpo_mcore.run.config import RunConfig
from gcpo_mcore.run.plan import Plan
from gcpo_mcore.run.report import Report
from gcpo_mcore.run.trainer import Trainer

if TYPE_CHECKING:  # slow to import
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)


@contextlib.contextmanager
def process_group(
    threads: platform.Threads,
    deadline_s: float,
    is_alone: bool = False,
    products: platform.Products = "float32",
) -> Iterator[None]:
    """Starts torch.distributed for this process: as torchrun launched it, or a group of one without torchrun.

    is_alone: a group of one also under torchrun. threads, products: see platform.start.

    A collective that waits longer than `deadline_s` ends the run. UserError if torchrun could not start it again.
    """
    _check_restarts()
    platform.start(threads, products)
    timeout = timedelta(seconds=deadline_s)
    if "RANK" in os.environ and not is_alone:
        dist.init_process_group(platform.backends(), timeout=timeout)
    else:
        dist.init_process_group(platform.backends(), store=HashStore(), rank=0, world_size=1, timeout=timeout)
    heartbeat.begin(_store_client, dist.get_rank(), dist.get_world_size())
    try:
        yield
    except BaseException as error:
        last_words.keep_store(distributed_c10d._get_default_store(), dist.get_rank())
        words = str(error) if isinstance(error, UserError | Stopped) else problem_of(error)
        last_words.announce(words or last_words.LOST)
        platform.abort_groups()  # others may sit in a collective for as long as it is allowed to take
        raise
    heartbeat.end()
    dist.destroy_process_group()


def _store_client() -> heartbeat.Store:
    """A client of the store in which the ranks met, for a thread of its own."""
    return getattr(distributed_c10d._get_default_store(), "clone")()  # noqa: B009 (torch's stubs do not know it)


def _check_restarts() -> None:
    """Refuses restarts with torchrun's own store: it outlives the ranks, and new ones wait for dead ones."""
    restarts = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")
    if restarts != "0" and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise UserError(
            f"torchrun --max-restarts {restarts} needs TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in torchrun's environment: "
            "without it, ranks that are started again hang (docs/launch.md)"
        )


def build_engine(config: RunConfig, model_folder: str, tokenizer: "PreTrainedTokenizerBase") -> Engine:
    """The rollout engine that the config names, for the model in `model_folder`, without weights yet; one that samples
    nothing where a dump is replayed."""
    if config.debug.replay:
        return NoEngine()
    vocabulary = read_architecture(model_folder).vocabulary
    ends = end_tokens(model_folder, tokenizer, vocabulary, config.rollout.stop_token_ids)
    return engines.get(config.rollout.engine)(
        config=config.rollout,
        model_folder=model_folder,
        dtype=config.model.dtype,
        stop_token_ids=ends.ids,
        decode=decoder(tokenizer, ends.ids),
    )


@contextlib.contextmanager
def trainer(plan: Plan) -> Iterator[Trainer]:
    """The whole run on this rank, one of started ranks (gcpo_mcore/run/start.py), built; engine and workers are gone
    afterwards."""
    config = plan.config
    with (
        run_log(plan.folder.path, dist.get_rank()),
        Grader(config.reward) as grader,
    ):
        log.debug("start at step %d of %d, %s", plan.checkpoint_step, config.trainer.steps, plan.layout)
        start_parallel(plan.layout, config.seed)
        share_prompts = config.trainer.share_prompts
        actor = Actor(
            config.model,
            plan.arch,
            config.parallel,
            plan.layout,
            config.optimizer,
            temperature=config.rollout.sampling.temperature,
            sequences_per_microbatch=config.trainer.sequences_per_microbatch,
            tokens_per_microbatch=config.trainer.tokens_per_microbatch,
            settings=config.actor,
            shares_prompts=not platform.HAS_CUDA if share_prompts == "auto" else share_prompts,
        )
        reference = Reference(actor) if any(each.needs_reference for each in config.algorithms) else None
        actor.offload()  # an engine of other processes takes what is free when they start
        dist.barrier()
        with contextlib.closing(build_engine(config, config.model.path, plan.tokenizer)) as engine:
            report = Report(plan, dist.get_rank())
            yield Trainer(plan, actor, engine, Sampler(engine, grader, config.seed), reference, report)
