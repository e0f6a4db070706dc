"""The score that an HTTP server gives: a reward model, a sandbox that runs code, a verifier of another language.

Each answer is one POST of {"prompt", "response", "reference", "other_references", "columns", "truncated",
"response_tokens"}; the reply is {"score": number}. Behind the pool's deadline there are two lines of defence: a
request that fails in passing (no connection, status 429 or 5xx, time-out) is tried again after a pause, and after
`failures_to_open` answers that failed in a row the circuit opens: for `open_s` seconds answers fail at once, so that a
dead server costs its deadline a few times and not once per answer. Then one answer tries it again.

A failure raises: the sample is counted as grading/errors and gets `failed_score`.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from pydantic import HttpUrl, NonNegativeFloat, PositiveFloat, PositiveInt, PrivateAttr

from gcpo_mcore.base.config import Config, Free
from gcpo_mcore.base.http_json import HttpFailure, post, with_retries
from gcpo_mcore.base.registry import rewards
from gcpo_mcore.rewarding.answer import Answer
from gcpo_mcore.rewarding.encoding import encodable


@rewards.register
class Remote(Config):
    """url               where the answers go
    timeout_s         of one attempt
    attempts          tries for one answer, the first included
    backoff_s         pause before the second try; doubles with each further one
    parallel          requests under way at a time, of each worker process
    failures_to_open  answers that fail in a row until the circuit opens; each worker process counts for itself
    open_s            how long it stays open
    columns           the data columns to send; null: all that JSON can hold (rewarding/encoding.py says how)

    All but `columns` are free: where the server is and how it is reached.
    """

    needs_network: ClassVar[bool] = True

    url: Free[HttpUrl]
    timeout_s: Free[PositiveFloat]
    attempts: Free[PositiveInt]
    backoff_s: Free[NonNegativeFloat]
    parallel: Free[PositiveInt]
    failures_to_open: Free[PositiveInt]
    open_s: Free[NonNegativeFloat]
    columns: tuple[str, ...] | None

    _failures: int = PrivateAttr(default=0)
    _closed_again: float = PrivateAttr(default=0.0)  # time.monotonic()
    _threads: ThreadPoolExecutor | None = PrivateAttr(default=None)

    @property
    def worst_case_s(self) -> float:
        """Every attempt times out, with all pauses between."""
        return self.attempts * self.timeout_s + self.backoff_s * (2 ** (self.attempts - 1) - 1)

    async def __call__(self, answers: list[Answer]) -> list[float]:
        self._threads = self._threads or ThreadPoolExecutor(self.parallel, "remote reward")
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(self._threads, self._score, a) for a in answers))

    def _score(self, answer: Answer) -> float:
        if time.monotonic() < self._closed_again:
            raise ConnectionError(f"{self.url}: not asked, after {self._failures} failures in a row")
        try:
            reply = with_retries(lambda: self._ask(answer), self.attempts, self.backoff_s, longest_wait_s=self._pause())
        except HttpFailure:
            self._failures += 1
            if self._failures >= self.failures_to_open:
                self._closed_again = time.monotonic() + self.open_s
            raise
        self._failures = 0
        score = reply.get("score") if isinstance(reply, dict) else None
        if isinstance(score, bool) or not isinstance(score, int | float):
            raise ValueError(f"{self.url}: the reply has no number 'score': {str(reply)[:80]}")
        return float(score)

    def _ask(self, answer: Answer):
        payload = {
            "prompt": answer.prompt_text,
            "response": answer.response_text,
            "reference": answer.reference,
            "other_references": answer.other_references,
            "columns": encodable(answer.columns, self.columns),
            "truncated": answer.truncated,
            "response_tokens": answer.response_tokens,
        }
        return post(str(self.url), payload, self.timeout_s)

    def _pause(self) -> float:
        """The longest of the pauses that worst_case_s counts: a server cannot ask for more."""
        return self.backoff_s * 2 ** max(0, self.attempts - 2)
