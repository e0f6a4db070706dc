"""Which tokens end a response, and what of a response is text."""

import json

import pytest

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.hf.special_tokens import decoder, end_tokens, frame_tokens
from tests.chats import EOS, chat_tokenizer

ROWS = 40


def folder(path, generation=None, config=None):
    for name, value in (("generation_config.json", generation), ("config.json", config)):
        if value is not None:
            (path / name).write_text(json.dumps(value))
    return str(path)


@pytest.mark.parametrize(
    ("generation", "config", "extra", "expected"),
    [
        (None, None, [], [EOS]),
        ({}, {}, [], [EOS]),
        ({"eos_token_id": None}, {"eos_token_id": EOS}, [], [EOS]),
        ({"eos_token_id": [EOS, 26]}, {"eos_token_id": 26}, [], [EOS, 26]),
        ({"eos_token_id": 26}, {"eos_token_id": [3, 27]}, [8], [EOS, 3, 8, 26, 27]),
    ],
)
def test_the_union_of_all_places(tmp_path, generation, config, extra, expected):
    found = end_tokens(folder(tmp_path, generation, config), chat_tokenizer(), ROWS, extra)
    assert found.ids == expected


def test_each_is_said_with_its_places(tmp_path):
    place = folder(tmp_path, {"eos_token_id": [EOS, 26]}, {"eos_token_id": 26})
    said = str(end_tokens(place, chat_tokenizer(), ROWS, [8]))
    assert said == (
        "2 <eos> (tokenizer, generation_config.json); 8 4 (rollout.stop_token_ids); "
        "26 <|im_end|> (generation_config.json, config.json)"
    )


@pytest.mark.parametrize(
    ("generation", "extra", "message"),
    [
        (
            {"eos_token_id": [2, 40]},
            [],
            "generation_config.json: eos_token_id: token 40 cannot end a response, the model",
        ),
        ({"eos_token_id": -1}, [], "generation_config.json: eos_token_id: token -1 cannot end"),
        ({"eos_token_id": ["2"]}, [], "generation_config.json: eos_token_id is ['2']; it has to be a token's id or"),
        ({"eos_token_id": True}, [], "eos_token_id is True"),
        ({"eos_token_id": 2.0}, [], "eos_token_id is 2.0"),
        ({}, [40], "rollout.stop_token_ids: token 40 cannot end a response, the model has only 40 rows"),
    ],
)
def test_what_no_model_can_end_with(tmp_path, generation, extra, message):
    with pytest.raises(UserError) as error:
        end_tokens(folder(tmp_path, generation), chat_tokenizer(), ROWS, extra)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_damaged_file(tmp_path):
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(UserError, match=r"generation_config\.json: not valid json"):
        end_tokens(str(tmp_path), chat_tokenizer(), ROWS)


TAGS = (
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "<|begin_of_thought|>",
    "<|end_of_thought|>",
    "[THINK]",
    "[/THINK]",
)
MARKERS = ("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|eot_id|>", "[INST]", "[/INST]", "<start_of_turn>")


@pytest.mark.parametrize("template", [None, "{{ messages[0].content }}", "{{ raise_exception('no') }}"])
def test_rewards_see_the_tags_and_not_the_frame(template):
    tokenizer = chat_tokenizer((*TAGS, *MARKERS, "<step>"), template)
    decode = decoder(tokenizer, [])
    for text in (*TAGS, "<step>", "<unk>"):
        assert decode(tokenizer.encode(f"1{text}2")) == f"1{text}2"
    for text in (*MARKERS, "<pad>", "<bos>", "<eos>"):
        assert decode(tokenizer.encode(f"1{text}2")) == "12"


def test_what_the_template_writes_around_messages_is_frame():
    template = (
        "{% for m in messages %}<|q|>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|r|><think><step>{% endif %}"
    )
    tokenizer = chat_tokenizer(("<|q|>", "<|r|>", "<think>", "</think>", "<step>", "</step>", "<other>"), template)
    decode = decoder(tokenizer, [])
    text = "<|q|>1<|r|><think>2<step>3</step></think><other>"
    assert decode(tokenizer.encode(text)) == "1<think>2<step>3</step></think><other>"


def test_a_word_that_ends_responses_stays_in_the_text():
    tokenizer = chat_tokenizer()
    four = tokenizer.convert_tokens_to_ids("4")
    assert decoder(tokenizer, [four, 26])(tokenizer.encode("3+4<|im_end|>")) == "3+4"
    assert four not in frame_tokens(tokenizer, [four])
