"""Follows live runs: a server on loopback that gives the page, and what is new, to this machine's browser."""

import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.viewing.page import index, page
from gcpo_mcore.viewing.run_files import RunFiles

HOST = "127.0.0.1"


class LiveServer(ThreadingHTTPServer):
    """Serves `runs` at http://127.0.0.1:port/ (0: a free port). UserError if the port is taken."""

    daemon_threads = True

    def __init__(self, runs: Sequence[RunFiles], port: int):
        self.runs, self.lock = runs, threading.Lock()
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise UserError(f"--port {port}: {error.strerror}") from error

    @property
    def address(self) -> str:
        """Where a browser finds the page."""
        return f"http://{HOST}:{self.server_port}/"

    def answer(self, path: str) -> tuple[str, bytes] | None:
        """The type and content for a path; None if there is nothing."""
        with self.lock:
            if path == "/":
                return "text/html; charset=utf-8", "".join(page(self.runs, is_live=True)).encode()
            if path == "/index":
                for run in self.runs:
                    run.refresh()
                return "application/octet-stream", index(self.runs, is_live=True)
            match path.strip("/").split("/"):
                case ["chunk", run, number] if run.isdigit() and number.isdigit():
                    return self._chunk(int(run), int(number))
        return None

    def _chunk(self, run: int, number: int) -> tuple[str, bytes] | None:
        if run < len(self.runs) and number < len(self.runs[run].chunks):
            return "application/octet-stream", self.runs[run].chunks[number]
        return None


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer

    def do_GET(self) -> None:
        # A page from elsewhere whose name was pointed at this machine says that name.
        if self.headers.get("Host", "").partition(":")[0] not in (HOST, "localhost"):
            self.send_error(403, "this server answers to its own address only")
            return
        try:
            found = self.server.answer(self.path.partition("?")[0])
        except UserError as error:
            self.send_error(500, str(error).splitlines()[0])
            return
        if found is None:
            self.send_error(404)
            return
        kind, content = found
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: a browser asks every few seconds."""
