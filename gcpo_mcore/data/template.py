"""The tokenizer's chat template, which is a program from elsewhere: whatever it does, the user gets one line."""

from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from gcpo_mcore.base.errors import UserError, nearest
from gcpo_mcore.data.messages import Message
from gcpo_mcore.data.sound import said

CHOICE = "chat_template"  # of the template's settings: one of several by name, or the text of another


SAID = "An answer."  # that a template shows its frame around


@dataclass(frozen=True)
class Turn:
    """What a template writes before and behind an assistant's message: '' where it writes nothing, or cannot say."""

    opening: str
    closing: str


def assistant_turn(settings: dict[str, Any], tokenizer) -> Turn:
    """The frame of the assistant's answer to a user; the opening is that of a prompt."""
    asked: list[Message] = [{"role": "user", "content": "A question?"}]
    try:
        opened = apply_template("", asked, settings, tokenizer)
        question = apply_template("", asked, settings, tokenizer, with_opening=False)
        whole = apply_template(
            "", [*asked, {"role": "assistant", "content": SAID}], settings, tokenizer, with_opening=False
        )
    except UserError:  # a template for one message only
        return Turn("", "")
    _, found, closing = whole.rpartition(SAID)
    return Turn(opened.removeprefix(question) if opened.startswith(question) else "", closing if found else "")


def apply_template(
    where: str, messages: list[Message], settings: dict[str, Any], tokenizer, with_opening: bool = True
) -> str:
    """The messages as text, with the header of the assistant's turn (`with_opening`).

    Of several templates, the one that `settings` name, or else 'default'. UserError, beginning with `where`, if there
    is no template to take, or if it refuses the messages or fails.
    """
    chosen = _chosen(where, settings, tokenizer)
    kwargs: dict[str, Any] = {**settings, **chosen, "add_generation_prompt": with_opening, "tokenize": False}
    try:
        text = tokenizer.apply_chat_template(messages, **kwargs)
    except TemplateError as error:  # a template may refuse, for example, two user messages in a row
        raise UserError(f"{where}: the chat template refuses the prompt: {_words(error)}") from None
    except Exception as error:  # what a program may raise
        raise UserError(f"{where}: the chat template fails: {said(error)}") from None
    if not isinstance(text, str):
        raise UserError(f"{where}: the chat template gives no text but {type(text).__name__}")
    return text


def _words(error: TemplateError) -> str:
    """A template's own words; of one with a mistake in it, with its kind."""
    kind = f"{type(error).__name__}: "
    return said(error).removeprefix(kind) if type(error) is TemplateError else said(error)


def _chosen(where: str, settings: dict[str, Any], tokenizer) -> dict[str, str]:
    """What `settings` lack to choose the template."""
    own, asked = tokenizer.chat_template, settings.get(CHOICE)
    if not own and not asked:
        raise UserError(f"{where}: the prompt needs a chat template and the tokenizer has none")
    if not own or isinstance(own, str):
        if asked is not None and not _is_template(asked):
            raise UserError(f"{where}: {_setting(asked)}: the tokenizer has one template, without a name")
        return {}
    named = _by_name(own)
    if asked is None and "default" in named:
        return {} if isinstance(own, dict) else {CHOICE: named["default"]}
    if asked in named:
        return {CHOICE: named[asked]}
    if asked is None:
        raise UserError(
            f"{where}: the tokenizer has {len(named)} chat templates and none is the default; "
            f"data.chat_template_kwargs={{{CHOICE}: NAME}} chooses one of {', '.join(sorted(named))}"
        )
    if not _is_template(asked):  # transformers would take the name for the template's text
        raise UserError(
            f"{where}: {_setting(asked)}: there is no such template{nearest(str(asked), named)}; "
            f"known: {', '.join(sorted(named))}"
        )
    return {}


def _by_name(own: Any) -> dict[str, Any]:
    """Several templates by name: as transformers has them, or as tokenizer_config.json lists them."""
    if isinstance(own, dict):
        return own
    listed = own if isinstance(own, list | tuple) else []
    return {str(one.get("name")): one.get("template") for one in listed if isinstance(one, dict)}


def _setting(asked: Any) -> str:
    return f"chat_template_kwargs.{CHOICE}={asked}"


def _is_template(text: Any) -> bool:
    return isinstance(text, str) and ("{{" in text or "{%" in text)
