"""Keeps the machines of a run going: an init system that starts what ended, an operator who puts a
new machine in the place of one whose disk is damaged, and the account of how much is damaged.

In some runs the members may replace themselves: then the operator only comes where they refuse to.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from kvstore.errors import ConfigError, KvstoreError, RemovedError
from kvstore.server.bootstrap import layout
from kvstore.server.joining import LostMemberError, NotThereYetError
from kvstore.types import Member, MemberListRequest, MemberPromoteRequest
from raft.errors import RaftError
from tests.checking.history import Outcome
from tests.checking.violation import ViolationError
from tests.sim.client import Client
from tests.support.host import ProcessLostError
from tests.support.operator import Operator
from wal.errors import DiskError, WalError
from wal.memory_disk import PowerCutError
from wal.wal import Wal

if TYPE_CHECKING:
    from tests.sim.disk import SimDisk
    from tests.sim.world import World
    from tests.support.host import Host
    from tests.support.virtual_loop import Process

RESTART_SECONDS = 0.5
"""How long the init system waits before it starts again what ended by itself."""
POWER_SECONDS_MAX = 2.0
STOP_SECONDS_MAX = 10.0
"""So long a process may take to end before it is killed."""
READY_SECONDS_MAX = 30.0
OPEN_SECONDS_MAX = 10.0
"""Whoever starts a machine waits so long till it goes: it may have to be replaced first."""
SETTLE_SECONDS_MAX = 150.0
"""So long after the last fault all that was begun may take to come to its end."""
STEP_SECONDS_MAX = 20.0
STEPS_MAX = 12
FAILURES_MAX = 2
"""A damaged member that ends by itself more often than this is replaced."""
POLL_SECONDS = 0.1
LOOK_SECONDS = 0.5
LOBBY_SECONDS_MAX = 1.5
LOBBY_CRASH_SHARE = 0.4
LOBBY_LOOKS_MAX = 60


class Machines:
    """All machines of a run.

    Attributes:
        damaged: Members whose durable state is in doubt, by number, and what was done to it: a
            damaged disk, or a new machine that does not vote yet in the place of such a one.
        hurt: Members whose disk was ever damaged, by number: some of it may be found much later.
        excused: Members that may end by themselves, or fail to start, for a while, and why.
        refused: What members said that would not start on their disks, in order.
        replaced_total: How many were replaced by an operator.
        replace_themselves: Whether members do that themselves where they can.
        forgotten: Members, by id, whose promises are lost with their disk: none of them may take
            part in anything any more.
        stalled: The processes that wait for a lane of their disk which stalls.
    """

    def __init__(self, world: World, *, replace_themselves: bool) -> None:
        self._world = world
        self.replace_themselves = replace_themselves
        self.forgotten: dict[int, None] = {}
        self.damaged: dict[int, str] = {}
        self.hurt: dict[int, None] = {}
        self.excused: dict[int, str] = {}
        self.refused: list[tuple[int, Exception]] = []
        self.replaced_total = 0
        self.stalled: list[Process | None] = []
        self._failures: dict[int, int] = {}
        self._starting: list[int] = []
        self._given_up: list[int] = []
        self._rng = random.Random(f"machines {world.seed}")
        self._tasks: list[asyncio.Task[None]] = []
        world.cluster.on_node.append(self._on_node)

    # --- starting and ending ----------------------------------------------------------------------

    def disk(self, host: Host) -> SimDisk:
        """A host's disk."""
        from tests.sim.disk import SimDisk

        assert isinstance(host.disk, SimDisk), "every machine here has one"
        return host.disk

    def is_ours(self, host: Host) -> bool:
        """Whether a machine is to run: it is part of the cluster, was started once, and nobody has
        given it up.
        """
        begun = host.known_id != 0 or host.joined
        hosts = self._world.cluster.hosts
        return begun and host in hosts and host.number not in self._given_up

    async def start(self, host: Host, *, power_cut_after_steps: int | None = None) -> None:
        """Start a process on what the disk holds, unless one runs, and go on until it does.

        Args:
            host: Whose.
            power_cut_after_steps: The power goes once more while it recovers, after so many steps
                of the disk.
        """
        if host.number in self._starting or host.up or host.opens or not self.is_ours(host):
            return
        self._starting.append(host.number)
        begun = self.spawn(self._start(host, power_cut_after_steps))
        await asyncio.wait([begun], timeout=OPEN_SECONDS_MAX)

    async def _start(
        self, host: Host, steps: int | None, renewed_after: BaseException | None = None
    ) -> None:
        try:
            if renewed_after is not None:
                self._world.observer.on_end(host)
                await self._attempt(host, host.renew(renewed_after))
                await asyncio.sleep(RESTART_SECONDS)
            while self.is_ours(host) and not host.up and host.ending is None:
                disk = self.disk(host)
                disk.steps_left = steps
                disk.on_power_cut = None
                self._world.situations.follow_disk(host)
                steps = None
                await self._attempt(host, host.start())
                if not host.up:
                    await asyncio.sleep(RESTART_SECONDS)
        finally:
            self._starting.remove(host.number)

    async def _attempt(self, host: Host, opening: Coroutine[Any, Any, None]) -> None:
        """Let a process begin; whoever takes the machine away meanwhile turns it off."""
        begun = self._world.loop.create_task(opening)
        while not begun.done():
            await asyncio.wait([begun], timeout=LOOK_SECONDS)
            if host.opens and not self.is_ours(host):
                host.crash()
        try:
            begun.result()
        except PowerCutError:
            self._world.marks.hit("power cut in recovery", host.number)
        except RemovedError as error:
            self._world.trace.add("removed", host.number, str(error))
        except (WalError, KvstoreError, RaftError, OSError) as error:
            self._on_refusal(host, error)

    def _on_refusal(self, host: Host, error: Exception) -> None:
        world = self._world
        world.trace.add("refusal", host.number, str(error))
        if isinstance(error, DiskError | OSError) and host.number in self.excused:
            return
        if self._asks_in_vain(host, error):
            return
        if host.number not in self.damaged:
            text = f"member {host.number} does not start, and nothing was done to it: {error}"
            world.report(ViolationError("recovery", text))
            return
        world.marks.hit("start refused", host.number)
        self.refused.append((host.number, error))
        self.replace_soon(host)

    def _asks_in_vain(self, host: Host, error: Exception) -> bool:
        """Whether it has nothing on its disk, and nobody whom it reaches knows who it is: not yet,
        or not any more.
        """
        if not isinstance(error, ConfigError) or isinstance(error, LostMemberError):
            return False
        if self.replace_themselves and isinstance(error, NotThereYetError):
            return True
        is_new = host.config.initial_cluster_state == "existing"
        return is_new and not Wal.exists(host.disk, layout(host.config.data_dir).wal)

    def _on_node(self, host: Host) -> None:
        # Whether it may end by itself is judged here, and not by the cluster.
        host.failure_expected = True
        world, process = self._world, host.process
        disk = self.disk(host)
        disk.on_power_cut = partial(self._on_power_cut, host)
        assert process is not None, "its node was made"
        host.node.failed.add_done_callback(
            lambda failed: self._on_failed(host, process, failed), context=world.loop.nobody
        )

    def _on_power_cut(self, host: Host) -> None:
        """The power goes at a step of the disk; it comes back by and by."""
        self._world.crash(host)
        self.spawn(self._power_again(host))

    async def _power_again(self, host: Host) -> None:
        await asyncio.sleep(self._rng.random() * POWER_SECONDS_MAX)
        await self.start(host)

    def _on_failed(
        self, host: Host, process: Process, failed: asyncio.Future[BaseException]
    ) -> None:
        error = failed.result()
        if host.process is not process or not process.alive:
            return
        if isinstance(error, RemovedError):
            if host.ends_in_replacement(error):
                self._renew(host, error)
            return
        world = self._world
        world.trace.add("failure", host.number, f"{type(error).__name__}: {error}")
        number = host.number
        if number not in self.excused and number not in self.damaged:
            violation = ViolationError("no surprise", f"member {number} ended by itself: {error}")
            violation.__cause__ = error
            world.report(violation)
            return
        world.marks.hit("member ended by itself", number)
        self._failures[number] = self._failures.get(number, 0) + 1
        if host.ends_in_replacement(error):
            self._renew(host, error)
        elif number in self.damaged and self._failures[number] > FAILURES_MAX:
            self.replace_soon(host)
        else:
            self.spawn(self._restart(host, process))

    def _renew(self, host: Host, failure: BaseException) -> None:
        """Its process goes on, and asks who it is now."""
        if host.number not in self._starting:
            self._starting.append(host.number)
            self.spawn(self._start(host, None, failure))

    async def _restart(self, host: Host, process: Process) -> None:
        await self._end(host, process)
        await asyncio.sleep(RESTART_SECONDS)
        await self.start(host)

    async def _end(self, host: Host, process: Process) -> None:
        """Let a process end as it does by itself; kill it if it does not."""
        if host.process is process and host.opens:
            host.crash()
        if process.alive:
            stopping = self._world.loop.create_task(self._world.stop(host))
            await asyncio.wait([stopping], timeout=STOP_SECONDS_MAX)
            if stopping.done():
                stopping.result()
            elif host.process is process and host.up:
                self._world.kill(host)

    async def going(self, host: Host) -> None:
        """Wait until a member goes that could not for a while: whatever it is excused for ends."""
        give_up = self._world.loop.now + READY_SECONDS_MAX
        while self._world.loop.now < give_up and self.is_ours(host):
            if host.up and not host.node.failed.done():
                return
            await asyncio.sleep(POLL_SECONDS)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin something that has to come to its end before the run is judged."""
        task = self._world.loop.create_task(work, context=self._world.loop.nobody)
        self._tasks.append(task)
        return task

    async def settle(self) -> None:
        """Wait until all that was begun has ended; nothing that was planned happens any more."""
        for host in self._world.cluster.up:
            host.disk.steps_left = None
            host.disk.failures.clear()
        give_up = self._world.loop.now + SETTLE_SECONDS_MAX
        while self._tasks:
            task = self._tasks.pop()
            left = max(0.0, give_up - self._world.loop.now)
            done, _ = await asyncio.wait([task], timeout=left)
            if not done:
                opening = [host.number for host in self._world.cluster.hosts if host.opens]
                raise ViolationError(
                    "liveness",
                    f"machines {sorted(self.damaged)} never become whole, of which {opening} wait "
                    "to be members again",
                )
            task.result()

    # --- damage -----------------------------------------------------------------------------------

    def may_damage(self, host: Host) -> bool:
        """Whether the cluster can bear that this member's durable state is damaged too."""
        if not self.is_ours(host) or host.number in self.damaged:
            return False
        return len(self.damaged) + self._absent() < (self._voters() - 1) // 2

    def _absent(self) -> int:
        """How many members vote, as far as anybody who is up knows, that were never started."""
        ids = {host.known_id for host in self._world.cluster.hosts}
        absent: set[int] = set()
        for host in self._world.cluster.up:
            rows = host.machine.roster.listed()
            absent.update(row.ID for row in rows if not row.isLearner and row.ID not in ids)
        return len(absent)

    def _voters(self) -> int:
        """The voters of the smallest configuration that anybody who is up has in force."""
        voters = [len(self._world.cluster.hosts)]
        for host in self._world.cluster.up:
            configuration = host.node.driver.raft.configuration
            voters.append(len(configuration.voters))
            if configuration.voters_outgoing:
                voters.append(len(configuration.voters_outgoing))
        return min(voters)

    def damage(self, host: Host, what: str) -> None:
        """Note that a member's durable state was damaged; ``may_damage`` allowed it."""
        self._world.trace.add("damage", host.number, what)
        self.damaged[host.number] = what
        self.hurt[host.number] = None
        if self.replace_themselves:
            self.spawn(self._follow(host, host.known_id))
            self.spawn(self._disturb(host))

    def lose_disk(self, host: Host) -> None:
        """Give a machine that is down an empty disk; the one that it had is lost."""
        self.forgotten[host.known_id] = None
        host.disk = self._world.cluster.new_disk()

    async def _follow(self, host: Host, member: int) -> None:
        """Wait till a machine whose state was damaged is whole after a restart: as the member that
        it was, or as another in its place, which votes again.
        """
        before = host.process
        while host.number in self.damaged:
            if host not in self._world.cluster.hosts:
                del self.damaged[host.number]
            elif host.up and host.process is not before and self._is_whole(host):
                self._failures.pop(host.number, None)
                del self.damaged[host.number]
                if host.known_id != member:
                    self._world.marks.hit("member replaced itself", host.number)
            elif self._is_astray(host):
                self.replace_soon(host)
                return
            else:
                await asyncio.sleep(POLL_SECONDS)

    def _is_astray(self, host: Host) -> bool:
        """Whether a machine that lost its disk looks for others where none is any more.

        All that its flags name have left the cluster: only an operator knows where that is now.
        """
        if host.known_id not in self.forgotten:
            return False
        named = {url for urls in host.config.initial_cluster.values() for url in urls}
        named -= set(host.config.initial_advertise_peer_urls)
        rosters = [other.machine.roster for other in self._world.cluster.up if other is not host]
        there = [member for roster in rosters for member in roster.listed()]
        return bool(there) and not any(named & set(member.peerURLs) for member in there)

    def _is_whole(self, host: Host) -> bool:
        node, roster = host.node, host.machine.roster
        if not node.ready.is_set() or node.failed.done() or _is_mute(host):
            return False
        if host.number in self._given_up or host.member_id in self.forgotten:
            return False
        return host.member_id in roster.members and host.member_id not in roster.successors

    async def _disturb(self, host: Host) -> None:
        """Cut the power of some that wait to be replaced."""
        rng = random.Random(f"lobby {self._world.seed} {len(self._tasks)} {host.number}")
        if rng.random() >= LOBBY_CRASH_SHARE:
            return
        for _ in range(LOBBY_LOOKS_MAX):
            if host.opens:
                await asyncio.sleep(rng.random() * LOBBY_SECONDS_MAX)
                if host.opens:
                    self._world.trace.add("crash", host.number, "power cut while it waits")
                    host.crash()
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def mend(self, host: Host) -> None:
        """Wait till a damaged member that was started again is whole, or was replaced."""
        if self.replace_themselves:
            # It may take longer, and is followed for as long as that.
            return
        give_up = self._world.loop.now + READY_SECONDS_MAX
        while self._world.loop.now < give_up and host.number in self.damaged:
            if host.up and host.node.ready.is_set() and not _is_mute(host):
                self._failures.pop(host.number, None)
                del self.damaged[host.number]
                return
            await asyncio.sleep(POLL_SECONDS)

    # --- the operator -----------------------------------------------------------------------------

    def new_host(self) -> Host:
        """One more machine; it takes part in nothing before it joins."""
        cluster = self._world.cluster
        host = cluster.new_host()
        cluster.hosts.remove(host)
        return host

    async def list_members(self) -> list[Member] | None:
        """All members, as of now; None if nobody says."""
        return await _Operator(self._world, self._rng).list_members()

    async def join(self, host: Host) -> None:
        """Start a machine that was let in, and wait till it takes part."""
        cluster = self._world.cluster
        cluster.hosts.append(host)
        await _Operator(self._world, self._rng).join(host)

    def replace_soon(self, host: Host) -> None:
        """Have the operator put a new machine in the place of this one."""
        if host.number not in self._given_up:
            self._given_up.append(host.number)
            self.damaged.setdefault(host.number, "given up")
            self.spawn(self._replace(host))

    async def _replace(self, host: Host) -> None:
        world = self._world
        cluster = world.cluster
        if host.process is not None:
            await self._end(host, host.process)
        operator = _Operator(world, self._rng)
        world.trace.add("replace", host.number, "removed")
        await self._insist(lambda: operator.let_go(host))
        new = self.new_host()
        self.damaged[new.number] = f"in the place of {host.number}"
        self.damaged.pop(host.number, None)
        cluster.hosts.append(new)
        world.trace.add("replace", new.number, f"added in the place of {host.number}")
        await self._insist(lambda: operator.let_in(new))
        self.damaged.pop(new.number, None)
        self.replaced_total += 1
        world.marks.hit("member replaced", new.number)

    async def _insist(self, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do a step of an operator, who lets others have their way in between: it may take a member
        whom they were about to start until this one can go on.
        """
        for _ in range(STEPS_MAX):
            try:
                async with self._world.changing_members, asyncio.timeout(STEP_SECONDS_MAX):
                    return await step()
            except TimeoutError:
                await asyncio.sleep(RESTART_SECONDS)
        raise ViolationError("liveness", "no operator can replace a member")


class _Operator(Operator):
    """An operator who logs in where that is asked for, and waits for no answer for ever."""

    def __init__(self, world: World, rng: random.Random) -> None:
        super().__init__(world.cluster)
        self._world = world
        self._client = Client(world, random.Random(rng.getrandbits(64)))

    async def _ask(self, method: str, request: Any) -> Any:
        operation = await self._client.call(method, request)
        if operation.outcome is not Outcome.OK:
            raise ProcessLostError(operation.error)
        return operation.response

    async def list_members(self) -> list[Member] | None:
        """All members, as of now; None if nobody says."""
        operation = await self._client.call("member_list", MemberListRequest(linearizable=True))
        return operation.response.members if operation.outcome is Outcome.OK else None

    async def let_go(self, host: Host) -> None:
        """Remove a member, unless somebody else has."""
        if host in self._world.cluster.hosts:
            await self.remove(host)

    async def let_in(self, host: Host) -> None:
        """Add a machine, start it, and let it vote, unless somebody removes it again."""
        members = await self.members()
        urls = host.config.initial_advertise_peer_urls
        if not any(row.peerURLs == urls for row in members) and host.known_id:
            return
        # There can be but one learner at a time.
        others = [row for row in members if row.isLearner and row.peerURLs != urls]
        await self.add(host, learner=not others)
        own = host.known_id
        await self._step(
            "member_promote",
            MemberPromoteRequest(own),
            lambda rows: not any(own == row.ID and row.isLearner for row in rows),
        )


def _is_mute(host: Host) -> bool:
    """Whether it waits for a snapshot, as it lost what it had acknowledged."""
    return bool(host.node.driver.raft._core.required_index)
