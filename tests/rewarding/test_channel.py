"""What comes over a worker's socket: its messages, whole and in order, whatever else is written there."""

import json
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpo_mcore.rewarding.channel import MAX_LINE_BYTES, Garbled, PoolEnd, WorkerEnd


def ends() -> tuple[PoolEnd, socket.socket]:
    """The pool's end, and a socket to write to it."""
    ours, theirs = socket.socketpair()
    return PoolEnd(ours), theirs


def line(pool: PoolEnd, message) -> bytes:
    """A message as WorkerEnd.put writes it."""
    return f"\n{pool.word} {json.dumps(message)}\n".encode()


@given(st.lists(st.tuples(st.binary(max_size=30), st.integers())), st.binary(max_size=30), st.integers(1, 40))
def test_stray_bytes_are_left_out(spoken, last, at_a_time):
    pool, theirs = ends()
    content = b"".join(stray + line(pool, {"index": index}) for stray, index in spoken) + last
    found = []
    for start in range(0, len(content), at_a_time):
        theirs.sendall(content[start : start + at_a_time])
        found += pool.receive()
    assert [message["index"] for message in found] == [index for _, index in spoken]
    theirs.close()
    with pytest.raises(EOFError):
        pool.receive()
    pool.close()


def test_a_torn_message_is_said():
    for content in (b"{", b"[1]", b""):
        pool, theirs = ends()
        theirs.sendall(b"\n" + pool.word.encode() + b" " + content + b"\n")
        with pytest.raises(Garbled, match="a message"):
            pool.receive()
        theirs.close()
        pool.close()


def test_what_never_ends_is_not_kept_for_ever():
    pool, theirs = ends()
    theirs.setblocking(False)
    with pytest.raises(Garbled, match="without an end"), theirs:
        for _ in range(MAX_LINE_BYTES):
            theirs.send(b"x" * 2**14)
            pool.receive()
    pool.close()


def test_both_ends():
    ours, theirs = socket.socketpair()
    pool, worker = PoolEnd(ours), WorkerEnd(theirs.detach())
    worker.word = pool.word
    large = ["x" * 10**5]
    pool.put(large)
    pool.send()
    assert worker.get() == large and not pool.has_output
    worker.put({"index": 1})
    assert pool.receive() == [{"index": 1}]
    pool.close()
    with pytest.raises(EOFError):
        worker.get()
