"""Everything that can be checked before anything is built: the plan of a run.

Reads files, starts nothing. Every mistake of the user's ends here, as a UserError of one line.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from gcpo_mcore.actor.adapter_check import check_adapter
from gcpo_mcore.actor.backend import choose_backend
from gcpo_mcore.actor.layout import Layout, check_layout
from gcpo_mcore.base.config import hidden
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.files import check_writable
from gcpo_mcore.data.dataset import Loaded, load_eval, load_train
from gcpo_mcore.data.sound import said
from gcpo_mcore.hf.architecture import Architecture, read_architecture
from gcpo_mcore.hf.hub import local_folder
from gcpo_mcore.hf.special_tokens import EndTokens, end_tokens
from gcpo_mcore.run.config import RunConfig
from gcpo_mcore.run.folder import RunFolder

if TYPE_CHECKING:  # slow to import, and a mistake in the command line is told without it
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Plan:
    """A checked run. `resolved` is its plain form; `checkpoint_step` that of the checkpoint from
    which it goes on, 0 for a fresh start, and `inputs` are digests of what it reads; both come with
    gcpo_mcore/run/start.py."""

    config: RunConfig
    resolved: dict[str, Any]
    arch: Architecture
    layout: Layout
    tokenizer: "PreTrainedTokenizerBase"
    ends: EndTokens
    train: dict[str, Loaded]
    eval: dict[str, Loaded]
    folder: RunFolder
    checkpoint_step: int = 0
    inputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def written(self) -> dict[str, Any]:
        """`resolved` as the run folder has it: without secrets."""
        return hidden(self.resolved, set(self.config.secret_keys()))

    def sizes(self) -> dict[str, object]:
        """The derived sizes, for the table at the start."""
        c, t, p = self.config, self.config.trainer, self.layout
        rows = t.prompts_per_step * max(c.samples_per_prompt, 1)
        rows_per_update = rows // t.updates_per_step
        per_rank = -(-rows_per_update // self.layout.data)
        longest_golden = c.rollout.sampling.max_response_tokens
        return {
            "run folder": str(self.folder.path),
            "algorithm": c.algorithm.title,
            **{
                f"training stage {name}": f"{stage.algorithm.title}, at most {stage.steps} steps"
                for name, stage in c.stages.items()
            },
            "model": f"{self.arch.family}, {self.arch.layers} layers, {c.model.path}",
            "parameters": self.arch.parameters,
            **({"trained": f"{c.model.lora.title(self.arch)}"} if c.model.lora else {}),
            "tokens that end a response": str(self.ends),
            "processes": f"{p.world} = data {p.data} x tensor {p.tensor} x pipeline {p.pipeline} x context {p.context}",
            **{
                f"train prompts, {name}": f"{len(s.prompts):,} ({s.with_golden:,} with a golden answer"
                + (f", {too_long:,} of them too long to use" if (too_long := s.golden_over(longest_golden)) else "")
                + (f", {s.dropped:,} overlong left out)" if s.dropped else ")")
                for name, s in self.train.items()
            },
            **{f"eval prompts, {name}": len(s.prompts) for name, s in self.eval.items()},
            "responses sampled per step": t.prompts_per_step * c.samples_per_prompt,
            "rows per update": rows_per_update,
            "updates per step": t.updates_per_step,
            **(
                {"tokens per packed micro-batch": f"{t.tokens_per_microbatch:,}"}
                if t.tokens_per_microbatch
                else {"micro-batches per update and data rank": -(-per_rank // t.sequences_per_microbatch)}
            ),
            "longest sequence, tokens": c.data.max_prompt_tokens + c.rollout.sampling.max_response_tokens,
            **({"correction for older weights": mismatch} if (mismatch := c.algorithm.mismatch.name) != "off" else {}),
            "steps": f"{self.checkpoint_step} done, {t.steps} in all",
        }


def make_plan(config: RunConfig) -> Plan:
    """Checks `config` against files, model and layout, and that the run folder can be written."""
    resolved = config.plain()  # as it was given: a model's name and not where this machine keeps it
    config = _with_local_model(config)
    arch = read_architecture(config.model.path)
    layout = check_layout(config.parallel, arch)
    choose_backend(config.actor.backend, arch, has_adapter=config.model.lora is not None)
    if config.model.lora:
        check_adapter(config.model.lora, arch, layout.tensor)
    longest = config.data.max_prompt_tokens + max(
        config.rollout.sampling.max_response_tokens, config.evaluation.sampling.max_response_tokens
    )
    if longest > arch.max_positions:
        raise UserError(
            f"data.max_prompt_tokens + max_response_tokens = {longest} "
            f"is more than the model's {arch.max_positions} positions"
        )
    trained = config.data.max_prompt_tokens + config.rollout.sampling.max_response_tokens
    if config.trainer.tokens_per_microbatch and config.trainer.tokens_per_microbatch < trained:
        raise UserError(
            f"trainer.tokens_per_microbatch={config.trainer.tokens_per_microbatch} is less than the longest sequence, "
            f"data.max_prompt_tokens + rollout.sampling.max_response_tokens = {trained}"
        )
    tokenizer = load_tokenizer(config.model.path, arch)
    ends = end_tokens(config.model.path, tokenizer, arch.vocabulary, config.rollout.stop_token_ids)
    train = load_train(config.data, tokenizer, arch.vocabulary, ends.ids)
    parts = (part for each in config.algorithms for part in (each.golden, each.guide))
    needing = next((f"{part.kind}={part.name}" for part in parts if part.needs_golden), None)
    if needing and not any(s.with_golden for s in train.values()):
        paths = ", ".join(s.path for s in train.values())
        raise UserError(
            f"algorithm.{needing} needs golden answers; no row of {paths} "
            f"has one (data.keys.golden_answer={config.data.keys.golden_answer})"
        )
    folder = RunFolder(os.path.join(config.run.folder, config.run.name))
    for place in (folder.path, folder.checkpoints, folder.path / "logs"):
        check_writable(place)
    return Plan(
        config=config,
        resolved=resolved,
        arch=arch,
        layout=layout,
        tokenizer=tokenizer,
        ends=ends,
        train=train,
        eval=load_eval(config.data, tokenizer, arch.vocabulary, ends.ids),
        folder=folder,
    )


def _with_local_model(config: RunConfig) -> RunConfig:
    model = config.model.model_copy(update={"path": local_folder(config.model.path)})
    return config.model_copy(update={"model": model})


class ModelText(NamedTuple):
    """What of a model's folder says how text becomes token ids and back."""

    arch: Architecture
    tokenizer: "PreTrainedTokenizerBase"
    ends: EndTokens


def load_text(folder: str, stop_token_ids: Sequence[int]) -> ModelText:
    """That of a Hugging Face folder, with the run's own `stop_token_ids`. UserError for what does not fit together."""
    arch = read_architecture(folder)
    tokenizer = load_tokenizer(folder, arch)
    return ModelText(arch, tokenizer, end_tokens(folder, tokenizer, arch.vocabulary, stop_token_ids))


def load_tokenizer(folder: str, arch: Architecture) -> "PreTrainedTokenizerBase":
    """The tokenizer of a Hugging Face folder. UserError if there is none or it is another model's.

    It may have added tokens that the model has no row for: a text that has one is refused where it is read.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # none there, files that contradict each other, Python from elsewhere
        raise UserError(f"model.path: no tokenizer in {folder} ({said(error)})") from None
    if tokenizer.vocab_size > arch.vocabulary:
        raise UserError(f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model only {arch.vocabulary}")
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id >= arch.vocabulary:
        raise UserError(
            f"{folder}: the tokenizer's end token {tokenizer.eos_token} is {tokenizer.eos_token_id}, "
            f"the model has only {arch.vocabulary} tokens"
        )
    return tokenizer
