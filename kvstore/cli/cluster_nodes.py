"""The nodes of a cluster on this machine: their ports, their command lines, how they are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from kvstore.cli.processes import Child, port_is_free
from kvstore.client import Client
from kvstore.errors import ConfigError, KvError, KvstoreError

HOST: Final = "127.0.0.1"
CLIENT_PORTS: Final = (2379, 22379, 32379)
PEER_PORTS: Final = (2380, 22380, 32380)
POLL_SECONDS: Final = 0.4


class PortInUseError(KvstoreError):
    """Somebody else listens where a node wants to."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """Where one node listens and lies."""

    name: str
    client_port: int
    peer_port: int
    data_dir: Path
    log_path: Path

    @property
    def client_url(self) -> str:
        """Where clients reach it."""
        return f"http://{HOST}:{self.client_port}"

    @property
    def peer_url(self) -> str:
        """Where the others reach it."""
        return f"http://{HOST}:{self.peer_port}"


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What a node says of itself; ``error`` if it says nothing."""

    member_id: int = 0
    leader_id: int = 0
    term: int = 0
    revision: int = 0
    size_bytes: int = 0
    error: str = ""

    @property
    def leads(self) -> bool:
        """Whether it is the leader."""
        return self.member_id != 0 and self.member_id == self.leader_id


def plan(base_dir: Path, client_ports: Sequence[int], peer_ports: Sequence[int]) -> list[Node]:
    """The nodes of a cluster.

    Raises:
        ConfigError: Not one port of each kind a node, or one twice.
    """
    if len(client_ports) != len(peer_ports):
        raise ConfigError(
            f"--client-ports and --peer-ports: need one a node each, not {len(client_ports)} "
            f"and {len(peer_ports)}"
        )
    ports = [*client_ports, *peer_ports]
    if len(set(ports)) != len(ports):
        raise ConfigError("--client-ports and --peer-ports: the same port is there twice")
    return [
        Node(
            name=f"node{number}",
            client_port=client_port,
            peer_port=peer_port,
            data_dir=base_dir / f"node{number}",
            log_path=base_dir / f"node{number}.log",
        )
        for number, (client_port, peer_port) in enumerate(
            zip(client_ports, peer_ports, strict=True), start=1
        )
    ]


def serve_arguments(node: Node, nodes: Sequence[Node]) -> list[str]:
    """The command line that runs one of the nodes, from whichever directory."""
    return [
        sys.executable,
        "-m",
        "kvstore.cli",
        "serve",
        f"--name={node.name}",
        f"--data-dir={node.data_dir.absolute()}",
        f"--listen-client-urls={node.client_url}",
        f"--advertise-client-urls={node.client_url}",
        f"--listen-peer-urls={node.peer_url}",
        f"--initial-advertise-peer-urls={node.peer_url}",
        f"--initial-cluster={','.join(f'{one.name}={one.peer_url}' for one in nodes)}",
        "--initial-cluster-state=new",
    ]


def check_ports(nodes: Sequence[Node]) -> None:
    """See that nobody else listens where the nodes want to.

    Raises:
        PortInUseError: Somebody does; the message says where, and what to do.
    """
    for node in nodes:
        for port in (node.client_port, node.peer_port):
            if not port_is_free(HOST, port):
                raise PortInUseError(
                    f"port {port} on {HOST} is in use, perhaps by a cluster that still runs: "
                    "stop it, or choose others with --client-ports and --peer-ports"
                )


def start(nodes: Sequence[Node], extra: Sequence[str] = ()) -> list[Child]:
    """Start all nodes; ``extra`` goes to the end of each command line."""
    return [
        Child(node.name, [*serve_arguments(node, nodes), *extra], node.log_path) for node in nodes
    ]


def ask(node: Node) -> State:
    """How is it?"""
    try:
        with Client([node.client_url], timeout=POLL_SECONDS) as client:
            status = client.status()
    except KvError as error:
        return State(error=error.message)
    return State(
        member_id=status.header.member_id if status.header is not None else 0,
        leader_id=status.leader,
        term=status.raftTerm,
        revision=status.header.revision if status.header is not None else 0,
        size_bytes=status.dbSize,
    )
