"""One run: a cluster, its clients, what goes wrong, and the verdict."""

from __future__ import annotations

import asyncio
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from kvstore.types import LeaseLeasesRequest, PutRequest
from tests.checking.history import History, Outcome
from tests.checking.judge import judge
from tests.checking.leases import LATE_SECONDS
from tests.checking.violation import ViolationError
from tests.sim.checkers import all_checkers
from tests.sim.client import Client
from tests.sim.disk import SimDisk
from tests.sim.faults import FAULTS
from tests.sim.faults.clocks import DRIFT_MAX
from tests.sim.machines import Machines
from tests.sim.marks import Marks
from tests.sim.observer import Observer
from tests.sim.schedule import Fault, pace_of, replaces_themselves, size_of
from tests.sim.situations import Situations
from tests.sim.trace import NOBODY, Trace
from tests.sim.truth import Truth
from tests.sim.workloads import WORKLOADS
from tests.support.cluster import Cluster
from tests.support.host import Host
from tests.support.virtual_loop import current_process
from wal.memory_disk import PowerCutError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from typing import Any

    from tests.sim.profile import Profile
    from tests.support.virtual_loop import Process, VirtualLoop

READY_SECONDS_MAX = 30.0
RECOVERY_SECONDS_MAX = 60.0
"""So long after the last fault the cluster may take to serve, and its members to agree."""
MARKS_TRACED_MAX = 20
"""What comes up more often is no longer rare; the trace has the first ones."""
SHORT_LEASE_SECONDS = 10
LEASES_SECONDS_MAX = 2 * SHORT_LEASE_SECONDS + LATE_SECONDS
"""Who held such a lease has long given it up by then."""
LAST_WORDS_SECONDS_MAX = 60.0
"""So long after that clients may take to come to their end."""


