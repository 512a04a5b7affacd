"""Whole members, three to a cluster, in one process: what production runs, on a disk that forgets
whatever was not synced and a network that obeys the test.

A run is decided by its seed. Each member is a ``Process`` on the virtual loop: ``crash`` is a power
cut, ``stop`` is SIGTERM, ``pause`` is SIGSTOP.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from kvstore.config import ServerConfig
from tests.support.host import Host
from tests.support.memory_network import Wire
from wal.memory_disk import MemoryDisk

if TYPE_CHECKING:
    from tests.support.virtual_loop import VirtualLoop

KIB = 1024
WAIT_SECONDS_MAX = 60.0
SETTINGS = {
    "wal_segment_bytes": 64 * KIB,
    "snapshot_count": 200,
    "snapshot_catchup_entries": 50,
    "bcrypt_cost": 4,
}
"""Small, so that every run rolls segments and takes snapshots, and logs in quickly."""


class Cluster:
    """Hosts and the wire between them. ``start`` brings them up.

    Args:
        loop: The virtual loop that runs.
        seed: Decides everything that is left to chance.
        size: How many members.
        new_disk: Makes each machine's disk.
        asks: Whether members ask the others who they are before they begin, and may have to be
            replaced first, as in production; else they begin at once with what they find.
        settings: Fields of ``ServerConfig``, the same for all.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        seed: int,
        size: int = 3,
        *,
        new_disk: Callable[[], MemoryDisk] = MemoryDisk,
        asks: bool = False,
        **settings: Any,
    ) -> None:
        self.loop = loop
        self.new_disk = new_disk
        self.asks = asks
        self.seed = seed
        self.rng = random.Random(seed)
        self.wire = Wire(loop, random.Random(self.rng.getrandbits(64)))
        urls: dict[str, tuple[str, ...]] = {
            f"m{number}": (f"http://m{number}:2380",) for number in range(size)
        }
        self.settings = {**SETTINGS, **settings}
        self.on_node: list[Callable[[Host], None]] = []
        """Called with a host whose node was made, before it starts."""
        self.hosts = [
            Host(self, number, self._config(name, urls)) for number, name in enumerate(urls)
        ]
        self._next_number = size

    def _config(
        self, name: str, urls: dict[str, tuple[str, ...]], state: str = "new"
    ) -> ServerConfig:
        return ServerConfig(
            name=name,
            data_dir="/data",
            listen_peer_urls=urls[name],
            initial_cluster=urls,
            initial_cluster_state=state,
            **self.settings,
        )

    def new_host(self) -> Host:
        """One more machine, with an empty disk; nobody knows it yet."""
        number, self._next_number = self._next_number, self._next_number + 1
        name = f"m{number}"
        urls = {host.config.name: host.config.initial_advertise_peer_urls for host in self.hosts}
        urls[name] = (f"http://{name}:2380",)
        host = Host(self, number, self._config(name, urls, "existing"))
        self.hosts.append(host)
        return host

    async def retire(self, host: Host) -> None:
        """Wait till a member that was removed has ended by itself, and take its machine away."""
        if host.up or host.ending is not None:
            await self.wait(lambda: not host.up and not host.opens)
            assert host.ending is not None, f"member {host.number} ended, and not by itself"
        self.hosts.remove(host)

    def __getitem__(self, number: int) -> Host:
        return self.hosts[number]

    @property
    def up(self) -> list[Host]:
        return [host for host in self.hosts if host.up]

    async def start(self) -> None:
        """Start all, and wait till each is ready for clients."""
        for host in self.hosts:
            if not host.up:
                await host.start()
        for host in self.hosts:
            await self.wait(host.node.ready.is_set)

    async def wait(
        self, condition: Callable[[], object], seconds_max: float = WAIT_SECONDS_MAX
    ) -> None:
        """Let virtual time go by until a condition holds."""
        give_up = self.loop.now + seconds_max
        while not condition():
            assert self.loop.now < give_up, f"not within {seconds_max} s: {condition.__qualname__}"
            self.check()
            await asyncio.sleep(0.01)

    def leader(self) -> Host | None:
        """The leader of the newest term, if there is one among those that are up."""
        leaders = [host for host in self.hosts if host.leads]
        return max(leaders, key=lambda host: host.node.driver.raft.term, default=None)

    async def wait_leader(self, *, other_than: Host | None = None) -> Host:
        """Wait till somebody leads (somebody else), and a majority knows it."""

        def found() -> Host | None:
            leader = self.leader()
            if leader is None or leader is other_than:
                return None
            followers = [
                host for host in self.up if host.node.driver.leader == leader.node.member_id
            ]
            return leader if 2 * len(followers) > len(self.hosts) else None

        await self.wait(found)
        leader = found()
        assert leader is not None
        return leader

    async def followers(self) -> list[Host]:
        """All that are up and do not lead."""
        leader = await self.wait_leader()
        return [host for host in self.up if host is not leader]

    async def wait_equal(self) -> None:
        """Wait till all have applied the same, and check that it came to the same."""
        for host in self.hosts:
            assert host.up, f"member {host.number} is down"

        def equal() -> bool:
            return len({host.machine.applied_index for host in self.hosts}) == 1

        await self.wait(equal)
        hashes = {host.machine.effects_hash for host in self.hosts}
        assert len(hashes) == 1, f"members differ at equal index: {hashes}"
        revisions = {host.machine.store.revision for host in self.hosts}
        assert len(revisions) == 1, f"members differ in revision: {revisions}"

    def check(self) -> None:
        """No member has given up, unless it was made to; nothing failed unheard."""
        for host in self.up:
            failed = host.node.failed
            if not failed.done() or host.failure_expected:
                continue
            if not host.ends_by_itself(failed.result()):
                raise AssertionError(f"member {host.number} failed") from failed.result()
        if self.loop.failures:
            failure = self.loop.failures[0]
            raise AssertionError(failure["message"]) from failure.get("exception")

    async def stop(self) -> None:
        """End all cleanly."""
        self.check()
        await asyncio.gather(*(host.stop() for host in self.up))


Scenario = Callable[[Cluster], Awaitable[None]]
