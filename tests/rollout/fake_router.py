"""A router that answers as sglang-router 0.3 does, taking its workers in turn: `fake_router.py FOLDER`.

FOLDER/port says where it listens. It starts without workers; a worker that does not answer costs the request. It
gives up no worker while there is a FOLDER/refuses.
"""

import itertools
import json
import sys
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER = Path(sys.argv[1])
WORKERS: dict[str, str] = {}  # id -> address
KEYS: dict[str, str] = {}  # by address
TURN = itertools.count()


def forward(path: str, body: bytes) -> tuple[int, bytes]:
    """Status and reply of the next worker."""
    workers = list(WORKERS.values())
    if not workers:
        return 503, b'{"error": "no workers"}'
    address = workers[next(TURN) % len(workers)]
    request = urllib.request.Request(address + path, body, {"Authorization": f"Bearer {KEYS.get(address)}"})
    try:
        with urllib.request.urlopen(request, timeout=600) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 502, b'{"error": "worker unreachable"}'


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.say(200, json.dumps({"workers": [{"id": i, "url": url} for i, url in WORKERS.items()]}).encode())

    def do_DELETE(self):
        if (FOLDER / "refuses").exists():
            return self.say(500, b"")
        found = WORKERS.pop(self.path.removeprefix("/workers/"), None)
        self.say(202 if found else 404, b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/workers":
            told = json.loads(body)
            WORKERS[f"w{next(TURN)}"] = told["url"]
            KEYS[told["url"]] = told.get("api_key", "")
            self.say(202, b"{}")
        elif self.path == "/generate":
            self.say(*forward(self.path, body))
        else:  # it passes on neither aborts nor pauses
            self.say(404, b"")

    def say(self, status: int, body: bytes):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    (FOLDER / "new_port").write_text(str(server.server_address[1]))
    (FOLDER / "new_port").rename(FOLDER / "port")
    server.serve_forever()
