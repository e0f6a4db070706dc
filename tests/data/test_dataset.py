"""Rows become prompts: token ids, templates, golden answers, and the rows that are refused or dropped."""

import json
from pathlib import Path

import pytest
import yaml

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.data.config import DataConfig
from gcpo_mcore.data.dataset import load, load_eval, load_train
from gcpo_mcore.tasks import carry

ROWS = [
    {"prompt": "3+8?", "answer": 11, "golden_answer": "0+3+8=11:11", "kind": "one_digit"},
    {"prompt": "39+66?", "answer": "105"},
]
CARRY_YAML = Path(__file__).parents[2] / "configs" / "data" / "carry.yaml"


@pytest.fixture(scope="module")
def plain():
    return carry.make_tokenizer()


@pytest.fixture
def tokenizer():
    """Its template writes roles as characters, so that a test sees what was rendered."""
    made = carry.make_tokenizer()
    made.chat_template = (
        "{% for m in messages %}{{ {'system': '(', 'user': ':', 'assistant': ';'}[m.role] }}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ mark | default('=') }}{% endif %}"
    )
    return made


def config(path="unused", **changes):
    """The config of configs/data/carry.yaml, so that the file is tested too, with `changes`."""
    values = yaml.safe_load(CARRY_YAML.read_text())
    values["curriculum"] = {"name": "none"}
    values["cache"] = {"folder": None, "above_mib": 16}
    values["train"] = {"easy": {"path": path, "weight": 1}}
    values["eval"] = {"easy": {"path": path, "max_rows": 1}}
    return DataConfig(**{**values, **changes})


