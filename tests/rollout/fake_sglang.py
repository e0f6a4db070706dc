"""A server that answers as SGLang 0.5.23 was recorded to, with a fault of choice: `fake_sglang.py FOLDER FAULT [PORT]`.

FAULT: none, 500 (each second reply), slow (3 s each, unless told to stop), held (no reply before it is told to stop or
FOLDER/go is there), ahead (as held, those with a seed of FOLDER/ahead.json, until it has weights of version 1),
truncated (each second reply lacks its last log-probs), aborted (each second reply), garbage (no JSON), hang (no reply,
nor to health checks, after the second), stale (other weights' version), old (0.5.20 on a CPU), ancient (0.5.9), new
(0.6.0), compiling (no reply before the third health check while it has requests, the first that is answered).
FOLDER/port says where it listens, FOLDER/asked.jsonl what it was asked to generate, FOLDER/calls.jsonl every call.
It is as easily killed as the real one (fake_books.py); what it died of stands in FOLDER/died. A request goes on when
whoever asked has hung up, until it is aborted.
"""

import contextlib
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # it is started as a script, from anywhere
from tests.rollout.fake_books import Books, Gpu

FOLDER, FAULT = Path(sys.argv[1]), sys.argv[2]
LOCK = threading.Lock()
ABORTED: dict[str, threading.Event] = {}  # by request, of a server that takes its time
RELEASES = {"old": "0.5.20", "ancient": "0.5.9", "new": "0.6.0"}
COMPILED = threading.Event()
KEY = os.environ.get("FAKE_KEY")  # asked for by all but the health checks
STATE = {"asked": 0, "checks": 0, "version": "default", "updating": False}
ADAPTERS: dict[str, dict] = {}  # those that are loaded: what adapter_config.json says
GPU = os.environ.get("FAKE_GPU")  # a folder; FAKE_BYTES: what the server holds there, "weights=100 kv_cache=300"
BYTES = {tag: int(size) for tag, size in (one.split("=") for one in os.environ.get("FAKE_BYTES", "").split())}
BOOKS = Books(FOLDER, Gpu(Path(GPU)) if GPU else None, BYTES)
ALREADY_OPEN = "a weight-update session is already open; call end_weight_update() first"


def reply(asked: dict) -> dict:
    """Four tokens that follow from the prompt's last one, as the real server words it."""
    last = asked["input_ids"][-1]
    ids = [(last + k) % 16 for k in (1, 2, 3, 4)]
    version = STATE["version"]
    meta = {
        "id": asked["rid"],
        "finish_reason": {"type": "stop", "matched": ids[-1]},
        "prompt_tokens": len(asked["input_ids"]),
        "weight_version": version,
        "num_retractions": 0,
        "input_token_logprobs": [],
        "output_token_logprobs": [[-0.5 - 0.25 * k, token, None] for k, token in enumerate(ids)],
        "output_token_logprobs_length": len(ids),
        "reasoning_tokens": 0,
        "completion_tokens": len(ids),
        "cached_tokens": 0,
        "weight_versions": [{"version": version, "start": 0, "end": len(ids)}],
        "cached_tokens_details": None,
        "dp_rank": None,
        "e2e_latency": 0.73,
        "response_sent_to_client_ts": 1795257235.6,
    }
    return {"text": "ignored", "output_ids": ids, "meta_info": meta}


