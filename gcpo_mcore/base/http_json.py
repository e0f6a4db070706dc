"""JSON over HTTP with retries: what the remote reward, the golden answers' teacher and SGLang's control share."""

import http.client
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")
MAX_REPLY_BYTES = 64 * 2**20
LOOPBACK = ("127.0.0.1", "localhost", "::1")
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy knows nothing of this machine's own
PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses after which another try may succeed


class HttpFailure(Exception):
    """No usable reply. `passing`: another try may succeed; `wait_s`: the server asked to wait so long; `status`: its
    HTTP status, 0 if there was none."""

    def __init__(self, message: str, passing: bool, wait_s: float = 0.0, status: int = 0):
        super().__init__(message)
        self.passing, self.wait_s, self.status = passing, wait_s, status


def post(
    url: str, payload: Any, timeout_s: float, headers: Mapping[str, str] | None = None, may_be_empty: bool = False
) -> Any:
    """The decoded JSON reply. HttpFailure for no connection, a time-out, a status above 299, or no JSON.

    may_be_empty: a reply that is no JSON counts as None.
    """
    request = urllib.request.Request(
        url, json.dumps(payload).encode(), {"Content-Type": "application/json", **(headers or {})}, method="POST"
    )
    return _ask(request, timeout_s, may_be_empty)


def get(url: str, timeout_s: float, headers: Mapping[str, str] | None = None, may_be_empty: bool = False) -> Any:
    """As `post`, with GET."""
    return _ask(urllib.request.Request(url, headers=dict(headers or {})), timeout_s, may_be_empty)


def delete(url: str, timeout_s: float, headers: Mapping[str, str] | None = None, may_be_empty: bool = False) -> Any:
    """As `post`, with DELETE."""
    return _ask(urllib.request.Request(url, headers=dict(headers or {}), method="DELETE"), timeout_s, may_be_empty)


def _ask(request: urllib.request.Request, timeout_s: float, may_be_empty: bool) -> Any:
    url = request.full_url
    try:
        open_ = DIRECT.open if urlsplit(url).hostname in LOOPBACK else urllib.request.urlopen
        with open_(request, timeout=timeout_s) as reply:
            body = reply.read(MAX_REPLY_BYTES)
    except urllib.error.HTTPError as error:
        with error:
            said = " ".join(error.read(300).decode(errors="replace").split())
        wait = error.headers.get("Retry-After", "")
        raise HttpFailure(
            f"{url}: status {error.code} {said}",
            passing=error.code in PASSING,
            wait_s=float(wait) if wait.isdecimal() else 0.0,
            status=error.code,
        ) from None
    except (OSError, http.client.HTTPException) as error:  # URLError and time-outs are OSErrors
        raise HttpFailure(f"{url}: {getattr(error, 'reason', None) or error or type(error).__name__}", True) from None
    try:
        return json.loads(body)
    except ValueError:
        if may_be_empty:
            return None
        raise HttpFailure(f"{url}: the reply is not JSON: {body[:80]!r}", False) from None


def with_retries(call: Callable[[], T], attempts: int, backoff_s: float, longest_wait_s: float) -> T:
    """call(), again after a passing failure, up to `attempts` times in all; the last HttpFailure otherwise.

    It waits `backoff_s`, then twice that and so on, or as long as the server asked for; never above `longest_wait_s`.
    """
    for attempt in range(attempts):
        try:
            return call()
        except HttpFailure as failure:
            if not failure.passing or attempt == attempts - 1:
                raise
            time.sleep(min(longest_wait_s, max(backoff_s * 2**attempt, failure.wait_s)))
    raise ValueError("attempts must be at least 1")


def own_address(towards: str, port: int) -> str:
    """This machine's address as the host `towards` sees it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect((towards, port))  # sends nothing
        return s.getsockname()[0]