def write(tmp_path, *rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


def refusal(path, settings, tokenizer):
    with pytest.raises(UserError) as error:
        load("easy", path, settings, tokenizer)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_plain_prompt(tmp_path, plain):
    path = write(tmp_path, *ROWS)
    loaded = load_train(config(path), plain)["easy"]
    first, second = loaded.prompts
    assert (loaded.rows, loaded.dropped, loaded.with_golden) == (2, 0, 1)
    golden_tokens = len("0+3+8=11:11") + 1  # and the end token
    assert (loaded.golden_over(golden_tokens - 1), loaded.golden_over(golden_tokens)) == (1, 0)
    assert (first.id, second.id, first.source) == ("easy:0", "easy:1", "easy")
    assert (first.text, first.answer, first.columns) == ("3+8?", "11", ROWS[0])
    assert first.token_ids == plain.encode("3+8?")
    assert first.golden_ids == [*plain.encode("0+3+8=11:11"), plain.eos_token_id]
    assert first.golden_text == "0+3+8=11:11"
    assert second.golden_ids is None and second.golden_text is None
    assert len(load_eval(config(path), plain)["easy"].prompts) == 1  # max_rows


def test_the_suffix_comes_last(tmp_path, plain):
    (only,) = load("easy", write(tmp_path, ROWS[0]), config(prompt_suffix="\n?"), plain).prompts
    assert only.text == "3+8?\n?" == plain.decode(only.token_ids)


@pytest.mark.parametrize(
    ("prompt", "changes", "text"),
    [
        ("1+2?", {"chat_template": True}, ":1+2?="),
        ("1+2?", {"chat_template": True, "system_prompt": "9", "prompt_suffix": "4"}, "(9:1+2?4="),
        ("1+2?", {"chat_template": True, "chat_template_kwargs": {"mark": "-"}}, ":1+2?-"),
        ([{"role": "user", "content": "1"}], {"chat_template": False}, ":1="),
        ([{"role": "user", "content": "1"}], {"system_prompt": "9"}, "(9:1="),
        ([{"role": "system", "content": "8"}, {"role": "user", "content": "1"}], {"system_prompt": "9"}, "(8:1="),
    ],
)
def test_the_chat_template(tmp_path, tokenizer, prompt, changes, text):
    path = write(tmp_path, {"prompt": prompt, "answer": "3"})
    (only,) = load("easy", path, config(**{"max_prompt_tokens": 20, **changes}), tokenizer).prompts
    assert only.text == text == tokenizer.decode(only.token_ids)


def test_an_overlong_prompt_is_named_or_dropped_and_counted(tmp_path, plain):
    path = write(tmp_path, *ROWS)
    message = refusal(path, config(max_prompt_tokens=5), plain)
    assert message.startswith(f"{path}, line 2: the prompt has 6 tokens, the limit is 5 (")
    loaded = load("easy", path, config(max_prompt_tokens=5, overlong_prompts="drop"), plain)
    assert [p.id for p in loaded.prompts] == ["easy:0"]
    assert (loaded.rows, loaded.dropped) == (2, 1)
    nothing_left = config(max_prompt_tokens=1, overlong_prompts="drop")
    assert refusal(path, nothing_left, plain) == f"{path}: all 2 prompts are longer than 1 tokens"


def test_rows_that_cannot_become_prompts(tmp_path, plain, tokenizer):
    path = write(tmp_path, {"prompt": "abc", "answer": "3"})
    assert refusal(path, config(), plain) == f"{path}, line 1: column 'prompt' has no tokens"
    path = write(tmp_path, {"promt": "1", "answer": "3"})
    assert refusal(path, config(), plain).startswith(f"{path}, line 1: there is no column 'prompt' (nearest: promt)")
    path = write(tmp_path, {"prompt": "1", "answer": "3"})
    assert "data.system_prompt needs data.chat_template=true" in refusal(path, config(system_prompt="9"), plain)
    tokenizer.chat_template = None
    assert "the tokenizer has none" in refusal(path, config(chat_template=True), tokenizer)
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    message = refusal(path, config(chat_template=True), tokenizer)
    assert message == f"{path}, line 1: the chat template refuses the prompt: roles must alternate"


def test_ids_are_those_that_the_model_has_rows_for(tmp_path):
    """Not those below the tokenizer's length: it may have more tokens than the model, and ids with gaps."""
    tokenizer = carry.make_tokenizer()
    tokenizer.add_tokens(["<tool>", "<call>"])  # 25 and 26
    rows = [ROWS[0], {"prompt": "1<tool>?", "answer": "3"}, {**ROWS[0], "golden_answer": "<call>"}]
    path = write(tmp_path, *rows)
    assert len(load_train(config(path), tokenizer, 27)["easy"].prompts) == 3
    for vocabulary, line, column, token_id in ((26, 3, "golden_answer", 26), (25, 2, "prompt", 25)):
        for loader in (load_train, load_eval):
            settings = config(path, eval={"easy": {"path": path, "max_rows": None}})
            with pytest.raises(UserError) as error:
                loader(settings, tokenizer, vocabulary)
            assert str(error.value) == (
                f"{path}, line {line}: column '{column}' has token id {token_id}, the model has {vocabulary} rows of "
                "embeddings (vocab_size of its config.json)"
            )
    gaps = carry.make_tokenizer()
    state = json.loads(gaps.backend_tokenizer.to_str())
    state["model"]["vocab"]["?"] = 40  # the tokenizer has 25 tokens all the same
    gaps = type(gaps)(tokenizer_object=type(gaps.backend_tokenizer).from_str(json.dumps(state)), eos_token="<eos>")
    (only,) = load_train(config(write(tmp_path, ROWS[0])), gaps, 41)["easy"].prompts
    assert only.token_ids[-1] == 40 and len(gaps) < 40


def test_a_tokenizer_without_an_end_token(tmp_path):
    tokenizer = carry.make_tokenizer()
    tokenizer.eos_token = None
    assert "no end-of-sequence token" in refusal(write(tmp_path, ROWS[0]), config(), tokenizer)


FAILING = {
    "{{ 1 + messages }}": "fails: TypeError: unsupported operand type(s) for +: 'int' and 'list'",
    "{% for %}": "refuses the prompt: TemplateSyntaxError: Expected an expression, got 'end of statement block'",
    "{{ messages[0].nothing.more }}": "refuses the prompt: UndefinedError: 'dict object' has no attribute 'nothing'",
    "{{ messages[0]['content'] | int / 0 }}": "fails: ZeroDivisionError: division by zero",
    "{{ raise_exception('one\nline') }}": "refuses the prompt: one line",
    "{{ strftime_now(1) }}": "fails: TypeError: ",
}


@pytest.mark.parametrize("template", FAILING)
def test_whatever_a_template_does_is_one_line(tmp_path, tokenizer, template):
    tokenizer.chat_template = template
    path = write(tmp_path, {"prompt": "1?", "answer": "3"})
    message = refusal(path, config(chat_template=True), tokenizer)
    assert message.startswith(f"{path}, line 1: the chat template {FAILING[template]}")


def named_templates(tmp_path, as_list=False, **templates):
    """A tokenizer as transformers reads it from a folder that has several templates."""
    saved = carry.make_tokenizer()
    saved.save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "chat_template.jinja").unlink()  # would go before
    place = tmp_path / "tokenizer" / "tokenizer_config.json"
    listed = [{"name": name, "template": text} for name, text in templates.items()]
    place.write_text(json.dumps(json.loads(place.read_text()) | {"chat_template": listed}))
    tokenizer = type(saved).from_pretrained(tmp_path / "tokenizer")
    assert tokenizer.chat_template == templates
    if as_list:
        tokenizer.chat_template = listed
    return tokenizer


