"""The problems of a benchmark, before any model is asked."""

import pyarrow
import pyarrow.parquet
import pytest

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.evaluation.problems import load_problems
from gcpo_mcore.run.load import load_config
from tests.chats import BOS, chat_tokenizer

SMALL = ["benchmark=[gsm8k]", "benchmark.gsm8k.prompt='{problem}'", "benchmark.gsm8k.max_prompt_tokens=20"]


def gsm8k(*options):
    return load_config([*SMALL, *options]).benchmark["gsm8k"]


def refusal(benchmark):
    with pytest.raises(UserError) as error:
        load_problems("gsm8k", benchmark, chat_tokenizer())
    return str(error.value)


def test_rows_of_the_hub_are_checked_as_those_of_files(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data"
    data.mkdir()
    when = pyarrow.array([0, 2**60], pyarrow.timestamp("us"))  # the second is beyond year 9999
    rows = {"question": ["1+1?"] * 2, "answer": ["#### 2"] * 2, "when": when}
    pyarrow.parquet.write_table(pyarrow.table(rows), data / "test.parquet")
    found = ["benchmark.gsm8k.hub.subset=null", f"benchmark.gsm8k.hub.name={data}", f"evaluation.benchmarks={tmp_path}"]
    assert refusal(gsm8k(*found)).startswith(f"{data} (test), row 1: column 'when' cannot be read (")
    (only,) = load_problems("gsm8k", gsm8k(*found, "benchmark.gsm8k.max_problems=1"), chat_tokenizer())
    assert only.answer == "2" and only.token_ids == chat_tokenizer().encode(
        "<|im_start|>(1+1?<|im_end|>\n<|im_start|>)"
    )


def test_problems_have_one_begin_token_and_no_end(tmp_path):
    path = tmp_path / "gsm8k.jsonl"
    plain = gsm8k(f"evaluation.benchmarks={tmp_path}", "benchmark.gsm8k.chat_template=false")
    path.write_text('{"question": "<bos>1+1?", "answer": "#### 2"}\n{"question": "1+1?", "answer": "#### 2"}\n')
    for prompt in load_problems("gsm8k", plain, chat_tokenizer(around="<bos> $A <eos>")):
        assert prompt.token_ids == [BOS, *chat_tokenizer().encode("1+1?")]
    path.write_text('{"question": "1+1?<eos>", "answer": "#### 2"}\n')
    assert refusal(plain) == f"{path}, line 1: column 'question' ends with the token <eos> (2), which ends a response"
