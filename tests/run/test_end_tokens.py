"""End tokens and tags, from a model's folder to what is sampled, graded, said and written down."""

import contextlib
import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from gcpo_mcore.actor.hf_mapping import HfWeights
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.rollout.engine import FixedWeights
from gcpo_mcore.rollout.sglang.engine import SglangEngine
from gcpo_mcore.run.load import load_config
from gcpo_mcore.run.setup import build_engine, process_group
from tests.chats import chat_tokenizer
from tests.launching import launch
from tests.rollout.test_sglang_faults import requests, servers

END, THINK = 26, 27  # of chat_tokenizer: <|im_end|>, <think>
ROWS = 30


def model_that_writes(folder: Path, *ids: int) -> Path:
    """A model that writes each of these tokens with the same probability, at every place; it ends turns with END."""
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": ROWS}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    model = AutoModelForCausalLM.from_config(Qwen2Config(**shape, **heads, tie_word_embeddings=False))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "norm" in name or "embed" in name else 0.0)
        model.lm_head.weight[list(ids)] = 1.0
    model.save_pretrained(folder)
    chat_tokenizer().save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, END]}))
    return folder


def options(tmp_path: Path, model: Path) -> list[str]:
    rows = [{"prompt": f"{i}?", "answer": "7", "golden_answer": "1:7<|im_end|>"} for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        "data=files", f"data.train.train.path={tmp_path}/rows.jsonl", f"data.eval.test.path={tmp_path}/rows.jsonl",
        f"model.path={model}", "reward=exact_match", "reward.workers=1", "data.max_prompt_tokens=12",
        "rollout.sampling.max_response_tokens=8", "evaluation.sampling.max_response_tokens=8",
    ]  # fmt: skip


def test_a_run_and_its_evaluation_end_where_the_model_does(tmp_path):
    model = model_that_writes(tmp_path / "model", END)
    given = options(tmp_path, model)
    small = [
        "trainer.steps=1",
        "trainer.prompts_per_step=2",
        "trainer.samples_per_prompt=2",
        "evaluation.every_steps=0",
    ]
    done = launch("tools/train.py", *given, *small, "evaluation.at_start=false", f"run.folder={tmp_path}", "run.name=x")
    assert done.returncode == 0, done.stderr
    said = "2 <eos> (tokenizer, generation_config.json); 26 <|im_end|> (generation_config.json)"
    table = re.sub(r"[│\s]+", " ", done.stderr)  # which breaks its lines
    assert f"tokens that end a response {said}" in table
    rows = [json.loads(line) for line in (tmp_path / "x/rollouts/step_000001.jsonl").read_text().splitlines()]
    sampled = [row for row in rows if not row["is_golden"]]
    assert sampled and all((row["tokens"], row["truncated"], row["response"]) == (1, False, "") for row in sampled)
    golden = [row for row in rows if row["is_golden"]]
    assert golden and all((row["tokens"], row["response"]) == (4, "1:7") for row in golden)
    done = launch("tools/evaluate.py", *given)
    assert done.returncode == 0 and f"{model}: a response ends with {said}" in done.stderr, done.stderr


@pytest.mark.parametrize("tool", ["tools/train.py", "tools/evaluate.py", "tools/prepare.py check"])
@pytest.mark.parametrize("place", ["generation_config.json", "config.json", "rollout.stop_token_ids"])
def test_an_end_token_without_a_row_is_refused(tmp_path, tool, place):
    model = model_that_writes(tmp_path / "model", END)
    given = options(tmp_path, model)
    if place.endswith("json"):
        raw = json.loads((model / place).read_text())
        (model / place).write_text(json.dumps(raw | {"eos_token_id": [2, ROWS]}))
        place = f"{model}/{place}: eos_token_id"
    else:
        given.append(f"rollout.stop_token_ids=[{ROWS}]")
    script, *words = tool.split()
    done = launch(script, *words, *given)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{place}: token 30 cannot end a response, the model has only 30 rows" in done.stderr


def test_servers_are_asked_to_stop_at_the_same_tokens(tmp_path):
    model = model_that_writes(tmp_path / "model", END)
    weights = HfWeights(str(model), read_architecture(str(model)))
    with servers(tmp_path, "none") as ((folder, address, _),), process_group(1, 900):
        config = load_config(
            [
                "rollout=sglang",
                f"rollout.servers=['{address}']",
                "rollout.start_servers=0",
                "rollout.stop_token_ids=[29]",
                "rollout.transport=disk",
                f"rollout.weights_folder={tmp_path}/weights",
            ]
        )
        with contextlib.closing(build_engine(config, str(model), chat_tokenizer())) as engine:
            engine.update_weights(FixedWeights(3, lambda: ((name, weights(name)) for name in weights.names())))
            (sample,) = engine.generate(requests(1), config.rollout.sampling)
            assert isinstance(engine, SglangEngine) and engine.decode([5, THINK, 6, END]) == "1<think>2"
    (asked,) = map(json.loads, (folder / "asked.jsonl").read_text().splitlines())
    assert asked["sampling_params"]["stop_token_ids"] == [2, END, 29]
    assert (sample.response_ids.tolist(), sample.response_text) == ([1, 2, 3, 4], "<unk>0")  # without <bos> and <eos>