def cut(answer: dict) -> dict:
    """The answer as it is when the request was aborted after two tokens."""
    meta = answer["meta_info"]
    answer["output_ids"] = answer["output_ids"][:2]
    meta["output_token_logprobs"] = meta["output_token_logprobs"][:2]
    meta["finish_reason"] = {"type": "abort", "message": "Abort", "status_code": None, "err_type": None}
    return answer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def is_refused(self) -> bool:
        """Answers whoever has not the key."""
        if KEY is None or self.path.startswith("/health") or self.headers["Authorization"] == f"Bearer {KEY}":
            return False
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.say({"error": "Unauthorized"}, status=401)
        return True

    def do_GET(self):
        if self.is_refused():
            return
        BOOKS.note(self.path)
        if self.path == "/server_info":
            device = "cpu" if FAULT == "old" else "cuda"
            return self.say({"version": RELEASES.get(FAULT, "0.5.23"), "tp_size": 1, "device": device})
        if self.path == "/model_info":
            return self.say({"weight_version": STATE["version"]})
        if not BOOKS.under_way:  # else it looks at what is under way
            BOOKS.forward()
        if FAULT == "hang" and STATE["asked"] > 2:
            time.sleep(600)
        if FAULT == "compiling" and BOOKS.under_way and not COMPILED.is_set():
            STATE["checks"] += 1
            if STATE["checks"] < 3:
                time.sleep(600)
            COMPILED.set()
        return self.say(None)

    def do_POST(self):
        if self.is_refused():
            return
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        BOOKS.note(self.path)
        path, _, query = self.path.partition("?")
        if path == "/flush_cache":
            return self.flush(float(query.removeprefix("timeout=") or 0))
        if path == "/release_memory_occupation":
            BOOKS.release(asked["tags"])
            return self.say(None)
        if path == "/resume_memory_occupation":
            BOOKS.resume(asked["tags"])
            return self.say(None)
        if path.startswith("/update_weights_from"):
            BOOKS.update(asked["flush_cache"])
            STATE["version"] = asked["weight_version"] or STATE["version"]
            return self.say(
                {"success": True, "message": "Succeeded to update model weights.", "num_paused_requests": 0}
            )
        if self.path in ("/begin_weight_update", "/end_weight_update"):
            begins = "begin" in self.path
            if begins and STATE["updating"]:
                return self.say({"success": False, "message": ALREADY_OPEN}, status=400)
            STATE["updating"] = begins
        if self.path.endswith("_lora_adapter"):
            return self.adapter(asked)
        if self.path == "/update_weight_version":
            STATE["version"] = asked["new_version"]
            return self.say({"success": True, "message": "Weight version updated", "new_version": STATE["version"]})
        if self.path == "/abort_request":
            for name, told in list(ABORTED.items()):
                if name.startswith(asked["rid"]):  # as SGLang has it
                    told.set()
        if self.path != "/generate":
            return self.say({"success": True, "message": "Success"})
        with BOOKS.request():
            self.say(*self.generate(asked))
            time.sleep(0.02)  # with overlapped scheduling a server runs one step more than it answers

    def adapter(self, asked: dict) -> None:
        """Loads or forgets one, as a server that was started with --enable-lora: by a name that is free, or taken. It
        forgets one when what is under way has ended."""
        name, problem = asked["lora_name"], None
        while BOOKS.under_way and self.path == "/unload_lora_adapter":
            time.sleep(0.01)
        if self.path == "/load_lora_adapter":
            if name in ADAPTERS:
                problem = f"LoRA with name {name} already exists."
            else:
                folder = Path(asked["lora_path"])
                config = json.loads((folder / "adapter_config.json").read_text())
                header = (folder / "adapter_model.safetensors").read_bytes()
                tensors = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])
                shapes = [tensor["shape"] for tensor_name, tensor in tensors.items() if "lora_A" in tensor_name]
                if not shapes or any(shape[0] != config["r"] for shape in shapes):
                    problem = "the adapter's tensors are not of its rank"
                ADAPTERS[name] = config
        elif name not in ADAPTERS:
            problem = f"LoRA with name {name} does not exist."
        else:
            del ADAPTERS[name]
        said = {"success": problem is None, "error_message": problem, "loaded_adapters": dict.fromkeys(ADAPTERS, "")}
        self.say(said, status=400 if problem else 200)

    def flush(self, timeout_s: float) -> None:
        """Waits so long for the server to be idle, then drops its cache or says that it did not."""
        until = time.monotonic() + timeout_s
        while BOOKS.under_way and time.monotonic() < until:
            time.sleep(0.01)
        if BOOKS.under_way:
            return self.say("Flush cache failed.", status=400)
        return self.say("Cache flushed.")

    def generate(self, asked: dict) -> tuple[dict, int]:
        """The reply and its status."""
        with LOCK, open(FOLDER / "asked.jsonl", "a") as file:
            STATE["asked"] += 1
            count = STATE["asked"]
            file.write(json.dumps(asked) + "\n")
        if asked.get("lora_path", next(iter(ADAPTERS), None)) not in (None, *ADAPTERS):
            return {"error": {"message": f"adapter {asked['lora_path']} is not loaded"}}, 400
        answer = reply(asked)
        if self.was_told_to_stop(asked):
            return cut(answer), 200
        answer = reply(asked)  # by the weights of now
        if FAULT == "hang" and count > 2:
            time.sleep(600)
        if FAULT == "stale":
            answer["meta_info"]["weight_version"] = "other"
        if FAULT == "500" and count % 2:
            return {"error": {"message": "internal"}}, 500
        if FAULT == "truncated" and count % 2:
            answer["meta_info"]["output_token_logprobs"].pop()
        if FAULT == "aborted" and count % 2:
            cut(answer)
        return answer, 200

    def was_told_to_stop(self, asked: dict) -> bool:
        """Waits as FAULT has it; whether the wait was ended by an abort_request."""
        told = ABORTED.setdefault(asked["rid"], threading.Event())
        if FAULT == "slow":
            return told.wait(3)
        if FAULT == "compiling":
            COMPILED.wait()
        held = FAULT == "held" or (
            FAULT == "ahead"
            and asked["sampling_params"]["sampling_seed"] in json.loads((FOLDER / "ahead.json").read_text())
        )
        while held and not ((FOLDER / "go").exists() if FAULT == "held" else STATE["version"] != "0"):
            if told.wait(0.02):
                return True
        return False

    def say(self, answer, status=200):
        body = (
            b"{"
            if FAULT == "garbage" and self.path == "/generate"
            else b""
            if answer is None
            else json.dumps(answer).encode()
        )
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):  # who asked has hung up
            self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 256


if __name__ == "__main__":
    server = Server(("127.0.0.1", int(sys.argv[3]) if len(sys.argv) > 3 else 0), Handler)
    (FOLDER / "new_port").write_text(str(server.server_address[1]))
    (FOLDER / "new_port").rename(FOLDER / "port")
    server.serve_forever()
