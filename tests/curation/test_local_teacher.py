"""`tools/golden.py fill --teacher-model`: what a model in this process answers, against transformers by hand."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from gcpo_mcore.curation.local_teacher import LocalTeacher
from gcpo_mcore.data.encoder import Encoder
from gcpo_mcore.data.files import read_rows
from gcpo_mcore.data.shapes import columns_of
from gcpo_mcore.rollout.config import Sampling
from gcpo_mcore.rollout.engine import FixedWeights
from gcpo_mcore.run.load import load_config
from gcpo_mcore.run.setup import build_engine
from gcpo_mcore.tasks import carry
from tests.launching import launch

STOP, MAX_TOKENS, POSITIONS = 8, 12, 40
FRAME = (0, 1, 2)  # padding, begin and end are no text; a special token that is, <unk>, is 3
SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_response_tokens": MAX_TOKENS}
ROWS = [{"prompt": f"{a}+{b}?"} for a in range(10) for b in (1, 38, 507)]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A random model whose likeliest tokens differ from place to place, with the tokenizer of the carry task."""
    folder = tmp_path_factory.mktemp("model")
    shape = {"vocab_size": 25, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": POSITIONS}
    torch.manual_seed(0)
    Qwen2ForCausalLM(Qwen2Config(**shape, **heads, initializer_range=0.5)).save_pretrained(folder)
    carry.make_tokenizer().save_pretrained(folder)
    return folder


def greedy(model, tokenizer, prompt: str) -> str | None:
    """The model's likeliest response, each token from a forward pass of its own; None if it does not end in time."""
    ids = tokenizer.encode(prompt)
    response = []
    while len(response) < MAX_TOKENS:
        response.append(model(torch.tensor([ids + response])).logits[0, -1].argmax().item())
        if response[-1] in (STOP, tokenizer.eos_token_id):
            return tokenizer.decode([i for i in response if i not in FRAME]).strip()
    return None


def fill(folder: Path, out: Path, rows: list[dict], *extra) -> tuple[object, list]:
    path = out.with_suffix(".in.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        "fill",
        path,
        out,
        "--teacher-model",
        folder,
        "--max-tokens",
        MAX_TOKENS,
        f"rollout.stop_token_ids=[{STOP}]",
    ]
    extraction = "reward.parts.exact_match.settings.extraction"
    whole = [f"{extraction}.name=whole", f"~{extraction}.marker=':'"]
    done = launch("tools/golden.py", *map(str, [*words, *whole, *extra]))
    return done, [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def test_right_answers_of_the_model_are_kept(model, tmp_path):
    """Every second row's reference answer is what the model says; the others' never is."""
    policy, tokenizer = AutoModelForCausalLM.from_pretrained(model), carry.make_tokenizer()
    said = [greedy(policy, tokenizer, row["prompt"]) for row in ROWS]
    rows = [
        row | {"answer": (not i % 2 and text) or "never"} for i, (row, text) in enumerate(zip(ROWS, said, strict=True))
    ]
    too_long = {"prompt": "1" * (POSITIONS - MAX_TOKENS + 1), "answer": "never"}
    done, made = fill(model, tmp_path / "out.jsonl", [*rows, too_long], "--temperature", "0", "--parallel", 7)
    assert done.returncode == 0, done.stderr
    expected = [text if not i % 2 else None for i, text in enumerate(said)]
    assert [row["golden_answer"] for row in made] == [*expected, None]
    assert 3 <= sum(text is not None for text in expected) < len(expected) / 2  # some right, some cut off
    assert {row["golden_source"] for row in made} == {f"teacher:{model}", None}
    assert "the teacher refused 1 prompts, the first: " in done.stderr and "the model has 40" in done.stderr


def test_the_draws_of_a_row_do_not_depend_on_the_rows_beside_it(model, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row | {"answer": "never"}) + "\n" for row in ROWS))
    config, tokenizer, rows = load_config([]), carry.make_tokenizer(), read_rows(str(path))
    columns, sampling = columns_of(rows[0], config.data.keys), Sampling(**SAMPLING)
    engine = build_engine(config, str(model), tokenizer)
    engine.update_weights(FixedWeights(0, AutoModelForCausalLM.from_pretrained(model).named_parameters))
    encoder = Encoder(tokenizer)
    teachers = [LocalTeacher(engine, encoder, config.data, sampling, POSITIONS, 4, seed) for seed in (0, 0, 1)]
    whole, other = teachers[0].solve(rows, columns), teachers[2].solve(rows, columns)
    assert whole == [found for row in reversed(rows) for found in teachers[1].solve([row], columns)][::-1] != other
    assert len({text for found in whole for text in found}) > len(rows)  # the tries of a row differ


def test_mistakes_are_one_line(model, tmp_path):
    done, _ = fill(model, tmp_path / "a.jsonl", [{"prompt": "1+1?", "answer": "2"}], "--max-tokens", POSITIONS)
    assert done.returncode == 2 and done.stderr == f"golden: --max-tokens 40: {model} has only 40 positions\n"
    done, _ = fill(model, tmp_path / "c.jsonl", [{"prompt": "1+1?", "answer": "2"}], "--model", "x")
    assert done.returncode == 2 and "--teacher and --model go together" in done.stderr


def test_a_solution_has_the_thinking_that_its_prompt_opened(model, tmp_path):
    """So that it is whole for a model whose prompts open none; for one whose prompts do, the tag is left out again."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row | {"answer": "never"}) + "\n" for row in ROWS))
    config, rows = load_config(["data.prompt_suffix='<think>'", "data.max_prompt_tokens=20"]), read_rows(str(path))
    columns, tokenizer = columns_of(rows[0], config.data.keys), carry.make_tokenizer()
    engine = build_engine(config, str(model), tokenizer)
    engine.update_weights(FixedWeights(0, AutoModelForCausalLM.from_pretrained(model).named_parameters))
    teacher = LocalTeacher(engine, Encoder(tokenizer), config.data, Sampling(**SAMPLING), POSITIONS, 4, 0)
    found = [text for texts in teacher.solve(rows, columns) for text in texts]
    assert found and all(text.startswith("<think>") for text in found)
