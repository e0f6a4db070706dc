"""A small server of OpenAI chat completions, as a process of its own: `python openai_server.py FOLDER [HOLD_AFTER]`.

It solves 'a+b?' by the request's seed: 0 is wrong, 1 is right and long, 2 is right and short, 3 is right but cut off
(finish_reason 'length'), and so on from the start. The answer stands after ':', or in a box if the prompt asks for one
behind its '?'. 'busy+...' gets a 503 first, 'long+...' a 400. Every request goes
into FOLDER/requests.jsonl; FOLDER/port says where it listens. From the HOLD_AFTER-th request on, none is answered until
FOLDER/go is there.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER = Path(sys.argv[1])
HOLD_AFTER = int(sys.argv[2]) if len(sys.argv) > 2 else None
LOCK = threading.Lock()
BUSY = set()
COUNT = [0]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with LOCK, open(FOLDER / "requests.jsonl", "a") as file:
            seen = {"path": self.path, "key": self.headers.get("Authorization"), **body}
            file.write(json.dumps(seen) + "\n")
            COUNT[0] += 1
            is_held = HOLD_AFTER is not None and COUNT[0] > HOLD_AFTER
        while is_held and not (FOLDER / "go").exists():
            time.sleep(0.02)
        question = body["messages"][-1]["content"]
        question, _, wish = question.partition("?")
        kind, _, question = question.rpartition(" ")
        if body["model"] != "solver":
            return self.reply(404, {"error": {"message": "no such model"}})
        if kind == "long":
            return self.reply(400, {"error": {"message": "the prompt is too long"}})
        if kind == "busy" and question not in BUSY:
            BUSY.add(question)
            return self.reply(503, {"error": {"message": "busy"}})
        a, b = question.split("+")
        right = int(a) + int(b)
        ways = [("I guess", right + 1), (f"{a} and {b} make, slowly counted", right), (f"{a}+{b}", right), ("", right)]
        form = "{}: \\boxed{{{}}}" if "boxed" in wish else "{}:{}"
        texts = [form.format(*way) for way in ways]
        finish = ["stop", "stop", "stop", "length"]
        seed = body["seed"] % 4
        message = {"role": "assistant", "content": texts[seed]}
        return self.reply(200, {"choices": [{"index": 0, "message": message, "finish_reason": finish[seed]}]})

    def reply(self, status, content):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
(FOLDER / "port.new").write_text(str(server.server_port))
(FOLDER / "port.new").rename(FOLDER / "port")
server.serve_forever()
