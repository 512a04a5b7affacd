"""``kvstore serve`` alone: with no flag it keeps its data, and SIGTERM leaves a clean log."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.cli.processes import port_is_free
from tests.e2e.cluster import free_ports
from tests.e2e.commands import Foreground, kvstore, log_is_clean
from tests.e2e.processes import READY_LINE

DEFAULT_PORTS = (2379, 2380)


class SingleNode:
    """A node started with ``kvstore serve``, no flag, in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        ports = list(DEFAULT_PORTS)
        self._environ = {}
        if not all(port_is_free("127.0.0.1", port) for port in DEFAULT_PORTS):
            # Somebody works on this machine: then by variables, still without a flag.
            ports = free_ports(2)
            client, peer = (f"http://127.0.0.1:{port}" for port in ports)
            self._environ = {
                "KVSTORE_LISTEN_CLIENT_URLS": client,
                "KVSTORE_LISTEN_PEER_URLS": peer,
            }
        self.endpoint = f"127.0.0.1:{ports[0]}"
        self.directory = directory
        self.data_dir = directory / "default.kvstore"
        self.command: Foreground | None = None

    def start(self) -> Foreground:
        """Start it and wait until it serves."""
        self.command = Foreground(
            ["serve"], self.directory / "log", cwd=self.directory, environ=self._environ
        )
        self.command.wait_output(READY_LINE.decode())
        return self.command

    def get(self, key: str) -> bytes:
        """The value of a key, by the command line."""
        found = kvstore("get", "--print-value-only", key, f"--endpoints={self.endpoint}")
        assert found.returncode == 0, found.stderr
        return found.stdout


@pytest.fixture
def node(tmp_path: Path) -> Iterator[SingleNode]:
    node = SingleNode(tmp_path)
    yield node
    if node.command is not None:
        node.command.discard()


def test_serve_with_no_flag_keeps_its_data(node: SingleNode) -> None:
    command = node.start()
    put = kvstore("put", "kept", "by default", f"--endpoints={node.endpoint}")
    assert put.returncode == 0, put.stderr
    assert command.end(signal.SIGTERM) == 0, command.output()
    assert log_is_clean(node.data_dir)

    command = node.start()
    assert node.get("kept") == b"by default\n"
    assert command.end(signal.SIGKILL) == -signal.SIGKILL
    assert not log_is_clean(node.data_dir)

    command = node.start()
    assert node.get("kept") == b"by default\n"
    assert command.end(signal.SIGINT) == 0, command.output()
    assert log_is_clean(node.data_dir)


def test_a_second_node_on_the_same_data_is_refused(node: SingleNode) -> None:
    first = node.start()
    ports = free_ports(2)
    second = kvstore(
        "serve",
        f"--data-dir={node.data_dir}",
        f"--listen-client-urls=http://127.0.0.1:{ports[0]}",
        f"--listen-peer-urls=http://127.0.0.1:{ports[1]}",
        "--initial-advertise-peer-urls=http://localhost:2380",
        "--initial-cluster=default=http://localhost:2380",
    )
    assert second.returncode == 1, second.stderr
    assert b"cannot start" in second.stderr
    assert str(first.process.pid).encode() in second.stderr
