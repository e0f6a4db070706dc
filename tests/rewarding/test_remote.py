"""The remote reward against a real HTTP server that fails on request."""

import asyncio
import datetime
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gcpo_mcore.base.http_json import HttpFailure
from gcpo_mcore.base.registry import rewards
from gcpo_mcore.rewarding.answer import Answer
from gcpo_mcore.rewarding.config import RewardConfig
from gcpo_mcore.rewarding.grader import Grader
from gcpo_mcore.run.load import load_config
from gcpo_mcore.samples import Prompt, Sample


class Server(ThreadingHTTPServer):
    """Answers each request with the next of `replies`: a status, or a body. The last one stays.

    'hang' is no answer until the server ends; a `threading.Barrier` answers so many at a time, when all are there.
    """

    daemon_threads = True
    request_queue_size = 128  # five, the default, turns callers away who come side by side

    def __init__(self, *replies):
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies, self.requests, self.times = list(replies), [], []
        self.ended = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def __exit__(self, *_):
        self.ended.set()
        self.shutdown()
        self.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/score"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.times.append(time.monotonic())
        self.server.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        replies = self.server.replies
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        if reply == "hang":
            self.server.ended.wait()
            return
        if isinstance(reply, threading.Barrier):
            reply.wait()
            reply = {"score": 1}
        self.send_response(reply if isinstance(reply, int) else 200)
        self.end_headers()
        self.wfile.write(b"{}" if isinstance(reply, int) else json.dumps(reply).encode())

    def log_message(self, *_):
        pass


def remote(url, **knobs):
    settings = {
        "url": url,
        "timeout_s": 600.0,
        "attempts": 3,
        "backoff_s": 0.01,
        "parallel": 4,
        "failures_to_open": 2,
        "open_s": 60.0,
        "columns": None,
    }
    reward = rewards.get("remote").model_validate(settings | knobs)
    return lambda answers: asyncio.run(reward(answers))


ANSWER = Answer("2+2?", "4", "4", {"kind": "easy"}, response_tokens=2)


def test_the_answer_goes_out_and_the_score_comes_back():
    with Server({"score": 0.25}) as server:
        assert remote(server.url)([ANSWER]) == [0.25]
        assert server.requests == [
            {
                "prompt": "2+2?",
                "response": "4",
                "reference": "4",
                "other_references": [],
                "columns": {"kind": "easy"},
                "truncated": False,
                "response_tokens": 2,
            }
        ]


@pytest.mark.parametrize(
    ("names", "sent"), [(None, {"plain": "x", "when": "2024-05-01", "share": None}), (["when"], {"when": "2024-05-01"})]
)
def test_columns_are_sent_as_strict_json_and_only_those_asked_for(names, sent):
    columns = {"plain": "x", "when": datetime.date(2024, 5, 1), "share": float("nan"), "odd": object()}
    with Server({"score": 1}) as server:
        assert remote(server.url, columns=names)([Answer("q", "r", "a", columns)]) == [1.0]
        assert server.requests[0]["columns"] == sent
        with pytest.raises(TypeError, match="column 'odd'"):
            remote(server.url, columns=["odd"])([Answer("q", "r", "a", columns)])


def test_a_passing_failure_is_tried_again_with_growing_pauses():
    with Server(503, 429, {"score": 1}) as server:
        assert remote(server.url, backoff_s=0.1)([ANSWER]) == [1.0]
        first, second, third = server.times
        assert second - first >= 0.1 and third - second >= 0.2


def test_a_time_out_is_tried_again():
    with Server("hang", {"score": 1}) as server:
        # On a busy machine the second try may be late as well; one of so many is not.
        assert remote(server.url, timeout_s=0.5, attempts=100, backoff_s=0.0)([ANSWER]) == [1.0]
        assert len(server.requests) >= 2


def test_a_lasting_failure_is_not_tried_again():
    with Server(400) as server:
        with pytest.raises(HttpFailure, match="status 400"):
            remote(server.url)([ANSWER])
        assert len(server.requests) == 1


@pytest.mark.parametrize("reply", [{}, {"score": "1"}, {"score": True}, [1]])
def test_a_reply_without_a_score_is_an_error(reply):
    with Server(reply) as server, pytest.raises(ValueError, match="no number 'score'"):
        remote(server.url)([ANSWER])


class Clock:
    """In place of the module `time`: it goes when it is told to."""

    now_s = 1000.0

    def monotonic(self):
        return self.now_s


def test_the_circuit_opens_and_closes_again(monkeypatch):
    clock = Clock()
    with Server(500) as server:
        reward = remote(server.url, attempts=1, open_s=30.0)
        monkeypatch.setattr("gcpo_mcore.rewards.remote.time", clock)
        for _ in range(2):
            with pytest.raises(HttpFailure):
                reward([ANSWER])
        with pytest.raises(ConnectionError, match="not asked, after 2 failures in a row"):
            reward([ANSWER])
        clock.now_s += 29.9
        with pytest.raises(ConnectionError):
            reward([ANSWER])
        assert len(server.requests) == 2
        clock.now_s += 0.2
        with pytest.raises(HttpFailure):  # one trial, which opens it again at once
            reward([ANSWER])
        with pytest.raises(ConnectionError):
            reward([ANSWER])
        server.replies[:] = [{"score": 1}]
        clock.now_s += 30.1
        assert reward([ANSWER]) + reward([ANSWER]) == [1.0, 1.0]


def through_the_pool(url, count, **knobs):
    """Grades that many answers by one worker; (metrics, samples)."""
    tree = load_config(["reward=remote", "reward.workers=1"]).reward.model_dump(mode="json") | {"deadline_s": 1900.0}
    tree["parts"]["remote"]["settings"] |= {"url": url, "timeout_s": 600.0} | knobs
    prompt = Prompt("p", "s", "2+2?", [1], "4")
    samples = [Sample(i, [1], str(i)) for i in range(count)]
    with Grader(RewardConfig.model_validate(tree)) as grader:
        return grader.grade([(prompt, s) for s in samples]), samples


def test_a_server_that_fails_costs_the_run_its_retries_and_no_more():
    """Every sample fails, most of them without being sent: not above 4 at a time, each with its 3 attempts."""
    with Server(503) as server:
        metrics, samples = through_the_pool(server.url, 50, backoff_s=0.1, parallel=4, open_s=1e6)
        assert 3 * 3 <= len(server.requests) <= 3 * (3 + 4)
    assert metrics["grading/errors"] == 50 and metrics["grading/crashes"] == 0
    assert {s.grading_failed for s in samples} == {"error"}


def test_a_dead_server_fails_every_sample():
    with Server({"score": 1}) as server:
        url = server.url
    metrics, _ = through_the_pool(url, 20, backoff_s=0.0)
    assert metrics["grading/errors"] == 20 and metrics["grading/crashes"] == 0


def test_the_answers_of_a_worker_are_under_way_side_by_side():
    """The server answers none before sixteen are there."""
    with Server(threading.Barrier(16, timeout=500)) as server:
        metrics, samples = through_the_pool(server.url, 64, attempts=1, parallel=16)
        assert len(server.requests) == 64
    assert metrics["grading/errors"] == 0 and [s.reward for s in samples] == [1.0] * 64
