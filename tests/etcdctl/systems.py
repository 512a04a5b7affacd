"""Clusters that etcdctl is pointed at: ours, or Debian's etcd, of one node or three."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from kvstore.cli.cluster_nodes import Node, plan
from kvstore.cli.processes import Child, stop_all
from tests.e2e.cluster import free_ports
from tests.e2e.processes import environment

ETCD: Final = shutil.which("etcd")

FLAGS: Final = (
    "--heartbeat-interval=100",
    "--election-timeout=1000",
    "--bcrypt-cost=4",
    "--log-level=error",
)


class Certificates(msgspec.Struct, frozen=True, kw_only=True):
    """Files: who signed, and what a server and a client show."""

    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path


class System:
    """A cluster under test. Everything it starts is ended by ``close``.

    Args:
        name: ``kvstore`` or ``etcd``.
        directory: Holds its data and its logs.
        size: How many nodes.
        certificates: For clients' connections; None: they are not encrypted.
    """

    def __init__(
        self, name: str, directory: Path, size: int, certificates: Certificates | None = None
    ) -> None:
        self.name = name
        self.certificates = certificates
        ports = free_ports(2 * size)
        self.nodes = plan(directory, ports[:size], ports[size:])
        self._children: list[Child] = []

    @property
    def endpoints(self) -> list[str]:
        """The client URLs of all nodes."""
        scheme = "http" if self.certificates is None else "https"
        return [f"{scheme}://127.0.0.1:{node.client_port}" for node in self.nodes]

    @property
    def peer_urls(self) -> list[str]:
        """Where the nodes hear each other."""
        return [node.peer_url for node in self.nodes]

    def start(self) -> None:
        """Start all nodes."""
        for node, url in zip(self.nodes, self.endpoints, strict=True):
            arguments = [*self._program(), *self._arguments(node, url), *FLAGS]
            self._children.append(Child(node.name, arguments, node.log_path, environment()))

    def close(self) -> None:
        """End every process."""
        stop_all(self._children)

    def last_words(self) -> str:
        """The end of each node's log."""
        return "\n".join(f"{child.name}:\n{child.last_words(20)}" for child in self._children)

    def _program(self) -> Sequence[str]:
        if self.name == "kvstore":
            return [sys.executable, "-m", "kvstore.cli", "serve"]
        assert ETCD is not None, "etcd is not installed"
        return [ETCD, "--logger=zap"]

    def _arguments(self, node: Node, client_url: str) -> list[str]:
        members = ",".join(f"{one.name}={one.peer_url}" for one in self.nodes)
        arguments = [
            f"--name={node.name}",
            f"--data-dir={node.data_dir.absolute()}",
            f"--listen-client-urls={client_url}",
            f"--advertise-client-urls={client_url}",
            f"--listen-peer-urls={node.peer_url}",
            f"--initial-advertise-peer-urls={node.peer_url}",
            f"--initial-cluster={members}",
            "--initial-cluster-state=new",
        ]
        files = self.certificates
        if files is not None:
            arguments += [
                f"--cert-file={files.server}",
                f"--key-file={files.server_key}",
                f"--trusted-ca-file={files.authority}",
                "--client-cert-auth",
            ]
        return arguments
