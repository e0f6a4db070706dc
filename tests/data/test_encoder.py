"""Text -> token ids: one begin token, no end token behind a prompt, one behind a golden answer."""

import pytest
from transformers import PreTrainedTokenizerFast

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.data.encoder import Encoder
from tests.chats import BOS, CHATML, EOS, chat_tokenizer

START, END, THINK, NO_THINK = 25, 26, 27, 28  # of chat_tokenizer
ASKED = [{"role": "user", "content": "1+1?"}]


def ids_of(text):
    return chat_tokenizer().encode(text)


def plain(text, **knobs):
    return Encoder(chat_tokenizer(**knobs)).plain("f, line 1", "prompt", text).ids


def refusal(call, *args):
    with pytest.raises(UserError) as error:
        call("f, line 1", "golden_answer", *args)
    assert str(error.value).startswith("f, line 1: column 'golden_answer' ") and "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("around", ["<bos> $A", "<bos> $A <eos>"])
@pytest.mark.parametrize("text", ["1+1?", "<bos>1+1?", "<bos><bos>1+1?"])
def test_a_plain_prompt_has_one_begin_token_and_no_end(around, text):
    assert plain(text, around=around) == [BOS, *ids_of("1+1?")]


def test_a_tokenizer_that_adds_only_the_end_or_nothing():
    assert plain("1+1?", around="$A <eos>") == plain("1+1?") == ids_of("1+1?")
    assert plain("<bos>1+1?") == [BOS, *ids_of("1+1?")]  # as it is written


@pytest.mark.parametrize("around", [None, "<bos> $A", "<bos> $A <eos>"])
@pytest.mark.parametrize("content", ["1+1?", "<bos>1+1?"])
def test_a_template_that_writes_the_begin_token(around, content):
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    encoder = Encoder(chat_tokenizer(template=template, around=around))
    assert encoder.chat("f", "prompt", [{"role": "user", "content": content}], {}).ids == [BOS, *ids_of("1+1?")]


def test_a_prompt_that_ends_is_refused():
    assert "ends with the token <eos> (2), which ends a response" in refusal(
        Encoder(chat_tokenizer()).plain, "1+1?<eos>"
    )
    closed = Encoder(
        chat_tokenizer(template="{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"), None, [END]
    )
    assert "ends with the token <|im_end|> (26)" in refusal(closed.chat, ASKED, {})
    assert "has no tokens" in refusal(Encoder(chat_tokenizer(around="<bos> $A")).plain, "abc")
    four = chat_tokenizer().convert_tokens_to_ids("4")  # a word may end a response and a prompt
    assert Encoder(chat_tokenizer(), None, [four]).plain("f", "prompt", "4").ids == [four]


def test_a_header_that_is_an_end_token_itself_is_no_end():
    """As of chat models that list the assistant's marker among the tokens that end a response."""
    template = "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|im_end|>{% endif %}"
    ids = Encoder(chat_tokenizer(template=template), None, [END]).chat("f", "prompt", ASKED, {}).ids
    assert ids == [*ids_of("1+1?"), END]


def golden(text, prompt="1+1?", settings=None, end_ids=(EOS, END), **knobs):
    return Encoder(chat_tokenizer(**knobs), None, end_ids).golden("f", "golden_answer", text, prompt, settings)


@pytest.mark.parametrize("written", ["1:2", "1:2<eos>", "1:2<eos>\n", "1:2<|im_end|>", "1:2<|im_end|>\n<eos><pad>"])
def test_a_golden_answer_has_one_end_token(written):
    for around in (None, "<bos> $A <eos>"):
        made = golden(written, around=around)
        assert (made.text, made.ids) == ("1:2", [*ids_of("1:2"), EOS])
        made = golden(written, settings={}, around=around)  # the template closes turns with another
        assert (made.text, made.ids) == ("1:2", [*ids_of("1:2"), END])


def test_the_closing_token_counts_only_if_it_ends_responses():
    assert golden("1:2", settings={}, end_ids=()).ids[-1] == EOS
    assert golden("1:2", settings={}, template="{{ raise_exception('no') }}").ids[-1] == EOS


def test_a_golden_answer_that_is_the_whole_turn():
    made = golden("<|im_start|>)1:2<|im_end|>\n", settings={})
    assert (made.text, made.ids) == ("1:2", [*ids_of("1:2"), END])


@pytest.mark.parametrize("opened", ["<think>", "<think>\n", "<think>\n</think>\n"])
def test_thinking_that_the_prompt_opens_is_not_opened_again(opened):
    encoder, settings = Encoder(chat_tokenizer(), None, [END]), {"opened": opened}
    prompt = encoder.chat("f", "prompt", ASKED, settings).text
    assert prompt.endswith(opened)
    for written in (f"{opened}3</think>:2", f"<|im_start|>){opened}3</think>:2<|im_end|>", "3</think>:2"):
        made = encoder.golden("f", "golden_answer", written, prompt, settings)
        assert (made.text, made.ids) == ("3</think>:2", [*ids_of("3</think>:2"), END])
    assert golden("<think>3</think>:2", settings={}).ids == [*ids_of("<think>3</think>:2"), END]


def test_thinking_that_a_plain_prompt_opens():
    assert golden("<think>3</think>:2", prompt="1?\n<think>\n").text == "3</think>:2"
    assert golden("<think>3</think>:2", prompt="in <think> and </think>?").text == "<think>3</think>:2"


@pytest.mark.parametrize("written", ["1<eos>:2", "<bos>1:2", "1<|im_end|>\n<|im_start|>(3", "1:2<pad>3<eos>"])
def test_a_golden_answer_with_a_frame_inside_is_refused(written):
    encoder = Encoder(chat_tokenizer(), None, [END])
    assert "inside, which no response goes on after" in refusal(encoder.golden, written, "1+1?", None)


def test_a_golden_answer_of_nothing_but_frame():
    encoder = Encoder(chat_tokenizer())
    assert "no tokens but those that frame" in refusal(encoder.golden, "<eos>", "1+1?", None)


def test_ids_beyond_the_models_rows():
    encoder = Encoder(chat_tokenizer(), THINK, [END])
    assert "token id 27, the model has 27 rows" in refusal(encoder.plain, "1<think>?")
    assert "token id 28" in refusal(encoder.golden, "1</think>:2", "1+1?", None)
    assert "<|im_start|>" in CHATML and encoder.chat("f", "prompt", ASKED, {}).ids[0] == START


class Shouting(PreTrainedTokenizerFast):
    """A class with a rule of its own."""

    def _encode_plus(self, text, *args, **kwargs):
        return super()._encode_plus(text.replace("?", "=?"), *args, **kwargs)


def test_ids_are_those_of_the_tokenizer_s_class_and_not_what_another_call_left():
    texts = ["1+1?", "<bos>1<eos>2", "<|im_start|>12<|im_end|>", " 7 \n8", "é0"]
    known = chat_tokenizer()
    encoder = Encoder(chat_tokenizer())
    assert [encoder._encode(text) for text in texts] == [known.encode(t, add_special_tokens=False) for t in texts]
    encoder.tokenizer(["1", "1+1?"], padding="max_length", truncation=True, max_length=3)
    assert encoder._encode("1+1?3") == ids_of("1+1?3")
    shouting = Shouting(tokenizer_object=chat_tokenizer().backend_tokenizer, eos_token="<eos>")
    assert Encoder(shouting).plain("f", "prompt", "1+1?").ids == ids_of("1+1=?")
