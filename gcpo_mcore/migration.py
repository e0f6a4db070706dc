"""Other frameworks' configurations as command lines of ours: `from_verl` reads verl's (docs/coming_from.md).

The keys and what they mean are those of verl's own `verl/trainer/config` (`ppo_trainer.yaml` and
`ppo_megatron_trainer.yaml`), read in November 2026. What has no counterpart is told, never dropped.
"""

import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gcpo_mcore.base.errors import UserError

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
MEGATRON = f"{ACTOR}.megatron"
Settings = dict[str, str]  # our key -> what is typed behind '='

ESTIMATORS = {
    "grpo": "grpo", "rloo": "rloo",
    "reinforce_plus_plus": "reinforce_pp", "reinforce_plus_plus_baseline": "reinforce_pp_baseline",
}  # fmt: skip
LOSSES = {"vanilla": None, "gspo": "gspo", "geo_mean": "gmpo", "cispo": "cispo", "sapo": "sapo"}
WITHOUT_RANGE = ("rloo", "cispo", "gmpo", "sapo")  # presets whose ratio has no clip_low and clip_high
REDUCTIONS = {
    "token-mean": "token_mean", "seq-mean-token-mean": "sequence_mean", "seq-mean-token-sum": "sequence_sum",
    "seq-mean-token-sum-norm": "constant",
}  # fmt: skip
PENALTIES = {"low_var_kl": "k3", "k3": "k3", "mse": "k2", "k2": "k2"}
CORRECTIONS = {"token": "tis", "sequence": "tis_sequence"}
TRACKERS = ("tensorboard", "wandb", "mlflow", "swanlab", "trackio")


class NoCounterpart(Exception):
    """Why a key has none."""


def _same(key: str) -> Callable[[Any], Settings]:
    return lambda value: {key: _typed(value)}


def _one_of(words: Mapping[str, str], key: str) -> Callable[[Any], Settings]:
    def look(value: Any) -> Settings:
        if str(value) not in words:
            raise NoCounterpart(f"{key} has none of that name")
        return {key: words[str(value)]}

    return look


def _never_below_zero(key: str) -> Callable[[Any], Settings]:
    """Of a number where verl says -1 for 'off' and we say 0."""
    return lambda value: {key: str(max(int(value), 0))}


def _one_file(key: str) -> Callable[[Any], Settings]:
    def look(value: Any) -> Settings:
        files = [value] if isinstance(value, str) else list(value)
        if len(files) != 1:
            raise NoCounterpart(
                f"several files: a source of its own for each, +{key.rpartition('.')[0]}_2={{path: ...}}"
            )
        return {key: _typed(files[0])}

    return look


def _no(reason: str) -> Callable[[Any], Settings]:
    def refuse(value: Any) -> Settings:
        raise NoCounterpart(reason)

    return refuse


def _engine(name: Any) -> Settings:
    if name != "sglang":
        raise NoCounterpart("rollout=sglang is taken: the only servers that we have")
    return {}  # taken in any case


def _trackers(names: Any) -> Settings:
    wanted = [names] if isinstance(names, str) else list(names)
    if unknown := [name for name in wanted if name not in (*TRACKERS, "console")]:
        raise NoCounterpart(f"no tracker {', '.join(unknown)}; there are {', '.join(TRACKERS)}")
    return {"monitor.trackers": f"[{','.join(name for name in wanted if name != 'console')}]"}


def _if(words: Mapping[Any, Settings]) -> Callable[[Any], Settings]:
    def look(value: Any) -> Settings:
        if value not in words:
            raise NoCounterpart(f"known are {', '.join(map(str, words))}")
        return words[value]

    return look


