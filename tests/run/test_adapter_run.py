"""Runs that train an adapter: resumed, exported both ways, started from a PEFT folder, refused beside another base."""

import json
import shutil
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.filesystem import FileSystemReader
from transformers import AutoModelForCausalLM

from gcpo_mcore.convert.adapter import AdapterShards
from tests.launching import launch, run

SETTINGS = [
    "algorithm=gcpo", "algorithm/kl=k3", "model/adapter=lora", "model.adapter.rank=4", "optimizer.lr=3e-3",
    "trainer.steps=4", "trainer.prompts_per_step=4", "trainer.samples_per_prompt=4",
    "trainer.tokens_per_microbatch=128", "trainer.checkpoint_every_steps=2", "trainer.hf_every_steps=2",
    "parallel.recompute=full", "actor.offload=all", "monitor.trackers=[]",
    "evaluation.every_steps=0", "evaluation.at_start=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(carry, tmp_path_factory) -> Path:
    """The folder of two runs: `whole`, and `resumed`, which stopped after 2 of its 4 steps."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copytree(carry / "init", folder / "base")
    own = [f"prepared={carry}", f"model.path={folder}/base", f"run.folder={folder}"]
    run("tools/train.py", *SETTINGS, *own, "run.name=whole")
    run("tools/train.py", *SETTINGS, *own, "run.name=resumed", "trainer.stop_at_step=2")
    run("tools/train.py", *SETTINGS, *own, "run.name=resumed")
    return folder


def _factors(folder: Path) -> dict[tuple[str, str], torch.Tensor]:
    shards = AdapterShards(folder / "checkpoints/step_000004/shards")
    return {(layer, kind): values for layer, kind, values in shards.factors()}


def test_the_base_is_the_reference_and_golden_answers_teach(runs):
    lines = [json.loads(line) for line in (runs / "whole/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert abs(lines[0]["actor/kl_ref_loss"]) < 1e-9 < 1e-6 < lines[3]["actor/kl_ref_loss"]
    assert sum(line["groups/golden_injected"] for line in lines) > 0
    assert all(line["actor/grad_norm"] > 0 for line in lines)


def test_a_run_that_was_resumed_has_the_same_adapter(runs):
    whole, resumed = _factors(runs / "whole"), _factors(runs / "resumed")
    assert [name for name, values in whole.items() if not torch.equal(values, resumed[name])] == []
    assert all(values.any() for values in whole.values())


def test_exports_are_the_same_model(runs):
    """The run's own folder, merged; the one made in the background; and the adapter, which peft puts on the base."""
    tokens = torch.arange(12).view(2, 6) % 7
    merged = AutoModelForCausalLM.from_pretrained(runs / "whole/hf")
    base = AutoModelForCausalLM.from_pretrained(runs / "base")
    run("tools/convert.py", "to-peft", str(runs / "whole"), str(runs / "peft"))
    with torch.no_grad():
        of_base, wanted = base(tokens).logits, merged(tokens).logits
        found = peft.PeftModel.from_pretrained(base, runs / "peft").eval()(tokens).logits
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    assert (of_base - wanted).abs().max() > 1e-3
    last, own = (
        load_file(runs / "whole/hf_step_000004/model.safetensors"),
        load_file(runs / "whole/hf/model.safetensors"),
    )
    assert all(torch.equal(last[name], tensor) for name, tensor in own.items())


def test_a_run_starts_from_a_peft_folder(runs, carry):
    """Made by peft itself; after no update its export is what peft merges."""
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"])
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(runs / "base"), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(runs / "start")
    start = [f"model.adapter.start={runs}/start", "model.adapter.alpha=8", "model.adapter.targets=[q_proj,down_proj]"]
    own = [f"prepared={carry}", f"model.path={runs}/base", f"run.folder={runs}", "run.name=started"]
    done = launch("tools/train.py", *SETTINGS, *own, *start, "model.adapter.rank=2")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"error: model.adapter.rank=2: the adapter in {runs}/start has 4"
    run("tools/train.py", *SETTINGS, *own, *start, "trainer.steps=2", "optimizer.lr=1e-12")
    merged = model.merge_and_unload().state_dict()
    for name, tensor in load_file(runs / "started/hf/model.safetensors").items():
        torch.testing.assert_close(tensor, merged[name], rtol=0, atol=1e-6)


def test_another_base_is_refused(runs, carry):
    """Also where changed inputs are allowed: by the run, and by its export."""
    shutil.copytree(runs / "resumed", runs / "elsewhere")
    shutil.copytree(runs / "base", runs / "other")
    weights = load_file(runs / "other/model.safetensors")
    name = next(iter(weights))
    weights[name].view(-1)[7] += 1e-3
    save_file(weights, runs / "other/model.safetensors", metadata={"format": "pt"})
    shutil.rmtree(runs / "base_aside", ignore_errors=True)
    (runs / "base").rename(runs / "base_aside")
    (runs / "other").rename(runs / "base")
    try:
        own = [f"prepared={carry}", f"model.path={runs}/base", f"run.folder={runs}", "run.name=elsewhere"]
        more = ["trainer.steps=6", "run.changed_inputs=allow"]
        done = launch("tools/train.py", *SETTINGS, *own, *more)
        assert done.returncode == 2
        assert "its adapter is of another base" in done.stderr.splitlines()[-1]
        done = launch("tools/convert.py", "to-hf", str(runs / "whole"), str(runs / "out"))
        assert done.returncode == 2 and "its adapter is of another base" in done.stderr.splitlines()[-1]
        run("tools/convert.py", "to-hf", str(runs / "whole"), str(runs / "out"), "--base", str(runs / "base_aside"))
    finally:
        (runs / "base").rename(runs / "other")
        (runs / "base_aside").rename(runs / "base")


def test_a_checkpoint_is_as_small_as_the_adapter(runs):
    there = FileSystemReader(runs / "whole/checkpoints/step_000004/shards").read_metadata().state_dict_metadata
    kinds = {key.removeprefix("optimizer.state.").split(".adapter.")[0] for key in there if "adapter." in key}
    assert len(there) == 3 * len(_factors(runs / "whole")), kinds
