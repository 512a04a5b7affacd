"""The two servers: real processes on free ports of the loopback interface, ended by their ids."""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import shutil
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from kvstore.cli.processes import Child, stop_all
from tests.conformance.answers import CLOSED, Answer, read_answer
from tests.conformance.calls import Call, State, headers, payload
from tests.e2e.cluster import HOST, Cluster, free_ports
from tests.e2e.processes import environment, wait_for

ETCD: Final = shutil.which("etcd")
CALL_SECONDS: Final = 15.0
STREAM_SECONDS: Final = 5.0

MAX_TXN_OPS: Final = 8
MAX_REQUEST_BYTES: Final = 16_384

# Small limits are met often. With an election timeout of 5 s no lease is shorter than 8 s, which
# no sequence lasts: leases then end only where a sequence ends them. Watchers tell every 100 ms
# how far they are, so that nobody has to guess when a watcher of the past has caught up.
COMMON_FLAGS: Final = (
    f"--max-txn-ops={MAX_TXN_OPS}",
    f"--max-request-bytes={MAX_REQUEST_BYTES}",
    "--heartbeat-interval=500",
    "--election-timeout=5000",
    "--experimental-watch-progress-notify-interval=100ms",
    "--bcrypt-cost=4",
)


class Stream:
    """One watch stream: a thread reads its lines."""

    def __init__(self, server: Server, body: bytes, head: dict[str, str]) -> None:
        self.lines: list[Any] = []
        self.ended = False
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._connection = http.client.HTTPConnection(HOST, server.port, timeout=60)
        self._connection.connect()
        self._sock: socket.socket = self._connection.sock
        self._connection.request("POST", "/v3/watch", body, head)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError, AttributeError):
            response = self._connection.getresponse()
            while line := response.readline():
                self._queue.put(line)
        self._queue.put(None)

    def wait(self, seconds: float) -> bool:
        """Take what has come, and wait for a line if nothing has; False if nothing came."""
        try:
            line = self._queue.get(timeout=seconds)
            while True:
                self._take(line)
                line = self._queue.get_nowait()
        except queue.Empty:
            return bool(self._queue.qsize())

    def _take(self, line: bytes | None) -> None:
        if line is None:
            self.ended = True
        elif line.strip():
            self.lines.append(json.loads(line))

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(STREAM_SECONDS)
        self._connection.close()


class Server:
    """One server, a connection to it, and what its answers said so far in this sequence."""

    def __init__(self, title: str, port: int, urls: Sequence[str]) -> None:
        self.title = title
        self.port = port
        self.urls = [f"http://{HOST}:{port}", *urls]
        self.names = ["node1", "default"]
        self.cluster_id = self.member_id = ""
        self.state = State()
        self._connection = http.client.HTTPConnection(HOST, port, timeout=CALL_SECONDS)
        self.streams: list[Stream] = []

    def forget(self) -> None:
        """Begin a sequence: nothing was granted, nobody has a token."""
        self.state = State()

    def send(self, call: Call) -> None:
        """Send a call; ``receive`` its answer before the next one."""
        body, head = payload(call, self.state), headers(call, self.state)
        for _ in range(2):
            try:
                self._connection.request(call.method, call.path, body, head)
            except OSError:
                # It was closed since the last answer, which is its right.
                self._connection.close()
            else:
                return

    def receive(self) -> Answer:
        """The answer to the call that was sent."""
        try:
            response = self._connection.getresponse()
            answer = read_answer(
                response.status, response.read(), response.getheader("Content-Type", "")
            )
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return Answer(0, CLOSED)
        return answer

    def ask(self, path: str, body: Any = None, user: str = "") -> Any:
        """A call that must succeed: its answer's body."""
        self.send(Call(path, {} if body is None else body, user))
        answer = self.receive()
        assert answer.status == http.client.OK, f"{self.title} {path}: {answer}"
        return answer.body

    def open(self, call: Call) -> Stream:
        """A new watch stream."""
        stream = Stream(self, payload(call, self.state), headers(call, self.state))
        self.streams.append(stream)
        return stream

    def learn(self) -> None:
        """Ask for its ids and its revision."""
        header = self.ask("/v3/kv/range", {"key": b"learn"})["header"]
        self.cluster_id, self.member_id = header["cluster_id"], header["member_id"]
        self.state.base = self.state.revision = int(header["revision"])

    def hang_up(self) -> None:
        """Close all streams."""
        for stream in self.streams:
            stream.close()
        self.streams.clear()

    def close(self) -> None:
        """Close every connection."""
        self.hang_up()
        self._connection.close()


@contextlib.contextmanager
def new_etcd(directory: Path, make: type[Server] = Server) -> Iterator[Server]:
    """A fresh etcd of a member of its own; ``make`` says how it is asked."""
    assert ETCD is not None, "etcd is not installed"
    client_port, peer_port = free_ports(2)
    client, peer = f"http://{HOST}:{client_port}", f"http://{HOST}:{peer_port}"
    child = Child(
        "etcd",
        [
            ETCD,
            f"--data-dir={directory / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--logger=zap",
            "--log-level=error",
            *COMMON_FLAGS,
        ],
        directory / "etcd.log",
        environment(),
    )
    server = make("etcd", client_port, [peer])
    try:
        wait_for("etcd serves", lambda: _serves(child, client_port), 30.0)
        server.learn()
        yield server
    finally:
        server.close()
        stop_all([child])


def _serves(child: Child, port: int) -> bool:
    assert child.is_alive(), f"etcd {child.ended_how()}:\n{child.last_words()}"
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/health")
        return b'"true"' in connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextlib.contextmanager
def new_kvstore(directory: Path, make: type[Server] = Server) -> Iterator[Server]:
    """A fresh node of ours; ``make`` says how it is asked."""
    cluster = Cluster(directory, size=1, flags=COMMON_FLAGS)
    try:
        cluster.start()
        node = cluster.members[0].node
        server = make("kvstore", node.client_port, [node.peer_url])
        server.learn()
        wait_for("its leader keeps the time of leases", lambda: _keeps_time(server), 10.0)
        yield server
        server.close()
    finally:
        cluster.close()


def _keeps_time(server: Server) -> bool:
    """Whether a lease has no more time left than was granted.

    A leader takes the clock up with its first tick, half a second apart here. What was granted
    before has an election timeout on top, as after any change of leader.
    """
    server.ask("/v3/lease/grant", {"TTL": 100, "ID": 1})
    left = int(server.ask("/v3/lease/timetolive", {"ID": 1})["TTL"])
    server.ask("/v3/lease/revoke", {"ID": 1})
    return left <= 100
