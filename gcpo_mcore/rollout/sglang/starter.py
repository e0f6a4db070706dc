"""Has servers that the run did not start itself started again by a command of the user's (rollout.start_command)."""

import logging
import shlex
import subprocess
from pathlib import Path

from gcpo_mcore.rollout.sglang.server import Server

log = logging.getLogger(__name__)


class Starter:
    """`command` is run on this machine with {url}, {host} and {port} filled in, up to `restarts` times a server. It is
    to return when the server is on its way; what it says goes to `output`."""

    def __init__(self, command: str | None, restarts: int, output: Path):
        self.command, self.restarts, self.output = command, restarts, output
        self.used: dict[str, int] = {}
        self.running: dict[str, subprocess.Popen] = {}

    def start(self, server: Server) -> bool:
        """Runs the command for `server`; False if there is none, or no restart is left."""
        used = self.used.get(server.url, 0)
        if self.command is None or used == self.restarts:
            return False
        self.used[server.url] = used + 1
        host, port = server.place
        fields = {"{url}": server.url, "{host}": host, "{port}": str(port)}
        words = shlex.split(self.command)
        for field, value in fields.items():
            words = [word.replace(field, value) for word in words]
        self._end(server.url)
        self.output.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(self.output, "ab") as out:
                self.running[server.url] = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        except OSError as error:
            log.warning("rollout.start_command for %s: %s", server, error)
            return False
        return True

    def was_asked_for(self, server: Server) -> bool:
        """Whether the command was run for `server` and did not fail."""
        process = self.running.get(server.url)
        return process is not None and process.poll() in (None, 0)

    def _end(self, url: str) -> None:
        process = self.running.pop(url, None)
        if process is not None:
            process.kill()
            process.wait()

    def close(self) -> None:
        """Ends the commands, not what they started."""
        for url in list(self.running):
            self._end(url)