# A key alone -> our settings. What takes several keys to say is in `_together`.
KEYS: dict[str, Callable[[Any], Settings]] = {
    "data.train_files": _one_file("data.train.train.path"),
    "data.val_files": _one_file("data.eval.test.path"),
    "data.train_max_samples": lambda n: {} if int(n) < 0 else {"+data.train.train.max_rows": str(n)},
    "data.val_max_samples": lambda n: {} if int(n) < 0 else {"data.eval.test.max_rows": str(n)},
    "data.train_batch_size": _same("trainer.prompts_per_step"),
    "data.max_prompt_length": _same("data.max_prompt_tokens"),
    "data.max_response_length": lambda n: {
        "rollout.sampling.max_response_tokens": str(n),
        "evaluation.sampling.max_response_tokens": str(n),
    },
    "data.prompt_key": _same("data.keys.prompt"),
    "data.filter_overlong_prompts": _if({True: {"data.overlong_prompts": "drop"}, False: {}}),
    "data.truncation": _if({"error": {}}),
    "data.apply_chat_template_kwargs": lambda known: {"+data.chat_template_kwargs": _typed(known)} if known else {},
    "data.seed": _same("seed"),
    "data.shuffle": _if({True: {}}),
    "data.reward_fn_key": _no("one reward for all sources: reward=..."),
    "actor_rollout_ref.model.path": _same("model.path"),
    f"{ROLLOUT}.name": _engine,
    f"{ROLLOUT}.n": _same("trainer.samples_per_prompt"),
    f"{ROLLOUT}.temperature": _same("rollout.sampling.temperature"),
    f"{ROLLOUT}.top_p": _same("rollout.sampling.top_p"),
    f"{ROLLOUT}.top_k": _never_below_zero("rollout.sampling.top_k"),
    f"{ROLLOUT}.do_sample": _if({True: {}}),
    f"{ROLLOUT}.tensor_model_parallel_size": _same("rollout.tensor_parallel"),
    f"{ROLLOUT}.max_num_seqs": _same("rollout.requests_per_server"),
    f"{ROLLOUT}.update_weights_bucket_megabytes": _same("rollout.bucket_mib"),
    f"{ROLLOUT}.free_cache_engine": _same("rollout.memory_saver"),
    f"{ROLLOUT}.gpu_memory_utilization": _no("counted by the run itself (tools/doctor.py plan)"),
    f"{ROLLOUT}.val_kwargs.temperature": _same("evaluation.sampling.temperature"),
    f"{ROLLOUT}.val_kwargs.top_p": _same("evaluation.sampling.top_p"),
    f"{ROLLOUT}.val_kwargs.top_k": _never_below_zero("evaluation.sampling.top_k"),
    f"{ROLLOUT}.val_kwargs.n": _same("evaluation.samples_per_prompt"),
    f"{ACTOR}.ppo_micro_batch_size_per_gpu": _same("trainer.sequences_per_microbatch"),
    f"{ACTOR}.ppo_epochs": _if({1: {}}),  # a batch is trained on once, in trainer.updates_per_step parts
    f"{ACTOR}.clip_ratio_c": _no("algorithm.surrogate.dual_clip, null with us: set it if you want it"),
    f"{ACTOR}.loss_agg_mode": _one_of(REDUCTIONS, "algorithm/reduction"),
    f"{ACTOR}.entropy_coeff": _same("algorithm.entropy_coefficient"),
    f"{ACTOR}.optim.lr": _same("optimizer.lr"),
    f"{ACTOR}.optim.weight_decay": _same("optimizer.weight_decay"),
    f"{ACTOR}.optim.clip_grad": _same("optimizer.clip_grad_norm"),
    f"{ACTOR}.grad_clip": _same("optimizer.clip_grad_norm"),
    f"{ACTOR}.optim.lr_warmup_steps": _never_below_zero("optimizer.warmup_updates"),
    f"{ACTOR}.optim.lr_decay_style": _if({w: {"optimizer.schedule": w} for w in ("constant", "linear", "cosine")}),
    f"{ACTOR}.optim.betas": lambda pair: {"optimizer.beta1": str(pair[0]), "optimizer.beta2": str(pair[1])},
    f"{MEGATRON}.tensor_model_parallel_size": _same("parallel.tensor"),
    f"{MEGATRON}.pipeline_model_parallel_size": _same("parallel.pipeline"),
    f"{MEGATRON}.virtual_pipeline_model_parallel_size": _same("parallel.virtual_pipeline"),
    f"{MEGATRON}.context_parallel_size": _same("parallel.context"),
    f"{MEGATRON}.expert_model_parallel_size": _same("parallel.expert"),
    f"{MEGATRON}.use_distributed_optimizer": _same("parallel.distributed_optimizer"),
    f"{MEGATRON}.dtype": _same("model.dtype"),
    f"{MEGATRON}.override_transformer_config.recompute_granularity": _same("parallel.recompute"),
    "algorithm.rollout_correction.rollout_is": _one_of(CORRECTIONS, "algorithm/mismatch"),
    "trainer.total_training_steps": _same("trainer.steps"),
    "trainer.total_epochs": _no("trainer.steps: rows of the data / trainer.prompts_per_step, so many times"),
    "trainer.save_freq": _never_below_zero("trainer.checkpoint_every_steps"),
    "trainer.test_freq": _never_below_zero("evaluation.every_steps"),
    "trainer.val_before_train": _same("evaluation.at_start"),
    "trainer.experiment_name": _same("run.name"),
    "trainer.project_name": _same("monitor.tracker_project"),
    "trainer.default_local_dir": _same("run.folder"),
    "trainer.max_actor_ckpt_to_keep": _same("trainer.keep_checkpoints"),
    "trainer.logger": _trackers,
    "trainer.resume_mode": _if({"auto": {"run.resume": "auto"}, "disable": {"run.resume": "never"}}),
    "custom_reward_function.path": _no("a reward is a small class or function: docs/rewards.md"),
}  # fmt: skip


