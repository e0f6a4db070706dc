"""A proxy in the environment is none of the business of this machine's own servers."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gcpo_mcore.base.http_json import HttpFailure, get


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"is": "here"}')

    def log_message(self, *args):
        pass


def test_loopback_is_asked_without_a_proxy(monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody listens there
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        for host in ("127.0.0.1", "localhost"):
            assert get(f"http://{host}:{server.server_address[1]}/x", 60) == {"is": "here"}
        with pytest.raises(HttpFailure, match="refused"):
            get("http://gcpo.invalid/x", 60)  # by the proxy
        server.shutdown()
