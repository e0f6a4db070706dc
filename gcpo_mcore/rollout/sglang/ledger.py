"""What of a dispatch's requests is asked of whom, answered, begun, and to be asked again; no I/O, no clock.

Every request is with one server at a time, and is answered once.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from gcpo_mcore.rollout.engine import Request
from gcpo_mcore.rollout.sglang.backlog import Backlog
from gcpo_mcore.samples import Sample


class RequestLedger:
    """Requests go by their number in `requests`, servers by their address in `urls`.

    slots           how many requests a server takes on at once
    prompts_wanted  when all requests of so many prompts are answered, the rest need no answer
    samples         the answers so far
    begun           the tokens that requests have already, of those that are not whole
    sent_again      how many requests had to go out once more
    is_paused       nothing is handed out any more; true once `pause` was called
    """

    def __init__(
        self,
        requests: Sequence[Request],
        urls: Sequence[str],
        slots: int,
        prompts_wanted: int,
        begun: Mapping[int, Sample] | None = None,
    ):
        self.requests = requests
        self.samples: dict[int, Sample] = {}
        self.begun = dict(begun or {})
        self.sent_again = 0
        self.is_paused = False
        self._slots = slots
        self._prompts_wanted = prompts_wanted
        self._backlog = Backlog(requests, urls)
        self._under_way: dict[str, list[int]] = {url: [] for url in urls}
        self._serving = list(urls)
        self._unanswered = Counter(request.prompt.id for request in requests)  # requests by prompt
        self._tries: Counter[int] = Counter()
        self._failures: Counter[str] = Counter()  # of a server, since its last answer

    # --- what there is to know ---------------------------------------------------------------------------------

    @property
    def is_done(self) -> bool:
        """Whether as many prompts as are wanted have all their samples."""
        return self._prompts_wanted <= 0

    @property
    def is_ending(self) -> bool:
        """Whether what is under way need not go out again: it is done, or paused."""
        return self.is_done or self.is_paused

    def has_waiting(self, url: str) -> bool:
        """Whether requests wait for the server."""
        return self._backlog.has_for(url)

    def tries(self, number: int) -> int:
        """How often the request was handed out."""
        return self._tries[number]

    def failures_in_a_row(self, url: str) -> int:
        """How many of the server's replies were no answers since its last answer."""
        return self._failures[url]

    # --- what happens ------------------------------------------------------------------------------------------

    def hand_out(self, url: str) -> int | None:
        """A request for the server, which is under way from now on; None if it is to have none now."""
        full = [one for one, numbers in self._under_way.items() if len(numbers) >= self._slots]
        if self.is_paused or url in full:
            return None
        number = self._backlog.next(url, self._serving, full)
        if number is not None:
            self._under_way[url].append(number)
            self._tries[number] += 1
        return number

    def answer(self, url: str, number: int, sample: Sample) -> None:
        """The server has answered the request."""
        self._under_way[url].remove(number)
        self._failures[url] = 0
        self.samples[number] = sample
        prompt = self.requests[number].prompt.id
        self._unanswered[prompt] -= 1
        if not self._unanswered[prompt]:
            self._prompts_wanted -= 1

    def fail(self, url: str, number: int) -> None:
        """The server's reply was no answer: the request waits again, for another server if there is one."""
        self._under_way[url].remove(number)
        self._failures[url] += 1
        self._backlog.failed(number, url)
        self._put_back([number])

    def call_off(self, url: str) -> None:
        """What the server has under way waits again."""
        numbers, self._under_way[url] = self._under_way[url], []
        self._put_back(numbers)

    def lose(self, url: str) -> None:
        """The server is given up: what waits for it is anybody's."""
        self._serving.remove(url)

    def pause(self) -> None:
        """Nothing is handed out any more."""
        self.is_paused = True

    def _put_back(self, numbers: list[int]) -> None:
        self.sent_again += 0 if self.is_ending else len(numbers)
        self._backlog.put_back(numbers)
