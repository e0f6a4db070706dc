"""Bad input: one clear line that names the file, row or key, a non-zero exit, and nothing started or written."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from tests.launching import launch


def refused(*options: str, processes: int = 1, tool: str = "train") -> str:
    """The one line on stderr of a refused run."""
    done = launch(f"tools/{tool}.py", *options, processes=processes)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    if processes == 1:
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    return lines[0]


@pytest.fixture
def data(carry, tmp_path):
    """A copy of the data, to break; and the options that use it."""
    folder = tmp_path / "data"
    shutil.copytree(carry, folder)
    return folder, [f"prepared={folder}", f"model.path={folder}/init", f"run.folder={tmp_path}/runs"]


def rewrite(path, change) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(change(i, row)) + "\n" for i, row in enumerate(rows)))


def without(column):
    return lambda i, row: {k: v for k, v in row.items() if k != column}


def test_missing_column(data):
    rewrite(data[0] / "train_easy.jsonl", without("answer"))
    line = refused(*data[1])
    assert "train_easy.jsonl" in line and "'answer'" in line
    assert not (data[0].parent / "runs").exists()


def test_empty_file(data):
    (data[0] / "eval_hard.jsonl").write_text("")
    assert "eval_hard.jsonl" in refused(*data[1])


def test_prompt_longer_than_the_limit(data):
    rewrite(data[0] / "train_easy.jsonl", lambda i, row: {**row, "prompt": "1+1+1+1+1?"} if i == 6 else row)
    line = refused(*data[1])
    assert "train_easy.jsonl" in line and "7" in line and "10 tokens" in line and "limit is 8" in line


def test_no_golden_answers(data):
    rewrite(data[0] / "train_easy.jsonl", without("golden_answer"))
    line = refused(*data[1], f"data.train.hard.path={data[0]}/train_easy.jsonl")
    assert "algorithm.golden=all_wrong needs golden answers" in line and "golden_answer" in line


def spoilt(i, row):
    """Of every ten golden answers, one of another answer, one too long, and one missing."""
    golden = {0: "0+1+1=02:999", 1: row["golden_answer"] + " " * 99, 2: None}
    return {**row, "golden_answer": golden.get(i % 10, row["golden_answer"])}


def test_golden_answers_are_counted_before_training(data):
    rewrite(data[0] / "train_easy.jsonl", spoilt)
    sources = [f"data.train.hard.path={data[0]}/train_easy.jsonl", "data.train.hard.max_rows=100"]
    done = launch(
        "tools/train.py", *data[1], *sources, "run.name=x", "trainer.steps=1", "data.eval={}",
        "evaluation.every_steps=0", "evaluation.at_start=false", processes=2,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for told in (done.stderr, (data[0].parent / "runs/x/logs/rank_00000.log").read_text()):
        assert "70 of 80 graded are right" in told and "5,600 of 6,400 graded are right" in told
        # To the untrained model all tokens are alike: none of either source is out of reach.
        assert told.count("64 of 64 (worst token -3.7 nats)") == 2
    assert "8,000 (7,200 with a golden answer" in done.stderr and "UserWarning" not in done.stderr


def test_no_golden_answer_can_be_used(data):
    rewrite(data[0] / "train_easy.jsonl", lambda i, row: spoilt(i % 3, row))
    sources = [f"data.train.hard.path={data[0]}/train_easy.jsonl", "data.train.hard.max_rows=30"]
    line = refused(*data[1], *sources, processes=2)
    assert "no golden answer can be used: easy: 5,334, of which 2,667 are longer than rollout.sampling.max_" in line
    assert "hard: 20, of which 10 are longer" in line and "the reward rejects 10 (python tools/prepare.py check" in line


def test_unknown_algorithm(data):
    assert "algorithm=gcp: unknown choice (nearest: gcpo)" in refused(*data[1], "algorithm=gcp")


@pytest.mark.parametrize(
    "option, message",
    [
        (
            "parallel.tensor=3",
            "parallel.tensor=3 x parallel.pipeline=1 x parallel.context=1 needs a multiple of 3 processes",
        ),
        ("parallel.sequence=true", "parallel.sequence=true needs parallel.tensor above 1"),
        ("parallel.expert=2", "parallel.expert=2: the model (qwen2) has no experts"),
        ("benchmark=[gsm8k]", "benchmark= is read by `python tools/evaluate.py`"),
        ("data.max_prompt_tokens=120", "is more than the model's 128 positions"),
        ("rollout.sampling.temperature=0", "rollout.sampling.temperature=0"),
        ("trainer.updates_per_step=3", "trainer.updates_per_step=3 does not divide trainer.prompts_per_step=32"),
    ],
)
def test_contradictions(data, option, message):
    assert message in refused(*data[1], option)


def test_impossible_layout_on_two_processes(data):
    assert "parallel.pipeline=2 does not divide the model's layers (3)" in refused(
        *data[1], "parallel.pipeline=2", processes=2
    )


def test_what_only_rank_0_meets_is_the_last_word_of_torchrun(data):
    """The other rank, left alone in a collective, adds a line and no traceback."""
    servers = ["rollout=sglang", "rollout.servers=[http://127.0.0.1:9]", "rollout.start_servers=0"]
    done = launch("tools/train.py", *data[1], *servers, processes=2, forked=False)
    said = "error: rollout: no SGLang server is left of http://127.0.0.1:9"
    assert done.returncode == 1 and done.stderr.splitlines().count(said) == 1
    assert done.stderr.rstrip().splitlines()[-2].endswith(said)  # torchrun's "Root Cause", above a line of ====
    assert "[rank1]" not in done.stderr and "Error executing job" not in done.stderr, done.stderr


def test_missing_model(data):
    assert "/nowhere/config.json does not exist" in refused(*data[1], "model.path=/nowhere")


def test_truncated_weights(data):
    weights = data[0] / "init/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    assert "init/model.safetensors" in refused(*data[1])


@pytest.mark.parametrize("tool, stages", [("train", 1), ("train", 3), ("evaluate", 1)])
def test_weights_that_are_not_finite(tool, stages, data):
    """Also where the tensor is the last stage's alone."""
    weights = data[0] / "init/model.safetensors"
    tensors = load_file(weights)
    tensors["model.layers.2.mlp.down_proj.weight"][0, 0] = float("nan")
    save_file(tensors, weights)
    line = refused(*data[1], f"parallel.pipeline={stages}", processes=stages, tool=tool)
    assert "init: tensor model.layers.2.mlp.down_proj.weight is not finite: 1 NaN" in line and "rank" not in line


def test_unknown_architecture(data):
    config = data[0] / "init/config.json"
    config.write_text(config.read_text().replace('"qwen2"', '"qwen9"'))
    assert "model_type 'qwen9' is not carried (nearest: qwen" in refused(*data[1])
