"""The clusters that are compared: three nodes each, started alike, with their own defaults."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bench.figures import BenchError
from kvstore.cli.cluster_nodes import Node, ask, check_ports, plan, serve_arguments
from kvstore.cli.processes import Child, stop_all
from kvstore.client import Client
from kvstore.types import PutRequest, RequestOp
from kvstore.version import KVSTORE_VERSION

READY_SECONDS: Final = 60.0
KEYS: Final = 10_000
VALUE: Final = b"value-" * 42 + b"valv"
TXN_OPS: Final = 100


class System:
    """One system under load."""

    def __init__(
        self,
        name: str,
        version: str,
        arguments: Callable[[Node, Sequence[Node]], list[str]],
        first_port: int,
    ) -> None:
        self.name = name
        self.version = version
        self._arguments = arguments
        self._client_ports = tuple(range(first_port, first_port + 300, 100))
        self._nodes: list[Node] = []
        self._children: list[Child] = []

    def start(self, base_dir: Path) -> None:
        """Start three nodes and wait until they have a leader.

        Raises:
            BenchError: They do not come up.
        """
        peer_ports = [port + 1 for port in self._client_ports]
        self._nodes = plan(base_dir / self.name, self._client_ports, peer_ports)
        check_ports(self._nodes)
        for node in self._nodes:
            arguments = self._arguments(node, self._nodes)
            self._children.append(Child(node.name, arguments, node.log_path))
        deadline = time.monotonic() + READY_SECONDS
        while not all(ask(node).leader_id for node in self._nodes):
            self.check_alive()
            if time.monotonic() > deadline:
                raise BenchError(f"{self.name} has no leader after {READY_SECONDS:.0f} s")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop the nodes that we started."""
        stop_all(self._children)

    def check_alive(self) -> None:
        """See that no node has ended.

        Raises:
            BenchError: One has; the message shows the end of its log.
        """
        for child in self._children:
            if not child.is_alive():
                raise BenchError(
                    f"{self.name}: {child.name} {child.ended_how()}:\n{child.last_words()}"
                )

    def leader_url(self) -> str:
        """Where the leader serves clients now.

        Raises:
            BenchError: Nobody leads, or a node has ended.
        """
        self.check_alive()
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            for node in self._nodes:
                if ask(node).leads:
                    return node.client_url
            time.sleep(0.1)
        raise BenchError(f"{self.name} has lost its leader")

    def fill(self) -> None:
        """Write every key once, so that each get finds one."""
        with Client([self.leader_url()]) as client:
            for first in range(0, KEYS, TXN_OPS):
                numbers = range(first, first + TXN_OPS)
                puts = [PutRequest(key=b"key-%05d" % number, value=VALUE) for number in numbers]
                client.txn([], [RequestOp(request_put=put) for put in puts])


def ours() -> System:
    """This tree's kvstore."""
    return System("kvstore", f"kvstore {KVSTORE_VERSION}", serve_arguments, 12479)


def etcd() -> System | None:
    """The etcd that is installed, if one is."""
    program = shutil.which("etcd")
    if program is None:
        return None
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    version = answer.stdout.splitlines()[0].rpartition(" ")[2]

    def arguments(node: Node, nodes: Sequence[Node]) -> list[str]:
        return [
            program,
            f"--name={node.name}",
            f"--data-dir={node.data_dir}",
            f"--listen-client-urls={node.client_url}",
            f"--advertise-client-urls={node.client_url}",
            f"--listen-peer-urls={node.peer_url}",
            f"--initial-advertise-peer-urls={node.peer_url}",
            f"--initial-cluster={','.join(f'{one.name}={one.peer_url}' for one in nodes)}",
            "--initial-cluster-state=new",
            "--log-level=error",
        ]

    return System("etcd", f"etcd {version}", arguments, 13479)
