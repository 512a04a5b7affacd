"""A real cluster under test, on free ports of the loopback interface, its data in a directory."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from kvstore.cli.cluster_nodes import Node, plan
from kvstore.client import Client, Tls
from kvstore.errors import KvError
from tests.e2e.processes import Member, wait_for

HOST: Final = "127.0.0.1"
PORT_MIN: Final = 10_000
LEADER_SECONDS: Final = 15.0
CAUGHT_UP_SECONDS: Final = 20.0

_rng = random.Random()  # Test runs side by side must not choose the same ports: no seed.


def _ephemeral_port_min() -> int:
    """Where the ports begin that the kernel gives to outgoing connections."""
    with contextlib.suppress(OSError, ValueError):
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return 32_768


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, none of which an outgoing connection can take.

    A port out of the ephemeral range could be lent to a client's connection while its node is down,
    and the node could then not come back.
    """
    found: set[int] = set()
    for _ in range(1_000):
        if len(found) == count:
            return sorted(found)
        port = _rng.randrange(PORT_MIN, max(_ephemeral_port_min(), PORT_MIN + 1_000))
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                found.add(port)
    raise AssertionError(f"found no {count} free ports from {PORT_MIN} on")


class SecureNode(Node, frozen=True, kw_only=True):
    """A node that is reached by TLS."""

    peers_too: bool

    @property
    def client_url(self) -> str:
        return f"https://{HOST}:{self.client_port}"

    @property
    def peer_url(self) -> str:
        return f"{'https' if self.peers_too else 'http'}://{HOST}:{self.peer_port}"


class Cluster:
    """Some members that know each other. Everything it starts is ended by ``close``, by its id.

    ``flags`` go to each member's command line. By a member's name ``own_flags`` gives more of them,
    and ``trace`` what goes before the command line. With ``tls``, which is what clients bring, the
    client URLs are https, and with ``peers_too`` all are; the flags must name certificates.
    """

    def __init__(
        self,
        directory: Path,
        *,
        size: int = 3,
        flags: Sequence[str] = (),
        own_flags: Callable[[str], Sequence[str]] = lambda name: (),
        trace: Callable[[str], Sequence[str]] = lambda name: (),
        tls: Tls | None = None,
        peers_too: bool = False,
    ) -> None:
        ports = free_ports(2 * size)
        nodes = plan(directory, ports[:size], ports[size:])
        if tls is not None:
            nodes = [
                SecureNode(**msgspec.structs.asdict(node), peers_too=peers_too) for node in nodes
            ]
        self.tls = tls
        self.members = [
            Member(node, nodes, [*flags, *own_flags(node.name)], trace(node.name), tls)
            for node in nodes
        ]

    @property
    def urls(self) -> list[str]:
        """The client URLs of all members."""
        return [member.client_url for member in self.members]

    def start(self) -> None:
        """Start all that do not run, and wait until each of them serves."""
        for member in self.members:
            if not member.is_running:
                member.start()
        for member in self.members:
            member.wait_ready()

    def close(self) -> None:
        """End every process, whatever state it is in."""
        for member in self.members:
            member.discard()

    def client(self, seconds: float = 10.0) -> Client:
        """A client that knows all members."""
        return Client(self.urls, seconds, tls=self.tls)

    def leader(self, among: Sequence[Member] | None = None) -> Member:
        """The member that all of ``among`` (those that run) take for the leader."""
        asked = list(among or (member for member in self.members if member.is_running))

        def look() -> Member | None:
            try:
                answers = [(member, member.status()) for member in asked]
            except KvError:
                return None
            leaders = {answer.leader for _, answer in answers}
            if len(leaders) != 1 or len({answer.raftTerm for _, answer in answers}) != 1:
                return None
            for member, answer in answers:
                if answer.header is not None and answer.header.member_id in leaders:
                    return member
            return None

        names = ", ".join(member.name for member in asked)
        return wait_for(f"{names} agree on a leader among them", look, LEADER_SECONDS)

    def wait_caught_up(self, member: Member) -> None:
        """Wait till a member has applied what the leader has by now."""
        applied = self.leader().status().raftAppliedIndex
        wait_for(
            f"{member.name} has applied {applied}",
            lambda: member.status().raftAppliedIndex >= applied,
            CAUGHT_UP_SECONDS,
        )

    def followers(self) -> list[Member]:
        """All but the leader, all of them running."""
        leader = self.leader()
        return [member for member in self.members if member is not leader]

    def logs(self) -> Iterator[tuple[str, str]]:
        """Each member's name and the end of its log."""
        for member in self.members:
            yield member.name, member.log()
