"""Every family, Hugging Face -> Megatron -> Hugging Face: log-probs as transformers', weights bitwise, every layout."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.actor.families import FAMILIES, make_model, token_rows
from tests.launching import run

DENSE = [name for name in FAMILIES if "moe" not in name]
LAYOUTS = {  # name -> processes, options, families; families of two kv heads at TP4: fewer kv heads than ranks
    "TP1": (1, "", list(FAMILIES)),
    "TP2": (2, ":tensor=2", DENSE),
    "PP2": (2, ":pipeline=2", list(FAMILIES)),
    "EP2": (2, ":expert=2", ["qwen3-moe", "qwen3-moe-plain"]),
    "TP2xPP2": (4, ":tensor=2:pipeline=2:sequence=1", ["qwen2", "qwen3", "llama3", "mistral"]),
    "TP4": (4, ":tensor=4", ["qwen2", "qwen3", "llama3"]),
    "EP2 over TP2": (2, ":tensor=2:expert=2:sequence=1", ["qwen3-moe"]),
    "EP2xTP2xDP2": (4, ":tensor=2:expert=2:sequence=1", ["qwen3-moe"]),
    "EP2xTP2xPP2": (4, ":tensor=2:pipeline=2:expert=2:sequence=1", ["qwen3-moe"]),
    "EP2xPP2": (4, ":pipeline=2:expert=2", ["qwen3-moe"]),
}
CASES = [(layout, family) for layout, (_, _, families) in LAYOUTS.items() for family in families]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("families")
    return {name: make_model(name, folder / name) for name in FAMILIES}


@pytest.fixture(scope="module")
def results(models, tmp_path_factory) -> Path:
    """The folder with every case's log-probs and export: one launch for each number of processes."""
    out = tmp_path_factory.mktemp("exports")
    for processes in (1, 2, 4):
        cases = [
            f"{layout}-{family}:{models[family]}{options}"
            for layout, (size, options, families) in LAYOUTS.items()
            for family in families
            if size == processes
        ]
        run("tests/actor/families.py", str(out), *cases, processes=processes)
    return out


@pytest.fixture(scope="module")
def expected(models) -> dict[str, list[torch.Tensor]]:
    """Log-probs of every row but its first two tokens, by transformers."""
    found = {}
    for name, folder in models.items():
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        with torch.no_grad():
            rows = [(torch.tensor([row]), model(torch.tensor([row])).logits[0].log_softmax(-1)) for row in token_rows()]
        found[name] = [logp[1:-1].gather(1, ids[0, 2:, None]).squeeze(1) for ids, logp in rows]
    return found


@pytest.mark.parametrize("layout, family", CASES)
def test_logprobs_and_round_trip(layout, family, models, results, expected):
    logp = torch.load(results / f"{layout}-{family}.pt")
    for mine, wanted in zip(logp, expected[family], strict=True):
        torch.testing.assert_close(mine[: len(wanted)], wanted, rtol=0, atol=1e-4)
    original = load_file(models[family] / "model.safetensors")
    exported = load_file(results / f"{layout}-{family}" / "model.safetensors")
    assert exported.keys() == original.keys()
    assert [name for name, tensor in original.items() if not torch.equal(tensor, exported[name])] == []


def test_families_differ_where_they_should(expected):
    """The comparison above can fail: rope scaling and the router's scaling change the log-probs by far more."""
    for one, other in (("llama3", "smollm2"), ("llama-linear", "llama3"), ("qwen3-moe", "qwen3-moe-plain")):
        assert (expected[one][7] - expected[other][7]).abs().max() > 1e-2
