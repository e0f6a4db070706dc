"""verl's configurations as command lines that our own reader accepts; what has no counterpart is told."""

import pytest

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.migration import KEYS, TOGETHER, from_verl
from gcpo_mcore.run.load import load_config
from tests.launching import run

DAPO = """
data: {train_files: dapo.parquet, val_files: [aime.parquet], train_batch_size: 512, max_prompt_length: 2048,
       max_response_length: 8192, prompt_key: prompt, filter_overlong_prompts: true, truncation: left,
       apply_chat_template_kwargs: {enable_thinking: false}}
algorithm:
  _target_: verl.trainer.config.AlgoConfig
  adv_estimator: grpo
  use_kl_in_reward: false
  filter_groups: {enable: true, max_num_gen_batches: 10, metric: acc}
  rollout_correction: {rollout_is: token, rollout_is_threshold: 3.0}
actor_rollout_ref:
  model: {path: Qwen/Qwen2.5-7B, lora_rank: 0}
  actor:
    ppo_mini_batch_size: 32
    use_dynamic_bsz: true
    ppo_max_token_len_per_gpu: 10240
    clip_ratio_low: 0.2
    clip_ratio_high: 0.28
    loss_agg_mode: token-mean
    use_kl_loss: false
    kl_loss_coef: 0.0
    ppo_epochs: 1
    optim: {lr: 1e-6, lr_warmup_steps: 10, weight_decay: 0.1}
    megatron: {tensor_model_parallel_size: 2, sequence_parallel: true, use_distributed_optimizer: true,
               param_offload: true}
  rollout: {name: vllm, n: 16, temperature: 1.0, top_k: -1, tensor_model_parallel_size: 2, gpu_memory_utilization: 0.8,
            val_kwargs: {temperature: 0.6, top_p: 0.95, n: 32}}
reward_model: {overlong_buffer: {enable: true, len: 4096}}
trainer: {nnodes: 2, n_gpus_per_node: 8, total_training_steps: 200, save_freq: -1, test_freq: 5,
          logger: [console, wandb], experiment_name: "dapo 7b", resume_from_path: null}
"""


@pytest.fixture
def dapo(tmp_path):
    """A file of verl with what its recipe for DAPO sets."""
    file = tmp_path / "dapo.yaml"
    file.write_text(DAPO)
    return file


def test_our_reader_accepts_what_is_made(dapo):
    made = from_verl(dapo)
    config = load_config(made.overrides)
    assert (made.nodes, made.processes) == (2, 8)
    assert (config.trainer.prompts_per_step, config.trainer.samples_per_prompt) == (512, 16)
    assert (config.trainer.updates_per_step, config.trainer.tokens_per_microbatch) == (16, 10240)
    algorithm = config.algorithm
    assert (algorithm.importance.clip_low, algorithm.importance.clip_high) == (0.2, 0.28)
    assert algorithm.reduction.name == "token_mean" and algorithm.kl.name == "off"
    assert (algorithm.filter.max_rounds, algorithm.mismatch.cap) == (10, 3.0)
    assert config.rollout.sampling.max_response_tokens == config.evaluation.sampling.max_response_tokens == 8192
    assert config.rollout.sampling.top_k == 0 and config.evaluation.samples_per_prompt == 32
    assert config.parallel.sequence and config.parallel.distributed_optimizer and config.actor.offload == "all"
    assert config.data.chat_template_kwargs == {"enable_thinking": False}
    assert config.trainer.checkpoint_every_steps == 0 and config.run.name == "dapo 7b"
    assert config.optimizer.lr == 1e-6


def test_what_has_no_counterpart_is_told_and_nothing_else(dapo):
    made = from_verl(dapo)
    assert {key for key, _, _ in made.left} == {
        "data.truncation",
        "algorithm.filter_groups.metric",
        "actor_rollout_ref.rollout.name",
        "actor_rollout_ref.rollout.gpu_memory_utilization",
        "reward_model.overlong_buffer.enable",
        "reward_model.overlong_buffer.len",
    }
    assert "#   data.truncation=left  (known are error)" in made.told()
    assert made.told().startswith("torchrun --nnodes 2 --nproc-per-node 8 tools/train.py \\\n    algorithm=grpo")


