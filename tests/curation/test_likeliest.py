"""`golden.py fill --keep likeliest`: the log-probs are those of one token after the other, and they decide."""

import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.curation.likelihood import Policy
from gcpo_mcore.run.load import load_config
from gcpo_mcore.tasks import carry
from tests.curation.test_golden import golden, read, teacher, write


@pytest.fixture(scope="module")
def policy(tiny_models, tmp_path_factory):
    """A random model with the tokenizer of the carry task."""
    folder = tmp_path_factory.mktemp("policy") / "model"
    shutil.copytree(tiny_models["qwen2-tied"], folder)
    carry.make_tokenizer().save_pretrained(folder)
    return folder


def by_hand(model, prompt, response):
    """Mean log-prob of the response, each token from a forward pass of its own over what stands before it."""
    found = []
    for t, token in enumerate(response):
        logits = model(torch.tensor([prompt + response[:t]])).logits[0, -1].double()
        found.append((logits[token] - logits.exp().sum().log()).item())
    return sum(found) / len(found)


def test_log_probs_of_a_padded_batch_are_those_by_hand(policy, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    pairs = [
        tuple(torch.randint(1, 25, (n,), generator=generator).tolist() for n in sizes)
        for sizes in [(1, 1), (3, 17), (30, 2), (9, 9), (5, 40), (2, 1)]
    ]
    model = AutoModelForCausalLM.from_pretrained(policy)
    expected = [by_hand(model, *pair) for pair in pairs]
    for tokens in (4096, 64, 1):
        monkeypatch.setattr("gcpo_mcore.curation.likelihood.TOKENS_PER_BATCH", tokens)
        scorer = Policy(str(policy), carry.make_tokenizer(), load_config([]).data)
        assert scorer.mean_logp(pairs) == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 0.5
    assert scorer.mean_logp([([1] * 100, [2] * 28)])[0] > float("-inf")  # 128 positions
    assert scorer.mean_logp([([1] * 100, [2] * 29), pairs[0]])[0] == float("-inf")
    assert scorer.mean_logp([]) == []


def test_the_likelier_of_two_right_answers_is_kept(policy, tmp_path):
    rows = [{"prompt": f"{a}+{b}?", "answer": str(a + b)} for a in range(1, 5) for b in (3, 8)]
    tokenizer, model = carry.make_tokenizer(), AutoModelForCausalLM.from_pretrained(policy)

    def score(row, text):
        return by_hand(model, tokenizer.encode(row["prompt"]), [*tokenizer.encode(text), tokenizer.eos_token_id])

    right = [
        [f"{a} and {b} make, slowly counted:{int(a) + int(b)}", f"{a}+{b}:{int(a) + int(b)}"]
        for a, b in (row["prompt"].rstrip("?").split("+") for row in rows)
    ]
    expected = [max(texts, key=lambda text: score(row, text)) for row, texts in zip(rows, right, strict=True)]
    assert 0 < sum("slowly" in text for text in expected) < len(rows)  # the shortest would be another choice
    path, out = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    with teacher(tmp_path) as url:
        arguments = ["fill", path, out, "--teacher", url, "--model", "solver", "--keep", "likeliest", "--parallel", 3]
        done = golden(*arguments, "--policy", policy)
        assert done.returncode == 0, done.stderr
    assert [row["golden_answer"] for row in read(out)] == expected


def test_a_folder_without_a_model_is_one_line(policy, tmp_path):
    path = write(tmp_path / "in.jsonl", [{"prompt": "1+1?", "answer": "2", "note": ":2"}])
    common = ["fill", path, tmp_path / "out.jsonl", "--column", "note", "--keep", "likeliest"]
    done = golden(*common, "--policy", tmp_path / "none")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and str(tmp_path / "none") in done.stderr
    done = golden(*common)
    assert done.returncode == 2 and "--keep likeliest and --policy go together" in done.stderr
    broken = shutil.copytree(policy, tmp_path / "broken")
    (broken / "model.safetensors").unlink()
    with pytest.raises(UserError, match="transformers cannot load it: "):
        Policy(str(broken), carry.make_tokenizer(), load_config([]).data)
