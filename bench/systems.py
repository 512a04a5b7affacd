"""The clusters that are compared: as many nodes each, started alike, with their own defaults."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.figures import BenchError
from kvstore.cli.cluster_nodes import HOST, Node, ask, check_ports, plan
from kvstore.cli.processes import Child, stop_all
from kvstore.client import Client
from kvstore.types import PutRequest, RequestOp
from kvstore.version import KVSTORE_VERSION

READY_SECONDS: Final = 60.0
STOP_SECONDS: Final = 2.0
"""A leader of etcd that has nobody left to hand over to takes longer; then it is killed."""
KEYS: Final = 10_000
VALUE: Final = b"value-" * 42 + b"valv"
TXN_OPS: Final = 100


class System:
    """One system under load: so many nodes, each with its defaults and ``extra`` flags."""

    def __init__(
        self,
        name: str,
        version: str,
        program: Sequence[str],
        first_port: int,
        *,
        nodes: int = 3,
        extra: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.version = version
        self._program = list(program)
        self._extra = list(extra)
        self._client_ports = tuple(range(first_port, first_port + 100 * nodes, 100))
        self._nodes: list[Node] = []
        self._children: list[Child] = []
        self._advertised_ports: dict[int, int] = {}

    @property
    def peer_ports(self) -> tuple[int, ...]:
        """Where the nodes listen for one another."""
        return tuple(port + 1 for port in self._client_ports)

    @property
    def urls(self) -> list[str]:
        """Where the nodes serve clients."""
        return [node.client_url for node in self._nodes]

    @property
    def pids(self) -> list[int]:
        """The processes of the nodes, in their order."""
        return [child.pid for child in self._children]

    @property
    def data_dirs(self) -> list[Path]:
        """Where the nodes keep their data, in their order."""
        return [node.data_dir for node in self._nodes]

    def start(self, base_dir: Path, advertised_ports: Mapping[int, int] | None = None) -> None:
        """Start the nodes and wait until they have a leader.

        Args:
            base_dir: Where their data and logs go.
            advertised_ports: Where the others find the node that listens on a peer port, if that
                is not this port itself: a relay stands between.

        Raises:
            BenchError: They do not come up.
        """
        self._nodes = plan(base_dir / self.name, self._client_ports, self.peer_ports)
        check_ports(self._nodes)
        self._advertised_ports = dict(advertised_ports or {})
        self._children = [self._child(node) for node in self._nodes]
        self.wait_ready()

    def restart(self, position: int) -> None:
        """Start one node again that has ended, and do not wait for it."""
        self._children[position] = self._child(self._nodes[position])

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until each node knows a leader.

        Raises:
            BenchError: One has ended, or they take longer.
        """
        deadline = time.monotonic() + seconds
        while not all(ask(node).leader_id for node in self._nodes):
            self.check_alive()
            if time.monotonic() > deadline:
                raise BenchError(f"{self.name} has no leader after {seconds:.0f} s")
            time.sleep(0.1)

    def _child(self, node: Node) -> Child:
        peers = {one.name: self._peer_url(one) for one in self._nodes}
        arguments = [
            *self._program,
            f"--name={node.name}",
            f"--data-dir={node.data_dir.absolute()}",
            f"--listen-client-urls={node.client_url}",
            f"--advertise-client-urls={node.client_url}",
            f"--listen-peer-urls={node.peer_url}",
            f"--initial-advertise-peer-urls={peers[node.name]}",
            f"--initial-cluster={','.join(f'{name}={url}' for name, url in peers.items())}",
            "--initial-cluster-state=new",
            *self._extra,
        ]
        return Child(node.name, arguments, node.log_path)

    def _peer_url(self, node: Node) -> str:
        port = self._advertised_ports.get(node.peer_port, node.peer_port)
        return f"http://{HOST}:{port}"

    def stop(self) -> None:
        """Stop the nodes that we started."""
        stop_all(self._children, seconds=STOP_SECONDS)

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
        return self._nodes[self.leader()].client_url

    def leader(self) -> int:
        """Which of the nodes leads, as its position.

        Raises:
            BenchError: Nobody leads, or a node has ended.
        """
        self.check_alive()
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            for position, node in enumerate(self._nodes):
                if ask(node).leads:
                    return position
            time.sleep(0.1)
        raise BenchError(f"{self.name} has lost its leader")

    def fill(self) -> None:
        """Write every key once, so that each get finds one."""
        with Client([self.leader_url()]) as client:
            for first in range(0, KEYS, TXN_OPS):
                numbers = range(first, first + TXN_OPS)
                puts = [PutRequest(key=b"key-%05d" % number, value=VALUE) for number in numbers]
                client.txn([], [RequestOp(request_put=put) for put in puts])

    def compact(self) -> None:
        """Forget all history: what is measured later must not be of a larger store."""
        with Client([self.leader_url()]) as client:
            header = client.get(b"key-00000").header
            if header is not None:
                client.compact(header.revision, physical=True)


def ours(first_port: int = 12479, *, nodes: int = 3, extra: Sequence[str] = ()) -> System:
    """This tree's kvstore."""
    program = [sys.executable, "-m", "kvstore.cli", "serve"]
    version = f"kvstore {KVSTORE_VERSION}"
    return System("kvstore", version, program, first_port, nodes=nodes, extra=extra)


def etcd(first_port: int = 13479, *, nodes: int = 3, extra: Sequence[str] = ()) -> System | None:
    """The etcd that is installed, if one is."""
    program = shutil.which("etcd")
    if program is None:
        return None
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    version = f"etcd {answer.stdout.splitlines()[0].rpartition(' ')[2]}"
    quiet = ["--log-level=error", *extra]
    return System("etcd", version, [program], first_port, nodes=nodes, extra=quiet)
