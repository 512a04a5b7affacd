"""Members without ports: socket pairs, at whose far ends threads follow a script."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections import defaultdict, deque

import pytest

from kvstore.client.transport import Endpoint


class Script:
    """What each endpoint does on its next connections; and what it was asked.

    One list a connection; each element is what happens after one whole request: bytes are sent,
    ``close`` closes, ``silence`` says nothing until the client goes away. After the last the
    connection is closed. An endpoint whose list of connections is empty refuses.
    """

    close = object()
    silence = object()

    def __init__(self):
        self.connections = defaultdict(deque)
        self.requests = []
        self.headers = []
        self._threads = []
        self._sockets = []

    def on(self, url, *steps):
        self.connections[url].append(list(steps))

    def connect(self, endpoint, seconds):
        if not self.connections[endpoint.url]:
            raise ConnectionRefusedError(111, "Connection refused")
        steps = self.connections[endpoint.url].popleft()
        near, far = socket.socketpair()
        self._sockets.append(far)
        connection = http.client.HTTPConnection(endpoint.host, endpoint.port)
        connection.sock = near
        thread = threading.Thread(target=self._serve, args=(endpoint.url, far, steps))
        thread.start()
        self._threads.append(thread)
        return connection

    def _serve(self, url, far, steps):
        # A client that goes away with bytes unread resets the connection.
        with far, far.makefile("rb") as reader, contextlib.suppress(ConnectionError):
            for step in steps:
                head = []
                while (line := reader.readline()) not in (b"\r\n", b""):
                    head.append(line)
                if not head:
                    return
                length = next(
                    int(line.split(b":")[1])
                    for line in head
                    if line.lower().startswith(b"content-length")
                )
                path = head[0].split()[1].decode()
                lines = [line.decode().strip().partition(": ") for line in head[1:]]
                self.headers.append({name: value for name, _, value in lines})
                self.requests.append((url, path, reader.read(length)))
                if step is self.close:
                    return
                if step is self.silence:
                    reader.read()
                    return
                far.sendall(step)

    def finish(self):
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive(), "a connection was left open"


def answer(body: bytes | str, status: int = 200) -> bytes:
    data = body.encode() if isinstance(body, str) else body
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(data), data)


def chunks(*lines: str) -> bytes:
    """The head of a stream, and its first lines."""
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(
        b"%x\r\n%s\n\r\n" % (len(line) + 1, line.encode()) for line in lines
    )


@pytest.fixture
def script(monkeypatch):
    found = Script()
    monkeypatch.setattr(Endpoint, "connect_anew", lambda *args: found.connect(*args))
    yield found
    found.finish()


@pytest.fixture
def http_answer():
    return answer


@pytest.fixture
def stream():
    return chunks