@dataclass
class Translated:
    """A configuration in our words: processes of a node, nodes, settings; (key, value, why) of what has none."""

    processes: int = 1
    nodes: int = 1
    settings: Settings = field(default_factory=dict)
    left: list[tuple[str, Any, str]] = field(default_factory=list)

    @property
    def overrides(self) -> list[str]:
        """Our settings as words of a command line, choices of groups first."""
        groups = [key for key in self.settings if "/" in key or key in ("algorithm", "data", "reward", "rollout")]
        groups.sort(key=lambda key: "/" in key)  # an algorithm before its parts
        return [f"{key}={self.settings[key]}" for key in [*groups, *(k for k in self.settings if k not in groups)]]

    def told(self) -> str:
        """The command, then a comment for each key without a counterpart."""
        nodes = f"--nnodes {self.nodes} " if self.nodes > 1 else ""
        first = f"torchrun {nodes}--nproc-per-node {self.processes} tools/train.py"
        lines = [" \\\n    ".join([first, *map(shlex.quote, self.overrides)])]
        if self.left:
            lines += ["", "# without a counterpart:"]
            lines += [f"#   {key}={value}  ({why})" for key, value, why in self.left]
        return "\n".join(lines)


def from_verl(file: Path) -> Translated:
    """Translates a yaml of verl, whole or of a few keys. UserError if it cannot be read or is none."""
    given = dict(_flat(_read(file)))
    made = Translated()
    made.settings |= {"algorithm": "grpo", "data": "files", "rollout": "sglang"}
    for key, reason in _together(given, made).items():
        made.left.append((key, given[key], reason))
    for key, value in given.items():
        if key in TOGETHER or value is None or value == "???":  # null is verl's word for 'not set'
            continue
        try:
            if key not in KEYS:
                raise NoCounterpart("no key of ours")
            made.settings |= KEYS[key](value)
        except NoCounterpart as why:
            made.left.append((key, value, str(why)))
        except (TypeError, ValueError, IndexError):
            made.left.append((key, value, "not a value that we understand"))
    return made


TOGETHER = (
    "algorithm.adv_estimator", "algorithm.norm_adv_by_std_in_grpo", "algorithm.use_kl_in_reward",
    "algorithm.kl_ctrl.kl_coef",
    "algorithm.filter_groups.enable", "algorithm.filter_groups.max_num_gen_batches",
    "algorithm.rollout_correction.rollout_is_threshold",
    f"{ACTOR}.policy_loss.loss_mode", f"{ACTOR}.clip_ratio", f"{ACTOR}.clip_ratio_low", f"{ACTOR}.clip_ratio_high",
    f"{ACTOR}.use_kl_loss", f"{ACTOR}.kl_loss_type", f"{ACTOR}.kl_loss_coef",
    f"{ACTOR}.ppo_mini_batch_size", f"{ACTOR}.use_dynamic_bsz", f"{ACTOR}.ppo_max_token_len_per_gpu",
    f"{MEGATRON}.sequence_parallel", f"{MEGATRON}.param_offload", f"{MEGATRON}.optimizer_offload",
    f"{MEGATRON}.grad_offload",
    "actor_rollout_ref.model.lora_rank", "actor_rollout_ref.model.lora_alpha",
    "trainer.n_gpus_per_node", "trainer.nnodes",
)  # fmt: skip


