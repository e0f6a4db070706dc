"""Messages between the pool and a worker, over a socket that a worker's own output cannot upset.

To the worker go pickles, each after its length. From it come lines: a word that only the two know, and JSON. Whatever
else is written there, by a reward that found the descriptor or by a process that inherited it, is a line without the
word, or ends in one: it is counted and left out, and shifts nothing.
"""

import json
import pickle
import secrets
import socket
import struct
from typing import Any

LENGTH = struct.Struct("!Q")
CHUNK_BYTES = 2**16
MAX_LINE_BYTES = 2**22  # far above what a worker says


class Garbled(Exception):
    """What came from a worker is no message of its own; the text says what it is."""


class PoolEnd:
    """The pool's end. Nothing of it blocks: a worker may stand still at any moment."""

    def __init__(self, end: socket.socket):
        self.socket, self.word = end, secrets.token_hex(16)
        self.stray_bytes = 0  # that came beside the messages
        self._outgoing, self._incoming = bytearray(), bytearray()
        end.setblocking(False)

    @property
    def has_output(self) -> bool:
        """Whether something waits to be sent: `send` it when the socket takes some."""
        return bool(self._outgoing)

    def put(self, value: Any) -> None:
        """Adds a message to what waits to be sent."""
        content = pickle.dumps(value)
        self._outgoing += LENGTH.pack(len(content)) + content

    def send(self) -> None:
        """Sends what the socket takes. OSError if the other end is gone."""
        try:
            while self._outgoing:
                del self._outgoing[: self.socket.send(memoryview(self._outgoing)[:CHUNK_BYTES])]
        except BlockingIOError:
            pass

    def receive(self) -> list[dict[str, Any]]:
        """The messages that have come, [] if none is whole. EOFError at the end, Garbled for what is no message."""
        try:
            content = self.socket.recv(CHUNK_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            raise EOFError from None
        if not content:
            raise EOFError
        *lines, rest = (self._incoming + content).split(b"\n")
        self._incoming = bytearray(rest)
        if len(rest) > MAX_LINE_BYTES:
            raise Garbled(f"{len(rest)} bytes without an end")
        return [message for line in lines if (message := self._read(bytes(line))) is not None]

    def _read(self, line: bytes) -> dict[str, Any] | None:
        word, _, content = line.partition(b" ")
        if word != self.word.encode():
            self.stray_bytes += len(line)
            return None
        try:
            message = json.loads(content)
        except ValueError:
            raise Garbled(f"a message that is torn: {content[:80]!r}") from None
        if not isinstance(message, dict):
            raise Garbled(f"a message of another form: {content[:80]!r}")
        return message

    def close(self) -> None:
        """Closes it."""
        self.socket.close()


class WorkerEnd:
    """The worker's end, which blocks. `word` is what its lines begin with; the first message brings it."""

    def __init__(self, descriptor: int):
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)  # a reward's processes have no business with it
        self.word = ""

    def get(self) -> Any:
        """The next message. EOFError when the pool has closed its end."""
        (length,) = LENGTH.unpack(self._exactly(LENGTH.size))
        return pickle.loads(self._exactly(length))

    def put(self, message: dict[str, Any]) -> None:
        """Sends a message, a line of its own whatever was written before it."""
        self._socket.sendall(f"\n{self.word} {json.dumps(message)}\n".encode())

    def _exactly(self, length: int) -> bytes:
        content = bytearray()
        while len(content) < length:
            more = self._socket.recv(min(CHUNK_BYTES, length - len(content)))
            if not more:
                raise EOFError
            content += more
        return bytes(content)
