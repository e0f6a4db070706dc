"""One SGLang server's HTTP interface, versions 0.5.17 to 0.5.23. Every call has a deadline."""

import contextlib
import logging
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.http_json import LOOPBACK, HttpFailure, get, post

FIRST_KNOWN, LAST_KNOWN = (0, 5, 17), (0, 5, 23)
FIRST_WITH_UPDATE_SESSION = (0, 5, 21)  # tensor and distributed updates stand between begin and end since then
FIRST_WITH_CPU_CHECKSUMS = (0, 5, 23)  # before it, a server sums its weights on CUDA only

UNAUTHORISED = 401  # the HTTP status
MEMORY = ("kv_cache", "weights", "cuda_graph")  # the tags of what a server can give back of a GPU

log = logging.getLogger(__name__)


def is_local(url: str) -> bool:
    """Whether an address is one of this machine only."""
    return urlsplit(url).hostname in LOOPBACK


class ServerLost(Exception):
    """A server did not do what it was asked; the text says what and why. `server`: which, if that is known."""

    def __init__(self, message: str, server: "Server | None" = None):
        super().__init__(message)
        self.server = server


@dataclass(frozen=True)
class ServerInfo:
    """What a server says of itself.

    release          SGLang's version as it words it
    tensor_parallel  GPUs that the model is spread over
    device           'cuda' or 'cpu'
    """

    release: str
    tensor_parallel: int
    device: str

    @property
    def version(self) -> tuple[int, ...]:
        """The release's first three numbers."""
        return tuple(int(number) for number in re.findall(r"\d+", self.release)[:3])

    @property
    def has_update_session(self) -> bool:
        """Whether an update of tensors stands between a begin and an end."""
        return self.version >= FIRST_WITH_UPDATE_SESSION

    @property
    def can_sum_weights(self) -> bool:
        """Whether it answers `Server.checksums`."""
        return self.device != "cpu" or self.version >= FIRST_WITH_CPU_CHECKSUMS

    @property
    def keeps_parameters_on_one_cpu(self) -> bool:
        """Whether its checksums can be told from the parameters' bytes."""
        return self.device == "cpu" and self.tensor_parallel == 1


