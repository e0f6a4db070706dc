"""A prompt that is a list of messages {role, content}: what it may be, and how it is told from text.

csv files, and parquet files made from them, hold such lists as text. A model that is given it as it stands learns to
answer JSON.
"""

import json
import re
from typing import Any

from gcpo_mcore.base.errors import nearest
from gcpo_mcore.data.sound import Fault, from_json, problem_of, shown

Message = dict[str, Any]
ROLES = ("system", "user", "assistant", "tool")
# Text that as a whole is a list or an object, also as Python or numpy print one, or once more in quotes.
_WHOLE = re.compile(r"""[\s"'(]*(array\s*\()?\s*[\[{].*[\]}][\s"',)]*(dtype=object\s*\)\s*)?""", re.DOTALL)
_BEGINS = re.compile(r"""[\s"'(]*(array\s*\()?\s*\[\s*\{\s*\\*["'](role|content|from|value)\\*["']\s*:""")
_ROLE = re.compile(r"""\\*["'](role|from)\\*["']\s*:""")
_CONTENT = re.compile(r"""\\*["'](content|value)\\*["']\s*:""")
OTHER_FORM = (
    "is text that holds messages, but not as a JSON list of {role, content}; store them as one, or as a list "
    '(a question about such a text is the content of a message: [{"role": "user", "content": TEXT}])'
)


def messages_in(text: str) -> list[Any] | Fault | None:
    """The messages that a text is the JSON of; a Fault if it holds messages in another form; None for other text."""
    if not (_ROLE.search(text) and _CONTENT.search(text)):
        return None
    if not (_WHOLE.fullmatch(text) or _BEGINS.match(text)):
        return None
    try:
        found = from_json(text)
    except json.JSONDecodeError:
        return Fault(OTHER_FORM)
    if problem := problem_of(found):
        return Fault(problem)
    is_list = isinstance(found, list) and all(isinstance(one, dict) and "role" in one for one in found)
    return found if is_list and found else Fault(OTHER_FORM)


def problem_in_messages(messages: list[Any]) -> str | None:
    """Why a chat template cannot make a prompt of them, in words; None if it can."""
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or not all(isinstance(message.get(k), str) for k in ("role", "content")):
            return f"message {i} must have strings 'role' and 'content'"
        role = message["role"]
        if role not in ROLES:
            return f"message {i} has the role '{shown(role)}'{nearest(role, ROLES)}; known: {', '.join(ROLES)}"
        if not message["content"].strip() and not message.get("tool_calls"):
            return f"message {i} ({role}) is blank"
        if i and role == "assistant" == messages[i - 1]["role"]:
            return f"messages {i - 1} and {i} are both the assistant's"
    if messages[-1]["role"] == "assistant":
        return "the last message is the assistant's; a prompt must end before"
    return None
