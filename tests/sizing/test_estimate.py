"""The memory estimate against models that are really built: bytes of static memory exact, activations within 7%."""

import json
import statistics
from pathlib import Path

import numpy as np
import pytest

from gcpo_mcore.actor.config import ParallelConfig
from gcpo_mcore.actor.layout import Layout, check_layout
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.batch import Batch
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.run.dealing import owners
from gcpo_mcore.run.load import load_config
from gcpo_mcore.sizing.activations import Pass, activation_bytes
from gcpo_mcore.sizing.buffers import static_bytes
from gcpo_mcore.sizing.estimate import estimate_run, pinned
from tests.actor.families import make_model
from tests.actor.worker import adapter_of, make_batch, parallel_of
from tests.launching import launch, run

WORKER = Path(__file__).with_name("measure_worker.py")
TOLERANCE = 0.07
CASES = {
    "DP2": "qwen2:",
    "bf16": "qwen3:dtype=bfloat16",
    "distributed optimizer": "qwen3:distributed_optimizer=1",
    "bf16, distributed optimizer": "qwen2:distributed_optimizer=1,dtype=bfloat16",
    "TP2": "qwen3:tensor=2",
    "TP2 sequence parallel": "qwen2:tensor=2,sequence=1",
    "PP2, tied": "qwen2:pipeline=2",
    "PP2, tied, bf16, distributed optimizer": "qwen2:pipeline=2,distributed_optimizer=1,dtype=bfloat16",
    "PP2 in 2 chunks": "qwen3:pipeline=2,virtual_pipeline=2",
    "PP2, one micro-batch": "qwen3:pipeline=2,sequences=16",
    "CP2, distributed optimizer": "qwen2:context=2,distributed_optimizer=1",
    "CP2, one pack": "qwen3:context=2,tokens=400",
    "EP2": "qwen3-moe:expert=2,sequences=8",
    "EP2, bf16, distributed optimizer": "qwen3-moe:expert=2,distributed_optimizer=1,dtype=bfloat16,sequences=8",
    "experts, not dealt": "qwen3-moe:sequences=8",
    "selective recompute": "qwen2:recompute=selective",
    "full recompute": "qwen3:recompute=full",
    "one pack": "qwen2:tokens=200,distributed_optimizer=1",
    "full recompute, PP2": "qwen2:recompute=full,pipeline=2",
    "adapter": "qwen2:lora=rank=4",
    "adapter, TP2 sequence parallel": "qwen3:tensor=2,sequence=1,lora=rank=8",
    "fp32 adapter, bf16, sharded": "qwen3:distributed_optimizer=1,dtype=bfloat16,lora=rank=4;dtype=float32",
    "adapter, EP2, bf16": "qwen3-moe:expert=2,dtype=bfloat16,sequences=8,lora=rank=4",
    "adapter of some layers, PP2, tied": "qwen2:pipeline=2,lora=rank=4;targets=v_proj+down_proj",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {n: make_model(n, folder / n, num_hidden_layers=4) for n in ("qwen2", "qwen3", "qwen3-moe")}


@pytest.fixture(scope="module")
def measured(models, tmp_path_factory) -> dict[str, list[dict]]:
    """{case: what each of 2 ranks holds}, in one launch for all."""
    out = tmp_path_factory.mktemp("measured") / "out.json"
    arguments = {name: "{}:{}".format(models[case.split(":")[0]], case.split(":")[1]) for name, case in CASES.items()}
    run(WORKER, str(out), *arguments.values(), processes=2)
    found = json.loads(out.read_text())
    return {name: found[argument] for name, argument in arguments.items()}


@pytest.mark.parametrize("name", CASES)
def test_a_built_model(name, measured, models):
    family, _, text = CASES[name].partition(":")
    options = dict(option.split("=", 1) for option in text.split(",") if option)
    adapter = adapter_of(options) if "lora" in options else None
    arch, parallel = read_architecture(str(models[family])), parallel_of(options)
    layout = check_layout(parallel, arch, processes=2)
    dtype_bytes = 2 if options.get("dtype") == "bfloat16" else 4
    for rank in measured[name]:
        static = static_bytes(
            arch, layout, dtype_bytes, parallel.distributed_optimizer, rank["stage"], rank["data_rank"], adapter
        )
        assert static.parameters == rank["parameters"]
        assert static.gradients == rank["gradients"]
        assert static.optimizer == rank["optimizer"]
        assert sorted(static.weight_storages + static.state_storages) == rank["host_buffers"]
    for stage in range(layout.pipeline):
        # The mean over ranks: a router does not deal tokens evenly, as the estimate has it.
        held = statistics.mean(rank["activations"] for rank in measured[name] if rank["stage"] == stage)
        passes = [one_pass(make_batch(arch.vocabulary), layout, parallel, options, rank) for rank in range(layout.data)]
        estimated = [activation_bytes(arch, parallel, layout, dtype_bytes, p, stage) for p in passes]
        assert statistics.mean(estimated) == pytest.approx(held, rel=TOLERANCE)


def one_pass(batch: Batch, layout: Layout, parallel: ParallelConfig, options: dict[str, str], data_rank: int) -> Pass:
    """The micro-batches that the actor of a data-parallel rank makes of its rows."""
    batch = batch.choose(np.flatnonzero(owners(batch.table, 1, layout.data) == data_rank).tolist())
    row_multiple = 2 * layout.context if layout.context > 1 else 1
    rows = [len(p) + len(r) for p, r in zip(batch.prompt_ids, batch.response_ids, strict=True)]
    rows = [-(-n // row_multiple) * row_multiple for n in rows]
    multiple = (layout.tensor if parallel.sequence else 1) * row_multiple
    length = -(-max(rows) // multiple) * multiple
    sequences, tokens = int(options.get("sequences", 4)), int(options.get("tokens", 0))
    count = -(-len(batch) // sequences)
    if tokens:
        assert sum(rows) < tokens  # one pack
        sequences, count = len(batch), 1
    scores = sum(n * n for n in rows) if tokens else sequences * length * length
    return Pass(
        tokens=sum(rows) if tokens else sequences * length,
        response_tokens=int(batch.lengths.mean() * sequences),
        micro_batches=count,
        is_packed=bool(tokens),
        with_cuda=False,
        adapter=adapter_of(options) if "lora" in options else None,
        scores=scores if layout.context == 1 and options.get("dtype") != "bfloat16" else 0,
    )


SHAPES = {  # Qwen2.5's, and Qwen3-30B-A3B; layout, GiB of a GPU, whether it fits
    "1.5b": ({"hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
              "intermediate_size": 8960, "vocab_size": 151936, "tie_word_embeddings": True}, 1.54e9),
    "34b": ({"hidden_size": 7168, "num_hidden_layers": 60, "num_attention_heads": 56, "num_key_value_heads": 8,
             "intermediate_size": 20480, "vocab_size": 64000, "tie_word_embeddings": False}, 34.4e9),
}  # fmt: skip


def shape(folder: Path, size: str) -> Path:
    """A folder with nothing but the config.json of the size."""
    folder.mkdir()
    config, _ = SHAPES[size]
    config = {"model_type": "llama" if size == "34b" else "qwen2", "max_position_embeddings": 32768, **config}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def of(folder: Path, processes: int, *overrides: str):
    return estimate_run(load_config([f"model.path={folder}", "model.dtype=bfloat16", *overrides]), processes)


def in_phase(estimate) -> dict[str, tuple[int, ...]]:
    return {one.name: one.in_phase for one in estimate.components}


def test_what_saves_memory_saves_what_it_should(tmp_path):
    folder = shape(tmp_path / "34b", "34b")
    found = {}
    for name, overrides in {
        "tensor": ["parallel.tensor=8"],
        "pipeline": ["parallel.tensor=8", "parallel.pipeline=2"],
        "sharded": ["parallel.tensor=8", "parallel.distributed_optimizer=true"],
    }.items():
        found[name] = in_phase(of(folder, 32, *overrides))
    plain = found["tensor"]
    parameters = SHAPES["34b"][1]
    assert plain["parameters"][0] == pytest.approx(2 * parameters / 8, rel=0.01)
    assert plain["gradients, fp32"][0] == pytest.approx(4 * parameters / 8, rel=0.01)
    assert plain["optimizer state"][0] == pytest.approx(12 * parameters / 8, rel=0.01)
    assert found["sharded"]["optimizer state"][0] == pytest.approx(plain["optimizer state"][0] / 4, rel=0.01)
    assert found["pipeline"]["parameters"][0] == pytest.approx(plain["parameters"][0] / 2, rel=0.02)
    away = in_phase(of(folder, 32, "parallel.tensor=8", "actor.offload=all"))
    assert away["parameters"] == (0, *plain["parameters"][1:])
    for name in ("gradients, fp32", "optimizer state"):  # away for the sync too
        size = plain[name][0]
        assert plain[name] == (size,) * 6 and away[name] == (0, size, size, size, 0, size)
    # By hand: 2 x 60 layers x 8 kv heads x 128 x 2 bytes a token.
    a_token = 2 * 60 * 8 * 128 * 2
    more = of(folder, 32, "parallel.tensor=8", "rollout.sequences_per_batch=64", "data.max_prompt_tokens=1002")
    cache = in_phase(more)["engine: KV cache"]
    assert cache == (64 * 1024 * a_token, 0, 0, 0, 0, 0)
    # The largest tensor on its way, whole: the embedding.
    assert in_phase(more)["weights on their way"] == (0, 0, 0, 0, 64000 * 7168 * 2, 0)
    # Prompts are read 8,192 tokens at a time: two hidden states of 7,168, gate and up of 20,480, 2 bytes each. That is
    # more than 64 draws from a vocabulary of 64,000.
    prompts = 8192 * (2 * 7168 + 2 * 20480) * 2
    assert in_phase(more)["engine: prompts or draws at work"] == (prompts, 0, 0, 0, 0, 0)
    few = of(folder, 32, "parallel.tensor=8", "rollout.sequences_per_batch=1", "data.max_prompt_tokens=10")
    assert in_phase(few)["engine: prompts or draws at work"] == (64000 * 22, 0, 0, 0, 0, 0)


def test_servers_on_the_same_gpu_are_counted_as_they_are_started(tmp_path):
    """Resting: weights in the sync and the rollout, their cache in the rollout only; else both always."""
    folder = shape(tmp_path / "1.5b", "1.5b")
    long = ["rollout=sglang", "rollout.sampling.max_response_tokens=2048", "data.max_prompt_tokens=512"]
    weights, a_token = 2 * SHAPES["1.5b"][1], 2 * 28 * 2 * 128 * 2
    cache = 256 * 2560 * a_token
    turn = in_phase(of(folder, 8, *long))
    assert turn["engine: weights"] == pytest.approx((weights, 0, 0, 0, weights, 0), rel=0.01)
    assert turn["engine: KV cache"] == (cache, 0, 0, 0, 0, 0)
    assert turn["weights on their way"] == (0, 0, 0, 0, 2 * 512 * 2**20, 0)
    assert set(turn["engine: what stays"]) == {3 * 2**29}
    for more, times in (["rollout.memory_saver=false"], 1), (["rollout.max_staleness=1"], 2):
        beside = in_phase(of(folder, 8, *long, *more))
        assert beside["engine: weights"] == pytest.approx((weights,) * 6, rel=0.01)
        assert beside["engine: KV cache"] == (times * cache,) * 6
    # A server of more GPUs than the model has heads for keys has one of them on each.
    spread = in_phase(of(folder, 8, *long, "rollout.tensor_parallel=4"))
    assert spread["engine: KV cache"] == (cache // 2, 0, 0, 0, 0, 0)
    # Short ones leave room for one sequence as long as the model allows.
    assert in_phase(of(folder, 8, "rollout=sglang"))["engine: KV cache"][0] == 32768 * a_token


def test_command_line(tmp_path):
    """On a machine that could not hold the model: a table, the verdict, its exit code; mistakes are one line."""
    folder = shape(tmp_path / "1.5b", "1.5b")
    options = [
        f"model.path={folder}", "model.dtype=bfloat16", "rollout.sampling.max_response_tokens=2048",
        "trainer.tokens_per_microbatch=8192", "--processes", "8", "algorithm/kl=k3",
    ]  # fmt: skip
    done = launch("tools/doctor.py", "plan", *options, "--gpu-memory-gib", "80")
    # The reference by hand, pinned, in MiB: twice 28 layers of 64, 32, 8 and 8, and the embedding's 512.
    assert done.returncode == 0, done.stderr
    assert "1.54B parameters" in done.stdout and "engine: KV cache" in done.stdout
    assert "\nfits: " in done.stdout and "in host memory: reference policy, 7.13 GiB" in done.stdout
    done = launch("tools/doctor.py", "plan", *options, "--gpu-memory-gib", "40")
    assert done.returncode == 1 and "\ndoes not fit: " in done.stdout
    done = launch("tools/doctor.py", "plan", *options, "parallel.tensor=16")
    assert done.returncode == 2 and done.stderr.startswith("error: parallel.tensor=16 x parallel.pipeline=1 x")


def test_a_seven_billion_model_is_trained_on_one_gpu_with_an_adapter():
    """By hand: A and B of rank 32 beside all linear layers of Qwen2.5-7B, 28 layers of 3,584 and 18,944."""
    adapter = 28 * 32 * (2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944))
    estimate = estimate_run(load_config(["experiment=lora_7b_one_gpu"]), processes=1)
    assert estimate.layout.world == 1 and not estimate.host and estimate.fits(80.0 - 2.0)
    held = in_phase(estimate)
    assert held["parameters"][1] == pytest.approx(2 * 7.616e9 + 2 * adapter, rel=1e-3)
    assert held["gradients, fp32"][1] == 4 * adapter and held["optimizer state"][1] == 12 * adapter
    # The server never rests, and is given the adapter alone: nothing but that is on its way.
    apart = ["rollout.memory_saver=false", "rollout.adapter_folder=x"]
    beside = estimate_run(load_config(["experiment=lora_7b_one_gpu", *apart]), processes=1)
    assert beside.fits(80.0 - 2.0) and in_phase(beside)["weights on their way"] == (0,) * 6
    assert in_phase(beside)["engine: weights"] == (2 * beside.arch.parameters + 2 * 2 * adapter,) * 6
    everything = estimate_run(load_config(["experiment=lora_7b_one_gpu", "model/adapter=none"]), processes=1)
    assert not everything.fits(80.0)


def test_what_waits_in_pinned_memory_takes_powers_of_two(tmp_path):
    """Of the 1.5B on 8 ranks one buffer has the weights; unsharded each has its own, the embedding 467 MB."""
    folder = shape(tmp_path / "1.5b", "1.5b")
    away = ["actor.offload=all", "parallel.distributed_optimizer=true"]
    config = load_config([f"model.path={folder}", "model.dtype=bfloat16", *away])
    sizes = {cuda: dict(estimate_run(config, 8, with_cuda=cuda).host)["actor"] for cuda in (False, True)}
    assert sizes[False] == pytest.approx(SHAPES["1.5b"][1] * (2 + 12 / 8), rel=0.01)
    assert sizes[False] + 1.1e9 < sizes[True] < 2 * sizes[False]  # 2^32 for 3.09e9 bytes of weights alone
    assert pinned([1, 2, 3, 1024, 1025, 0]) == 1 + 2 + 4 + 1024 + 2048


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"config\.json does not exist"):
        of(tmp_path, 1)
