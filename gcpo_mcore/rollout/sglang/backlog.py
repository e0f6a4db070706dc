"""Which request goes to which server next: no input, no output, no clock.

Requests of a prompt wait together for one server, whose cache then holds the prompt. A server that has none of its own
left helps where most wait, if that one is full or lost. A server that failed a request gets it again only if all did.
"""

from collections import defaultdict, deque
from collections.abc import Collection, Sequence

from gcpo_mcore.rollout.engine import Request


class Backlog:
    """The numbers of the requests that nobody is asked at the moment; each is handed out once, until it is put back."""

    def __init__(self, requests: Sequence[Request], urls: Sequence[str]):
        self._waiting: dict[str, deque[int]] = {url: deque() for url in urls}
        self._failed_at: defaultdict[int, set[str]] = defaultdict(set)  # request -> servers
        dealt: dict[str, str] = {}  # prompt -> server, in turn
        for number, request in enumerate(requests):
            url = dealt.setdefault(request.prompt.id, urls[len(dealt) % len(urls)])
            self._waiting[url].append(number)

    def next(self, url: str, serving: Collection[str], full: Collection[str]) -> int | None:
        """The next request for the server at `url`; None if it is to have none of what waits.

        `serving`: the servers that are not lost; `full`: those that can take on no more.
        """
        for owner, waiting in sorted(self._waiting.items(), key=lambda queue: (queue[0] != url, -len(queue[1]))):
            is_free = owner == url or owner not in serving or owner in full
            if not is_free and not self._failed_at:
                continue
            for number in waiting:
                if self._may_ask(url, number, serving) and (is_free or not self._may_ask(owner, number, serving)):
                    waiting.remove(number)
                    return number
        return None

    def has_for(self, url: str) -> bool:
        """Whether requests wait for that server."""
        return bool(self._waiting[url])

    def put_back(self, numbers: list[int]) -> None:
        """These wait again, before all others."""
        min(self._waiting.values(), key=len).extendleft(reversed(numbers))

    def failed(self, number: int, url: str) -> None:
        """The server did not answer the request as it should."""
        self._failed_at[number].add(url)

    def _may_ask(self, url: str, number: int, serving: Collection[str]) -> bool:
        better = set(serving) - self._failed_at.get(number, set())
        return url in better or not better
