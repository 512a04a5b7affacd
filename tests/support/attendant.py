"""What runs a member in production: ``kvstore serve``, and a service manager that restarts it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from kvstore.errors import KvstoreError, RemovedError
from kvstore.server.network.base import Network, NetworkError
from kvstore.server.self_replacement import MemberOpening
from tests.support.virtual_loop import ProcessKilledError
from wal.errors import WalError

if TYPE_CHECKING:
    from kvstore.server.identity import Identity
    from tests.support.host import Host
    from tests.support.virtual_loop import Process

RESTART_SECONDS = 1.0


class Attendant:
    """Keeps a host's member running, from when it is made.

    Args:
        host: Whose process is down.

    Attributes:
        ends: What each life ended with that did not end by a power cut.
        lobbies: How often a member waited to be replaced, by its id.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._loop = host.cluster.loop
        self._networks: list[int] = []
        self._stopping = False
        self.ends: list[BaseException] = []
        self.lives = 0
        host.failure_expected = True
        self._task = self._loop.create_task(self._run())

    @property
    def ids(self) -> list[int]:
        """As whom this host has been on the network, in order."""
        return list(dict.fromkeys(self._networks))

    @property
    def waits(self) -> bool:
        """Whether a process runs here which is no member yet."""
        return self._host.opens

    async def _run(self) -> None:
        while not self._stopping:
            self.lives += 1
            await self._live()
            await asyncio.sleep(RESTART_SECONDS)

    async def _live(self) -> None:
        """One process, as ``kvstore.run.run`` has it."""
        host = self._host
        process, environment = host.boot()
        new_network = environment.new_network

        def noted(identity: Identity) -> Network:
            self._networks.append(identity.member_id)
            return new_network(identity)

        environment = msgspec.structs.replace(environment, new_network=noted)
        opening = MemberOpening(host.config, environment, host.ask)
        failure: BaseException | None = None
        try:
            while True:
                node = await process.finish(opening.open(failure))
                host.adopt(node)
                await process.finish(node.start())
                failure = await self._failure(process)
                self.ends.append(failure)
                await process.finish(node.stop())
                host.disown()
                if not opening.ends_in_replacement(failure):
                    return
        except ProcessKilledError:
            return
        except (KvstoreError, WalError, NetworkError) as error:
            self.ends.append(error)
        finally:
            if process.alive:
                self._power_off(process)

    async def _failure(self, process: Process) -> BaseException:
        failed = self._host.node.failed
        both: list[asyncio.Future[Any]] = [failed, process.ended]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not failed.done():
            raise ProcessKilledError(process.name)
        return failed.result()

    def _power_off(self, process: Process) -> None:
        host = self._host
        process.kill()
        for member in self.ids:
            host.cluster.wire.detach(member)
        host.disown()
        host.disk.crash(host.cluster.rng)

    def crash(self) -> None:
        """Cut the power, whatever runs; it comes back in a while."""
        process = self._host.process
        if process is not None and process.alive:
            self._power_off(process)

    async def end(self) -> None:
        """Go, and leave the member to the test."""
        self._stopping = True
        self.crash()
        await self._task
        self._host.failure_expected = False


def was_removed(attendant: Attendant) -> bool:
    """Whether one of its lives ended because the cluster has it no more."""
    return any(isinstance(end, RemovedError) for end in attendant.ends)