class Server:
    """An address and what is known of the server behind it. `first_rank`: the run's rank on its first GPU; None if it
    has GPUs of its own. `key`: what it wants to hear before it does anything, if it does."""

    def __init__(self, url: str, deadline_s: float, first_rank: int | None = None, key: str | None = None):
        self.url, self.deadline_s, self.first_rank = url.rstrip("/"), deadline_s, first_rank
        self.key, self.headers = key, {"Authorization": f"Bearer {key}"} if key else {}
        self.losses = 0  # how often it was given up
        self.is_updating = False
        self.adapter: str | None = None  # the name of the one that it has
        self.released: set[str] = set()  # of MEMORY, what it gave back and did not get again
        self._info: ServerInfo | None = None

    @property
    def is_local(self) -> bool:
        """Whether its address is one of this machine only."""
        return is_local(self.url)

    @property
    def place(self) -> tuple[str, int]:
        """Host and port; a port that the address does not name is 80."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 80

    def __repr__(self) -> str:
        return self.url

    def call(self, path: str, payload: dict[str, Any] | None = None) -> Any:
        """The reply to a control request. ServerLost if there is none, or if it reports a failure."""
        try:
            reply = post(self.url + path, payload or {}, self.deadline_s, self.headers, may_be_empty=True)
        except HttpFailure as failure:
            raise self._lost(failure) from None
        if isinstance(reply, dict) and reply.get("success") is False:
            said = reply.get("message") or reply.get("error_message") or reply
            raise ServerLost(f"{self.url}{path}: {said}", self)
        return reply

    def _read(self, path: str, older_path: str) -> dict[str, Any]:
        try:
            return get(self.url + path, self.deadline_s, self.headers)
        except HttpFailure as failure:
            if failure.status != 404 or path == older_path:
                raise self._lost(failure) from None
        return self._read(older_path, older_path)

    def _lost(self, failure: HttpFailure) -> Exception:
        """A ServerLost; a UserError where it wants a key that it does not get: it will not change its mind."""
        if failure.status == UNAUTHORISED:
            return UserError(f"rollout: {failure}: it wants an API key, or another one (rollout.api_key_variable)")
        return ServerLost(str(failure), self)

    def is_up(self, timeout_s: float) -> bool:
        """Whether it can generate now. One that has released memory is only asked for its settings: the health check
        runs a forward pass, which would kill it."""
        path = "/server_info" if self.released else "/health_generate"
        try:
            get(self.url + path, timeout_s, self.headers, may_be_empty=True)
        except HttpFailure:
            return False
        return True

    def info(self) -> ServerInfo:
        """What the server behind the address is, asked once until it is given up. UserError for one older than
        0.5.17."""
        if self._info is None:
            self._info = self._ask_info()
        return self._info

    def _ask_info(self) -> ServerInfo:
        told = self._read("/server_info", "/get_server_info")
        info = ServerInfo(str(told.get("version", "0")), int(told.get("tp_size") or 1), str(told.get("device")))
        if info.version < FIRST_KNOWN:
            raise UserError(f"{self.url} is SGLang {info.release}; at least 0.5.17 is needed")
        if info.version > LAST_KNOWN:
            log.warning("rollout: %s is SGLang %s; 0.5.17 to 0.5.23 are known", self.url, info.release)
        return info

    # --- memory ------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Returns when it has nothing under way; its cache is empty then. ServerLost if it does not come to an end.

        Only then can it release memory or be given weights: a busy one would die of it. That every request has its
        reply is not enough, as a scheduler may run a step more.
        """
        self.call(f"/flush_cache?timeout={self.deadline_s / 2:g}")

    def release(self) -> None:
        """It gives back its memory of the GPU, weights and all, but for what it gave back before."""
        if tags := [tag for tag in MEMORY if tag not in self.released]:
            self.settle()
            self.released.update(tags)
            self.call("/release_memory_occupation", {"tags": tags})

    def resume(self, *tags: str) -> None:
        """It takes back what `tags` name of the memory that it gave; of weights without their contents."""
        if wanted := [tag for tag in tags if tag in self.released]:
            self.call("/resume_memory_occupation", {"tags": wanted})
            self.released.difference_update(wanted)

    # --- weights -----------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """It was given up: what comes back at this address may be another server."""
        self.losses += 1
        self._info, self.is_updating, self.adapter = None, False, None
        self.released.clear()

    def begin_update(self) -> None:
        """Opens an update of tensors, where the version asks for it; one that was left half-finished is closed."""
        if self.info().has_update_session:
            if self.is_updating:
                self.end_update()
            self.call("/begin_weight_update", {"selector": "all"})
            self.is_updating = True

    def end_update(self) -> None:
        """Closes the update."""
        if self.info().has_update_session:
            self.call("/end_weight_update")
        self.is_updating = False

    def take_adapter(self, name: str, folder: str, version: int) -> None:
        """It loads the adapter in `folder` as `name`, forgets the one before, and names its weights `version`.

        One that it has already it keeps. It forgets one only when no request uses it any more.
        """
        if self.adapter != name:
            self.call("/load_lora_adapter", {"lora_name": name, "lora_path": folder, "pinned": False})
            before, self.adapter = self.adapter, name
            if before is not None:
                self.call("/unload_lora_adapter", {"lora_name": before})
        self.call("/update_weight_version", {"new_version": str(version), "abort_all_requests": False})

    def weight_version(self) -> str:
        """The version that its weights were given."""
        return str(self._read("/model_info", "/get_model_info").get("weight_version"))

    def checksums(self) -> list[dict[str, str]]:
        """{parameter: checksum} of each of its GPUs. Its parameters are fused: qkv_proj, gate_up_proj."""
        reply = self.call("/weights_checker", {"action": "checksum"})
        return [rank["checksums"] for rank in reply["ranks"]]

    # --- generation --------------------------------------------------------------------------------------------

    async def generate(self, http: aiohttp.ClientSession, payload: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """The reply of /generate to one request. ServerLost for anything but a whole reply in time."""
        try:
            timeout = aiohttp.ClientTimeout(total=timeout_s)
            asked = http.post(self.url + "/generate", json=payload, headers=self.headers, timeout=timeout)
            async with asked as reply:
                if reply.status != 200:
                    said = " ".join((await reply.text())[:300].split())
                    raise ServerLost(f"{self.url}/generate: status {reply.status} {said}", self)
                return await reply.json(content_type=None)
        except TimeoutError:
            raise ServerLost(f"{self.url}/generate: no reply within {timeout_s:g} s", self) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ServerLost(f"{self.url}/generate: {error or type(error).__name__}", self) from None

    async def abort(self, http: aiohttp.ClientSession, name: str) -> None:
        """Ends a request, if it has it, which is then answered with what there is."""
        with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
            timeout = aiohttp.ClientTimeout(total=self.deadline_s)
            url, payload = self.url + "/abort_request", {"rid": name}
            async with http.post(url, json=payload, headers=self.headers, timeout=timeout) as reply:
                await reply.read()

    async def answers(self, http: aiohttp.ClientSession, timeout_s: float) -> bool:
        """`is_up`, beside running requests."""
        try:
            timeout = aiohttp.ClientTimeout(total=timeout_s)
            async with http.get(self.url + "/health_generate", headers=self.headers, timeout=timeout) as reply:
                return reply.status == 200
        except (TimeoutError, aiohttp.ClientError, OSError):
            return False