class World:
    """Everything in a run.

    Args:
        loop: The virtual loop that runs.
        seed: Decides all that is left to chance.
        profile: How large and how rough.
        faults: What goes wrong, and when.
        messages: Whether the trace has every message.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        seed: int,
        profile: Profile,
        faults: list[Fault],
        *,
        messages: bool = False,
    ) -> None:
        self.loop = loop
        self.seed = seed
        self.profile = profile
        self.faults = faults
        self.trace = Trace(loop, messages=messages)
        self.marks = Marks()
        self.marks.on_hit = self._on_mark
        self.history = History()
        self.violated: asyncio.Future[ViolationError] = loop.create_future()
        alone = replaces_themselves(seed, profile)
        settings = {
            **pace_of(seed, profile),
            **profile.settings,
            "replace_damaged_member": alone,
        }
        self.cluster = Cluster(
            loop, seed, size_of(seed, profile), new_disk=SimDisk, asks=True, **settings
        )
        self.observer = Observer(self.trace, self.marks, self.report)
        self.truth = Truth(self)
        self.observer.checkers = [self.truth, *all_checkers(self)]
        self.machines = Machines(self, replace_themselves=alone)
        self.situations = Situations(self.marks)
        self.cluster.on_node.append(self.situations.on_node)
        self.cluster.on_node.append(self.observer.on_node)
        self.changing_members = asyncio.Lock()
        """Held by whoever changes the members: operators do not get into each other's way."""
        self.working = False
        self.struck: list[str] = []
        loop.clock_cost_seconds = random.Random(f"clock {seed}").choice(profile.clock_costs)
        self._clients_total = 0
        self._tokens_total = 0
        self._waiting: list[Fault] = []
        self._listening: list[tuple[str, Callable[[int], bool]]] = []
        self._stopping: list[Process] = []
        self._striking: list[asyncio.Task[None]] = []

    # --- for workloads, faults and checkers -------------------------------------------------------

    def new_client_number(self) -> int:
        """A number that no client has had."""
        self._clients_total += 1
        return self._clients_total

    def new_token(self) -> int:
        """A number that nobody else gets, to make values unique."""
        self._tokens_total += 1
        return self._tokens_total

    def report(self, violation: ViolationError) -> None:
        """A promise was broken: the run ends at once. The first one counts."""
        if not self.violated.done():
            self.trace.add("violation", NOBODY, str(violation))
            self.violated.set_result(violation)

    @contextmanager
    def at_mark(self, mark: str, do: Callable[[int], bool]) -> Iterator[None]:
        """While this lasts, have something done in the very step of a mark.

        Args:
            mark: Which.
            do: Given the number of the member that is in the situation, returns whether it was the
                right one, so that nothing more is to be done.
        """
        listener = (mark, do)
        self._listening.append(listener)
        try:
            yield
        finally:
            if listener in self._listening:
                self._listening.remove(listener)

    def victim(self, fault: Fault) -> Host | None:
        """Which of the members that are up a fault concerns; None if none is."""
        up = self.cluster.up
        return up[fault.victim % len(up)] if up else None

    def crash(self, host: Host) -> None:
        """Cut a machine's power."""
        self.trace.add("crash", host.number, "power cut")
        self.observer.on_end(host)
        host.crash()

    def kill(self, host: Host) -> None:
        """SIGKILL: the process is gone, the machine and what it has not synced yet are not."""
        self.trace.add("kill", host.number, "SIGKILL")
        self.observer.on_end(host)
        host.kill()

    async def stop(self, host: Host) -> None:
        """SIGTERM, unless it had one."""
        process = host.process
        if process is None or process in self._stopping:
            return
        self._stopping.append(process)
        self.trace.add("stop", host.number, "SIGTERM")
        await host.stop()
        if host.process is process:
            self.observer.on_end(host)

    async def start(self, host: Host) -> None:
        """Start a process on what the disk holds, unless one runs or the machine was given up."""
        await self.machines.start(host)

    # --- the run ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work, break, heal, judge.

        Raises:
            ViolationError: A promise was broken.
        """
        await self._unless_violated(self._begin())
        clients = [self._employ(name, number) for name, number in self._chosen()]
        await self._unless_violated(self._work())
        await self._unless_violated(self._recover())
        self.working = False
        if clients:
            _, late = await asyncio.wait(clients, timeout=LAST_WORDS_SECONDS_MAX)
            if self.violated.done():
                raise self.violated.result()
            assert not late, f"clients do not come to an end: {[task.get_name() for task in late]}"
        for client in clients:
            client.result()
        await self._unless_violated(self._judge())

    def _chosen(self) -> list[tuple[str, int]]:
        """Which workloads take part, each with a number: every one is drawn by itself, so that
        taking one away changes nothing about the others.
        """
        profile = self.profile
        return [
            (name, number)
            for name, count in profile.workloads.items()
            if random.Random(f"share {self.seed} {name}").random() < profile.workload_share
            for number in range(count)
        ]

    def _employ(self, name: str, number: int) -> asyncio.Task[None]:
        rng = random.Random(f"client {self.seed} {name} {number}")
        work = WORKLOADS[name](self, Client(self, rng), rng)
        return self.loop.create_task(work, name=f"{name} {number}")

    async def _unless_violated(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something, but stop as soon as a promise is broken."""
        task = self.loop.create_task(work)
        both: list[asyncio.Future[Any]] = [task, self.violated]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if self.violated.done():
            task.cancel()
            raise self.violated.result()
        await task

    async def _begin(self) -> None:
        for host in self.cluster.hosts:
            self.situations.follow_disk(host)
        async with asyncio.timeout(READY_SECONDS_MAX):
            await self.cluster.start()
        self.working = True

    async def _work(self) -> None:
        begun = self.loop.now
        for fault in self.faults:
            await asyncio.sleep(max(0.0, begun + fault.at - self.loop.now))
            if fault.on:
                self._waiting.append(fault)
            else:
                self._strike(fault)
        await asyncio.sleep(max(0.0, begun + self.profile.seconds - self.loop.now))
        self._waiting.clear()

    def _on_mark(self, mark: str, member: int) -> None:
        if self.marks.counts[mark] <= MARKS_TRACED_MAX:
            self.trace.add("mark", member, mark)
        for fault in self._waiting:
            if fault.on == mark:
                self._waiting.remove(fault)
                numbers = [host.number for host in self.cluster.up]
                if member in numbers:
                    # The very member that is in the situation.
                    fault = msgspec.structs.replace(fault, victim=numbers.index(member), on="")
                self._strike(fault)
                break
        for listener in [each for each in self._listening if each[0] == mark]:
            if listener in self._listening and listener[1](member):
                self._listening.remove(listener)
        process = current_process()
        if process is not None and not process.alive:
            # It has just died, in the middle of this step.
            raise PowerCutError

    def _strike(self, fault: Fault) -> None:
        self.trace.add("fault", NOBODY, f"{fault.number} {fault.kind} {fault.amount:.2f}")
        self.struck.append(fault.kind)
        rng = random.Random(f"fault {self.seed} {fault.number}")
        work = FAULTS[fault.kind](self, fault, rng)
        self._striking.append(self.loop.create_task(work, context=self.loop.nobody))

    async def _recover(self) -> None:
        """End all faults, and wait till the cluster serves and its members agree (liveness)."""
        while self._striking:
            task = self._striking.pop()
            await asyncio.wait([task])
            task.result()
        self.cluster.wire.heal()
        await self.machines.settle()
        for host in list(self.cluster.hosts):
            await self.start(host)
        client = Client(self, random.Random(f"last {self.seed}"))
        give_up = self.loop.now + RECOVERY_SECONDS_MAX
        while True:
            operation = await client.call("put", PutRequest(b"last", b"words"))
            if operation.outcome is Outcome.OK:
                return
            if self.loop.now > give_up:
                raise ViolationError("liveness", f"no write succeeds: {operation.error}")
            await asyncio.sleep(0.2)

    async def _outlive_leases(self) -> None:
        """Nobody renews a lease any more: they run out, or are found to be overdue."""
        give_up = self.loop.now + LEASES_SECONDS_MAX
        while self.loop.now < give_up and self._has_short_leases():  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        client = Client(self, random.Random(f"leases {self.seed}"))
        await client.call("lease_leases", LeaseLeasesRequest())

    def _has_short_leases(self) -> bool:
        return any(
            ttl_seconds <= SHORT_LEASE_SECONDS
            for host in self.cluster.up
            for _, ttl_seconds, _, _ in host.machine.lessor.export()
        )

    async def _judge(self) -> None:
        calm_since = self.loop.now
        await self._outlive_leases()
        try:
            await self.cluster.wait_equal()
        except AssertionError as error:
            raise ViolationError("equality", str(error)) from error
        self.history.ended_at = self.loop.now
        await self.machines.settle()
        if not judge(self.history, drift_share=DRIFT_MAX, calm_since=calm_since):
            self.marks.hit("history undecided")
        for checker in self.observer.checkers:
            checker.at_end()
        self.cluster.check()
