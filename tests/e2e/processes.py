"""A real node under test: a process that is killed, paused, stopped and started by its id."""

from __future__ import annotations

import http.client
import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

from kvstore.cli.cluster_nodes import Node, serve_arguments
from kvstore.cli.processes import Child
from kvstore.client import Client, Tls
from kvstore.types import StatusResponse

T = TypeVar("T")

READY_LINE: Final = b"ready to serve client requests"
READY_SECONDS: Final = 20.0
STOP_SECONDS: Final = 15.0
POLL_SECONDS: Final = 0.02
LOG_TAIL_LINES: Final = 40


def wait_for(what: str, look: Callable[[], T | None], seconds: float) -> T:
    """Look again and again until there is something; this is the tests' only wait.

    Raises:
        AssertionError: Nothing within ``seconds``; the message says what was missed.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(POLL_SECONDS)


def environment() -> dict[str, str]:
    """This process's environment without anything that would configure a node."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("KVSTORE_", "ETCD_"))
    }


class Member:
    """One member of a cluster, running or not. Its data outlives its processes.

    ``tracer`` goes before its command line; the process must still be the node's own. ``tls`` is
    what its clients bring, if its URL is https.
    """

    def __init__(
        self,
        node: Node,
        nodes: Sequence[Node],
        flags: Sequence[str] = (),
        tracer: Sequence[str] = (),
        tls: Tls | None = None,
    ) -> None:
        self.node = node
        self.name = node.name
        self.client_url = node.client_url
        self.data_dir = node.data_dir
        self.tls = tls
        self._arguments = [*tracer, *serve_arguments(node, nodes), *flags]
        self._child: Child | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        """The id of its process."""
        assert self._child is not None, f"{self.name} was never started"
        return self._child.pid

    @property
    def is_running(self) -> bool:
        """Whether it has a process; a paused one is still there."""
        return self._child is not None and self._child.is_alive()

    def segments(self) -> list[Path]:
        """The files of its log, the oldest first."""
        return sorted((self.data_dir / "member" / "wal").glob("*.wal"))

    def garble_tail(self) -> None:
        """Change the last byte of the newest batch that anything was written to."""
        for path in reversed(self.segments()):
            content = bytearray(path.read_bytes())
            end = len(content.rstrip(b"\0"))
            if end:
                content[end - 1] ^= 0x55
                path.write_bytes(content)
                return
        raise AssertionError("there is no log to damage")

    def start(self) -> None:
        """Start a process; ``wait_ready`` waits until it serves."""
        assert not self.is_running, f"{self.name} runs already"
        log_path = self.node.log_path
        self._log_start = log_path.stat().st_size if log_path.exists() else 0
        self._child = Child(self.name, self._arguments, log_path, environment())

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until its newest process says that it serves."""

        def look() -> bool:
            assert self._child is not None, f"{self.name} was never started"
            assert self._child.is_alive(), f"{self.name} {self._child.ended_how()}:\n{self.log()}"
            return READY_LINE in self._log_bytes()

        wait_for(f"{self.name} is ready", look, seconds)

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        self.kill_nowait()
        self.wait_end()

    def kill_nowait(self) -> None:
        """SIGKILL."""
        self._signal(signal.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP: its sockets stay open, nobody answers on them."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self._signal(signal.SIGTERM)
        return self.wait_end()

    def discard(self) -> None:
        """End it in whatever state it is, paused too."""
        if self.is_running:
            self.kill()

    def _signal(self, number: signal.Signals) -> None:
        assert self.is_running, f"{self.name} does not run: cannot send it {number.name}"
        os.kill(self.pid, number)

    def wait_end(self) -> int:
        """Wait until the process is gone; returns its exit code."""
        assert self._child is not None, f"{self.name} was never started"
        return self._child.process.wait(STOP_SECONDS)

    def _log_bytes(self) -> bytes:
        with self.node.log_path.open("rb") as log:
            log.seek(self._log_start)
            return log.read()

    def log(self, lines: int = LOG_TAIL_LINES) -> str:
        """The end of what all its processes logged."""
        if not self.node.log_path.exists():
            return ""
        return "\n".join(
            self.node.log_path.read_text(errors="replace").splitlines()[-lines:],
        )

    def client(self, seconds: float = 10.0) -> Client:
        """A client that knows only this member."""
        return Client([self.client_url], seconds, tls=self.tls)

    def status(self) -> StatusResponse:
        """What it says of itself."""
        with self.client(2.0) as client:
            return client.status()

    def metrics(self) -> dict[str, float]:
        """Every sample of its /metrics: name with labels, and value."""
        host = urlsplit(self.client_url).hostname
        assert host is not None, f"a URL without a host: {self.client_url}"
        port = self.node.client_port
        connection = http.client.HTTPConnection(host, port, timeout=5)
        if self.tls is not None:
            context = self.tls.context()
            connection = http.client.HTTPSConnection(host, port, timeout=5, context=context)
        try:
            connection.request("GET", "/metrics")
            response = connection.getresponse()
            text = response.read().decode()
            assert response.status == http.client.OK, f"/metrics answered {response.status}: {text}"
        finally:
            connection.close()
        samples = re.findall(r"^([^#\s]\S*(?:\{[^\n]*\})?) (\S+)$", text, re.MULTILINE)
        return {name: float(value) for name, value in samples}
