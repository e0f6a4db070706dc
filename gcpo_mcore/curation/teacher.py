"""A language model behind an OpenAI-compatible server (SGLang, vLLM, a service), asked for worked solutions."""

import threading
import time
from dataclasses import dataclass, field

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.http_json import HttpFailure, post, with_retries
from gcpo_mcore.data.files import Message

ATTEMPTS, BACKOFF_S, LONGEST_WAIT_S = 6, 1.0, 60.0  # over two minutes for a server that restarts
REFUSALS = (400, 413, 422)  # of this one prompt, too long for example; the next may be taken


@dataclass
class Teacher:
    """A teacher behind `url`, the base with /v1. `requests_per_minute` 0: no limit. Safe to use from several threads.

    api_key         sent as a bearer token, or None
    max_tokens      of one solution; one that reaches it is thrown away
    requests_per_minute  starts of requests, tries included, are at least 60 s / this apart
    """

    url: str
    model: str
    temperature: float
    max_tokens: int
    timeout_s: float
    requests_per_minute: float
    api_key: str | None = None
    refusals: list[str] = field(default_factory=list)

    def __post_init__(self):
        self._lock = threading.Lock()
        self._next_start = 0.0  # time.monotonic()

    def solve(self, messages: list[Message], tries: int) -> list[str]:
        """The whole solutions out of `tries`; [] if the server refuses this prompt, which is put into `refusals`.

        UserError if the server cannot be reached, does not know the key or the model, or answers in another form.
        """
        try:
            solutions = [self._ask(messages, seed) for seed in range(tries)]
        except HttpFailure as failure:
            if failure.status not in REFUSALS:
                raise UserError(f"teacher {failure}") from None
            self.refusals.append(str(failure))
            return []
        return [s for s in solutions if s]

    def _ask(self, messages: list[Message], seed: int) -> str | None:
        """One solution; None if it is empty or was cut off."""
        payload = {
            "model": self.model,
            "messages": messages,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": seed,  # so that a server which starts each request alike still gives different tries
        }
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else None
        url = f"{self.url.rstrip('/')}/chat/completions"

        def once():
            self._wait_for_turn()
            return post(url, payload, self.timeout_s, headers)

        reply = with_retries(once, ATTEMPTS, BACKOFF_S, LONGEST_WAIT_S)
        try:
            (choice,) = reply["choices"]
            text, ended = choice["message"]["content"], choice["finish_reason"] != "length"
        except (KeyError, TypeError, ValueError):
            raise UserError(f"teacher {url}: not an OpenAI chat completion: {str(reply)[:120]}") from None
        return text.strip() if ended and isinstance(text, str) and text.strip() else None

    def _wait_for_turn(self) -> None:
        if not self.requests_per_minute:
            return
        with self._lock:
            start = max(time.monotonic(), self._next_start)
            self._next_start = start + 60.0 / self.requests_per_minute
        time.sleep(max(0.0, start - time.monotonic()))
