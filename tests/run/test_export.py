"""What a run exports is the actor: same logits, same greedy answers, same accuracy, by plain transformers."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from gcpo_mcore.run.exports import BackgroundExports
from gcpo_mcore.run.folder import RunFolder
from tests.launching import ENVIRONMENT, ROOT, launch, run
from tests.still import Standstill


@pytest.fixture(scope="module")
def trained(carry, tmp_path_factory) -> Path:
    """A short supervised run on the easy problems, on two tensor ranks, evaluated at its end."""
    folder = tmp_path_factory.mktemp("export")
    run(
        "tools/train.py", "experiment=carry_warmup", f"prepared={carry}", f"run.folder={folder}", "run.name=r",
        "trainer.steps=60", "evaluation.every_steps=60", "parallel.tensor=2", "optimizer.lr=5e-3", processes=2,
    )  # fmt: skip
    return folder / "r"


def metrics_of(run_folder: Path) -> dict:
    return json.loads((run_folder / "metrics.jsonl").read_text().splitlines()[-1])


def test_convert_equals_export_and_checks_logits(trained, tmp_path):
    out = run("tools/convert.py", "to-hf", str(trained), str(tmp_path / "out"))
    assert "largest logit difference to the checkpoint" in out
    assert files_of(trained / "hf") == files_of(tmp_path / "out")


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and mode of every file."""
    return {path.name: (path.read_bytes(), path.stat().st_mode) for path in folder.iterdir()}


def test_convert_refuses(trained, tmp_path):
    (tmp_path / "there").mkdir()
    for arguments, message in (
        ([str(trained), str(tmp_path / "there")], "exists"),
        ([str(tmp_path), str(tmp_path / "new")], "is no run folder with checkpoints"),
        ([str(trained), str(tmp_path / "new"), "--step", "7"], "step_000007"),
    ):
        done = launch("tools/convert.py", "to-hf", *arguments)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "new").exists()


def test_same_logits_and_greedy_answers(trained, carry, tmp_path):
    """The actor (from its checkpoint, in Megatron) against transformers' generate on the export: 64 prompts."""
    actor_out = tmp_path / "actor.pt"
    run(Path(__file__).with_name("actor_answers.py"), str(trained), str(carry / "eval_easy.jsonl"), str(actor_out))
    saved = torch.load(actor_out)
    model = AutoModelForCausalLM.from_pretrained(trained / "hf").eval()
    tokenizer = AutoTokenizer.from_pretrained(trained / "hf")
    rows = [json.loads(line) for line in (carry / "eval_easy.jsonl").read_text().splitlines()[:64]]
    assert len(saved["answers"]) == len(rows) == 64
    for row, answer, logits in zip(rows, saved["answers"], saved["logits"], strict=True):
        ids = torch.tensor([tokenizer.encode(row["prompt"])])
        with torch.no_grad():
            out = model.generate(ids, do_sample=False, max_new_tokens=22, temperature=None, top_k=None, top_p=None)
            torch.testing.assert_close(model(ids).logits[0], logits, rtol=0, atol=1e-4)
        assert out[0, ids.shape[1] :].tolist() == answer


def test_evaluate_agrees_with_training(trained, carry):
    out = run("tools/evaluate.py", f"model.path={trained}/hf", f"prepared={carry}")
    for source in ("easy", "hard"):
        assert f"{metrics_of(trained)[f'val/{source}/avg@1']:.3f}" in out, out


def test_exports_in_the_background(carry, tmp_path):
    """Every second step's weights, from checkpoints of which only the newest is kept; the last is the final export.

    The run is called as a checkpoint's folder might be, and trains in another type than the starter's.
    """
    own = tmp_path / "step_size_ablation"
    options = [
        "algorithm=gcpo", f"prepared={carry}", f"model.path={carry}/init", f"run.folder={tmp_path}",
        f"run.name={own.name}", "trainer.steps=4", "trainer.prompts_per_step=4", "trainer.samples_per_prompt=4",
        "trainer.checkpoint_every_steps=2", "trainer.keep_checkpoints=1", "trainer.hf_every_steps=2",
        "evaluation.every_steps=0", "evaluation.at_start=false", "model.dtype=bfloat16",
    ]  # fmt: skip
    run("tools/train.py", *options)
    weights = {
        name: AutoModelForCausalLM.from_pretrained(own / name).state_dict()
        for name in ("hf_step_000002", "hf_step_000004", "hf")
    }
    for name, tensor in weights["hf"].items():
        assert tensor.equal(weights["hf_step_000004"][name]), name
    assert any(not t.equal(weights["hf_step_000002"][n]) for n, t in weights["hf"].items())
    assert [p.name for p in (own / "checkpoints").iterdir()] == ["step_000004"]
    exported = files_of(own / "hf")
    assert exported == files_of(own / "hf_step_000004")
    assert json.loads(exported["config.json"][0])["dtype"] == "bfloat16"
    assert {tensor.dtype for tensor in load_file(own / "hf/model.safetensors").values()} == {torch.bfloat16}
    # A launch that died before its export, or after one of a former, nearer end: the next one only exports.
    (own / "hf").rename(tmp_path / "old")
    assert "nothing left to train" in run("tools/train.py", *options)
    (own / "hf/model.safetensors").unlink()
    (own / "hf_step").write_text("2\n")
    assert f"Hugging Face export: {own}/hf" in run("tools/train.py", *options)
    assert files_of(own / "hf") == exported
    # One that a launch had no time for is made by the next, as long as it has its checkpoint.
    shutil.rmtree(own / "hf_step_000004")
    run("tools/train.py", *options, "trainer.steps=5")
    assert files_of(own / "hf_step_000004") == exported


def test_an_export_that_hangs_is_ended(tmp_path, monkeypatch, caplog):
    """It stands in its first import; the run waits no longer than it may take, and says so in one line."""
    still = Standstill(tmp_path, "open", "convert")
    for name, value in still.environment(ENVIRONMENT).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "r/logs").mkdir(parents=True)
    exports = BackgroundExports(RunFolder(tmp_path / "r"), every_steps=2, is_gated=True, deadline_s=5.0)
    exports.after_checkpoint(2)
    assert exports.reading == {2}
    exports.close()
    assert exports.reading == set()
    (line,) = caplog.messages
    assert line.startswith(
        "the export of step 2 did not end within 5 s (monitor.export_deadline_s) and was ended; see "
    )
    below = psutil.Process().children(recursive=True)
    assert not [process for process in below if "gcpo_mcore.commands.convert" in process.cmdline()]


def test_a_model_of_the_hub_is_read_by_name(carry, tmp_path):
    """Off line, from the cache as the hub's own library lays it out; a name that is not there is one line."""
    snapshot = tmp_path / "models--someone--adder" / "snapshots" / "abc"
    snapshot.parent.mkdir(parents=True)
    shutil.copytree(carry / "init", snapshot)
    (tmp_path / "models--someone--adder" / "refs").mkdir()
    (tmp_path / "models--someone--adder" / "refs" / "main").write_text("abc")
    common = ["data.eval.easy.max_rows=4", "data.eval.hard.max_rows=4", f"prepared={carry}"]
    environment = {**ENVIRONMENT, "HF_HUB_CACHE": str(tmp_path)}
    for name, code, said in (("someone/adder", 0, "easy/avg@1"), ("someone/else", 2, "no such model on the hub")):
        done = subprocess.run(
            [sys.executable, "tools/evaluate.py", f"model.path={name}", *common],
            cwd=ROOT, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == code and said in done.stdout + done.stderr, done.stderr
        assert "Traceback" not in done.stderr