@pytest.mark.parametrize("key", ["surprise", "_surprise", "actor_rollout_ref.actor.surprise", "data.train_files.x"])
def test_no_key_is_dropped_in_silence(tmp_path, key):
    tree: dict = {}
    node = tree
    *above, last = ("trainer." + key if "." not in key else key).split(".")
    for name in above:
        node = node.setdefault(name, {})
    node[last] = 7
    file = tmp_path / "one.yaml"
    file.write_text(str(tree))
    left = [name for name, _, _ in from_verl(file).left]
    assert left == [".".join([*above, last])]


@pytest.mark.parametrize(
    "given, wanted",
    [
        ("algorithm: {adv_estimator: rloo}", "algorithm=rloo"),
        ("actor_rollout_ref: {actor: {policy_loss: {loss_mode: gspo}}}", "algorithm=gspo"),
        ("actor_rollout_ref: {actor: {use_kl_loss: true, kl_loss_type: mse}}", "algorithm/kl=k2"),
        ("algorithm: {use_kl_in_reward: true}", "algorithm/kl=k1_reward"),
        ("algorithm: {norm_adv_by_std_in_grpo: false}", "algorithm/advantage=group_centred"),
        ("actor_rollout_ref: {model: {lora_rank: 32}}", "model/adapter=lora"),
        ("trainer: {logger: wandb}", "monitor.trackers=[wandb]"),
        ("actor_rollout_ref: {actor: {megatron: {sequence_parallel: true, optimizer_offload: true}}}",
         "actor.offload=optimizer"),
    ],
)  # fmt: skip
def test_choices(tmp_path, given, wanted):
    file = tmp_path / "one.yaml"
    file.write_text(given)
    made = from_verl(file)
    assert wanted in made.overrides and not made.left
    load_config(made.overrides)


@pytest.mark.parametrize(
    "given, key",
    [
        ("algorithm: {adv_estimator: gae}", "algorithm.adv_estimator"),
        ("data: {train_files: [a, b]}", "data.train_files"),
        ("actor_rollout_ref: {actor: {ppo_epochs: 2}}", "actor_rollout_ref.actor.ppo_epochs"),
        ("data: {train_batch_size: 10}\nactor_rollout_ref: {actor: {ppo_mini_batch_size: 3}}",
         "actor_rollout_ref.actor.ppo_mini_batch_size"),
        ("actor_rollout_ref: {actor: {policy_loss: {loss_mode: cispo}, clip_ratio_high: 5}}",
         "actor_rollout_ref.actor.clip_ratio_high"),
        ("actor_rollout_ref: {actor: {optim: {lr_warmup_steps: many}}}",
         "actor_rollout_ref.actor.optim.lr_warmup_steps"),
    ],
)  # fmt: skip
def test_what_we_do_otherwise_is_told(tmp_path, given, key):
    file = tmp_path / "one.yaml"
    file.write_text(given)
    assert [name for name, _, _ in from_verl(file).left] == [key]


def test_a_key_is_read_in_one_place():
    assert not KEYS.keys() & set(TOGETHER)


def test_the_command_prints_it_and_refuses_what_is_not_verls(dapo, tmp_path):
    assert "algorithm/filter=dynamic_sampling" in run("tools/prepare.py", "from-verl", str(dapo))
    for text in ("a: 1", "[", "- x"):
        other = tmp_path / "other.yaml"
        other.write_text(text)
        with pytest.raises(UserError, match=r"other\.yaml: "):
            from_verl(other)
    with pytest.raises(UserError, match="cannot be read"):
        from_verl(tmp_path / "nowhere.yaml")