@pytest.mark.parametrize("as_list", [False, True])
def test_several_named_templates(tmp_path, as_list):
    def chosen(name):
        return config(chat_template=True, chat_template_kwargs={"chat_template": name} if name else {})

    path = write(tmp_path, {"prompt": "1?", "answer": "3"})
    tokenizer = named_templates(tmp_path, as_list, default="1{{ messages[0].content }}", rag="2", tool_use="3")
    for name, text in ((None, "11?"), ("rag", "2"), ("{{ 4 }}", "4")):
        assert load("easy", path, chosen(name), tokenizer).prompts[0].text == text
    assert "chat_template=rga: there is no such template (nearest: rag); known: default, rag, tool_use" in refusal(
        path, chosen("rga"), tokenizer
    )
    tokenizer = named_templates(tmp_path, as_list, rag="2", tool_use="3")
    assert load("easy", path, chosen("rag"), tokenizer).prompts[0].text == "2"
    assert refusal(path, chosen(None), tokenizer) == (
        f"{path}, line 1: the tokenizer has 2 chat templates and none is the default; "
        "data.chat_template_kwargs={chat_template: NAME} chooses one of rag, tool_use"
    )


def test_a_name_for_the_only_template_is_not_its_text(tmp_path, tokenizer):
    settings = config(chat_template=True, chat_template_kwargs={"chat_template": "rag"})
    message = refusal(write(tmp_path, {"prompt": "1?", "answer": "3"}), settings, tokenizer)
    assert message.endswith("chat_template_kwargs.chat_template=rag: the tokenizer has one template, without a name")


def test_what_the_tokenizer_cannot_take_is_one_line(tmp_path, plain):
    settings = config(prompt_suffix="\udc80")  # as a command line in another encoding gives it
    path = write(tmp_path, ROWS[0])
    assert refusal(path, settings, plain).startswith(f"{path}, line 1: column 'prompt' cannot be made tokens: ")


def test_messages_in_a_text_are_read_as_messages(tmp_path, tokenizer):
    messages = [{"role": "system", "content": "8"}, {"role": "user", "content": "1"}]
    (only,) = load(
        "easy", write(tmp_path, {"prompt": json.dumps(messages), "answer": "3"}), config(), tokenizer
    ).prompts
    assert only.text == "(8:1="


def test_the_config_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="sytem_prompt"):
        config(sytem_prompt=None)
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        config(train={"easy": {"path": "x", "weight": -1}})


def test_a_source_of_weight_0_is_not_even_read(tmp_path, plain):
    path = write(tmp_path, ROWS[0])
    settings = config(train={"easy": {"path": path, "weight": 1}, "hard": {"path": "none.jsonl", "weight": 0}})
    assert list(load_train(settings, plain)) == ["easy"]


def test_a_list_of_answers_and_a_recognised_shape(tmp_path, plain):
    path = write(
        tmp_path, {"question": "1+2?", "answer": "1+2=<<1+2=3>>3\n#### 3"}, {"question": "1+3?", "answer": "4"}
    )
    keys = {"prompt": None, "answer": None, "golden_answer": None}
    loaded = load("easy", path, config(keys=keys), plain)
    first, second = loaded.prompts
    assert loaded.shape == "gsm8k"
    assert (first.answer, first.golden_text, second.answer, second.golden_text) == ("3", "1+2=3\n#### 3", "4", None)
    path = write(tmp_path, {"prompt": "1+2?", "answer": ["3", 3.0]})
    (only,) = load("easy", path, config(), plain).prompts
    assert (only.answer, only.other_answers) == ("3", ("3.0",))


def test_only_the_first_rows_keep_their_golden_answer(tmp_path, tokenizer):
    rows = [{"prompt": f"{i}+1?", "answer": i + 1, "golden_answer": f":{i + 1}"} for i in range(4)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for limit, expected in ((None, 4), (2, 2), (0, 0), (9, 4)):
        settings = config(train={"easy": {"path": str(path), "weight": 1, "max_golden_rows": limit}})
        loaded = load_train(settings, tokenizer)["easy"]
        assert [p.golden_ids is not None for p in loaded.prompts] == [i < expected for i in range(4)]
        assert loaded.with_golden == expected
    settings = config(train={"easy": {"path": str(path), "weight": 1, "max_rows": 3, "max_golden_rows": 2}})
    loaded = load_train(settings, tokenizer)["easy"]
    assert [p.text for p in loaded.prompts] == ["0+1?", "1+1?", "2+1?"] and loaded.with_golden == 2