def _together(given: Mapping[str, Any], made: Translated) -> dict[str, str]:
    """Sets what takes several keys to say; key -> reason of those that could not be said."""
    bad: dict[str, str] = {}
    made.processes, made.nodes = int(given.get("trainer.n_gpus_per_node", 1)), int(given.get("trainer.nnodes", 1))
    _algorithm(given, made.settings, bad)
    _penalty(given, made.settings, bad)
    prompts, mini = given.get("data.train_batch_size"), given.get(f"{ACTOR}.ppo_mini_batch_size")
    if mini is not None and (prompts is None or prompts % mini):
        bad[f"{ACTOR}.ppo_mini_batch_size"] = "trainer.updates_per_step: prompts of a step / those of an update"
    elif mini is not None:
        made.settings["trainer.updates_per_step"] = str(prompts // mini)
    if given.get(f"{ACTOR}.use_dynamic_bsz") and given.get(f"{ACTOR}.ppo_max_token_len_per_gpu"):
        made.settings["trainer.tokens_per_microbatch"] = str(given[f"{ACTOR}.ppo_max_token_len_per_gpu"])
    if given.get(f"{MEGATRON}.sequence_parallel") and given.get(f"{MEGATRON}.tensor_model_parallel_size", 1) > 1:
        made.settings["parallel.sequence"] = "true"  # with one tensor rank it means nothing
    if given.get(f"{MEGATRON}.param_offload"):
        made.settings["actor.offload"] = "all"
    elif given.get(f"{MEGATRON}.optimizer_offload") or given.get(f"{MEGATRON}.grad_offload"):
        made.settings["actor.offload"] = "optimizer"
    if rank := given.get("actor_rollout_ref.model.lora_rank"):
        made.settings |= {"model/adapter": "lora", "model.adapter.rank": str(rank)}
        made.settings["model.adapter.alpha"] = _typed(given.get("actor_rollout_ref.model.lora_alpha", 16))
    return bad


def _algorithm(given: Mapping[str, Any], settings: Settings, bad: dict[str, str]) -> None:
    """Preset, ratio's range, advantage, filter and correction."""
    estimator = given.get("algorithm.adv_estimator", "grpo")
    if estimator in ESTIMATORS:
        settings["algorithm"] = ESTIMATORS[estimator]
    else:
        bad["algorithm.adv_estimator"] = (
            "algorithm=grpo is taken: there is no critic" if estimator == "gae" else "no preset"
        )
    loss = given.get(f"{ACTOR}.policy_loss.loss_mode", "vanilla")
    if loss not in LOSSES:
        bad[f"{ACTOR}.policy_loss.loss_mode"] = "no surrogate of that name"
    elif LOSSES[loss]:
        settings["algorithm"] = str(LOSSES[loss])
    bounds = {f"{ACTOR}.{key}" for key in ("clip_ratio", "clip_ratio_low", "clip_ratio_high")} & given.keys()
    if settings["algorithm"] in WITHOUT_RANGE:
        bad |= dict.fromkeys(sorted(bounds), f"algorithm={settings['algorithm']} bounds the ratio in a way of its own")
    elif bounds:
        both = given.get(f"{ACTOR}.clip_ratio")
        settings["algorithm.importance.clip_low"] = str(given.get(f"{ACTOR}.clip_ratio_low", both))
        settings["algorithm.importance.clip_high"] = str(given.get(f"{ACTOR}.clip_ratio_high", both))
    if given.get("algorithm.norm_adv_by_std_in_grpo") is False:
        settings["algorithm/advantage"] = "group_centred"
    if given.get("algorithm.filter_groups.enable"):
        settings["algorithm/filter"] = "dynamic_sampling"
        if rounds := given.get("algorithm.filter_groups.max_num_gen_batches"):
            settings["algorithm.filter.max_rounds"] = str(rounds)
    cap = given.get("algorithm.rollout_correction.rollout_is_threshold")
    if cap is not None and given.get("algorithm.rollout_correction.rollout_is"):
        settings["algorithm.mismatch.cap"] = str(cap)


def _penalty(given: Mapping[str, Any], settings: Settings, bad: dict[str, str]) -> None:
    """The KL penalty: in the loss, in the reward, or none where the file says so."""
    if given.get(f"{ACTOR}.use_kl_loss"):
        kind = given.get(f"{ACTOR}.kl_loss_type", "low_var_kl")
        if kind not in PENALTIES:
            bad[f"{ACTOR}.kl_loss_type"] = "algorithm/kl=k3 is taken: the gradient of k1 in a loss is zero on average"
        settings["algorithm/kl"] = PENALTIES.get(kind, "k3")
        settings["algorithm.kl.coefficient"] = str(given.get(f"{ACTOR}.kl_loss_coef", 0.001))
    elif given.get("algorithm.use_kl_in_reward"):
        settings["algorithm/kl"] = "k1_reward"
        settings["algorithm.kl.coefficient"] = str(given.get("algorithm.kl_ctrl.kl_coef", 0.001))
    else:  # verl's defaults: neither
        settings["algorithm/kl"] = "off"


def _read(file: Path) -> dict[str, Any]:
    try:
        loaded = OmegaConf.load(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{file}: cannot be read: {' '.join(str(error).split())}") from error
    try:
        found = OmegaConf.to_container(loaded, resolve=True)
    except OmegaConfBaseException:  # it refers to what is in another file
        found = OmegaConf.to_container(loaded, resolve=False)
    if not isinstance(found, dict) or not found.keys() & {"data", "actor_rollout_ref", "algorithm", "trainer"}:
        raise UserError(f"{file}: no configuration of verl (none of data, actor_rollout_ref, algorithm, trainer)")
    return {str(key): value for key, value in found.items()}


def _flat(node: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(key with dots, value) of every leaf; what is a mapping to us too stays whole."""
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name != "data.apply_chat_template_kwargs":
            yield from _flat(value, f"{name}.")
        elif key != "_target_":  # verl's own class for the section
            yield name, value


def _typed(value: Any) -> str:
    """A value as Hydra reads it from a command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_typed(one)}" for key, one in value.items()) + "}"
    text = str(value)
    return f'"{text}"' if isinstance(value, str) and set(text) & set(" ,:=?&{}[]()'") else text
