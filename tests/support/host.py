"""One member of a cluster in memory: its machine, and the process that runs on it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from kvstore.config import ServerConfig
from kvstore.errors import KvError, RemovedError
from kvstore.server.joining import ASK_SECONDS_MAX, ClusterView, find_own
from kvstore.server.node import Environment, Node
from kvstore.server.self_replacement import MemberOpening
from kvstore.service.caller import ANYBODY, Caller
from kvstore.service.service import Service
from kvstore.types import (
    DeleteRangeRequest,
    DeleteRangeResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
)
from raft.types import Role
from tests.support.memory_network import MemoryNetwork
from tests.support.virtual_loop import ProcessKilledError

if TYPE_CHECKING:
    from kvstore.apply import StateMachine
    from kvstore.server.identity import Identity
    from tests.support.cluster import Cluster
    from tests.support.virtual_loop import Process

DISK_SECONDS = (0.0001, 0.003)
ANSWER_SECONDS = (0.001, 0.05)
"""How long those who are asked who they are take to answer, from and to."""
FILES = {"hmac.key": b"known to every member and to nobody else"}
"""What the settings of members may name."""
EPOCH_SECONDS = 1_700_000_000.0
"""The time of day at which all virtual runs begin."""


_decode_view = msgspec.json.Decoder(ClusterView).decode


class ProcessLostError(Exception):
    """The process that was asked went away: what came of the call is unknown."""


class Host:
    """One machine: a disk that stays, and a process that comes and goes."""

    def __init__(self, cluster: Cluster, number: int, config: ServerConfig) -> None:
        self.cluster = cluster
        self.number = number
        self.config = config
        self.disk = cluster.new_disk()
        self.clock_rate = 1.0
        """How many times as fast as the loop's time this machine's clock runs."""
        self.disk_seconds = DISK_SECONDS
        """How long a job of its disk takes, from and to."""
        self.wall_offset_seconds = 0.0
        """How far this machine's idea of the time of day is off."""
        self.process: Process | None = None
        self._node: Node | None = None
        self._service: Service | None = None
        self._calls: dict[asyncio.Future[Any], None] = {}
        self.failure_expected = False
        self._stopping: tuple[Process, asyncio.Task[None]] | None = None
        self._leaving: tuple[Node, asyncio.Task[None]] | None = None
        """What it was as a member, while it ends, to go on as another."""
        self.ending: asyncio.Future[None] | None = None
        """Its end, once it was removed from the cluster."""
        self._known_id = 0
        self._asking = random.Random(f"ask {cluster.seed} {number}")
        self._opening: MemberOpening | None = None
        self.network: MemoryNetwork | None = None
        """What its process is reached by: as a member, or while it waits to be one again."""
        self.joined = False
        """Whether it was started as a member of a cluster that ran."""
        self._joining: Identity | None = None

    @property
    def up(self) -> bool:
        """Whether a process runs here (paused or not)."""
        return self._node is not None and self.process is not None and self.process.alive

    @property
    def opens(self) -> bool:
        """Whether a process runs here which is no member yet, or no member any more."""
        return self._node is None and self.process is not None and self.process.alive

    @property
    def node(self) -> Node:
        assert self._node is not None, f"member {self.number} is down"
        return self._node

    @property
    def service(self) -> Service:
        assert self._service is not None, f"member {self.number} is down"
        return self._service

    @property
    def machine(self) -> StateMachine:
        return self.node.applier.machine

    @property
    def member_id(self) -> int:
        return self.node.member_id

    @property
    def known_id(self) -> int:
        """Its member id, also while it is down: as it was when it was last up."""
        return self._known_id

    @property
    def leads(self) -> bool:
        return self.up and self.node.driver.role == Role.LEADER

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function in this member's process."""
        assert self.process is not None, f"member {self.number} is down"
        return self.process.run(function, *args)

    async def join(self) -> None:
        """Start for the first time, as a member of a cluster that runs: its operator names those
        who are members now.

        Raises:
            ConfigError: Nobody who is asked knows of it.
        """
        if not self.cluster.asks:
            others = [other for other in self.cluster.up if other is not self]
            views = [_decode_view(other.node.peer_port.cluster_json()) for other in others]
            self._joining = find_own(self.config, views)
            self.joined = True
            await self.start()
            return
        urls = {
            host.config.name: host.config.initial_advertise_peer_urls
            for host in (*self.cluster.hosts, self)
        }
        self.config = msgspec.structs.replace(self.config, initial_cluster=urls)
        self.disk.steps_left = None
        self.joined, before = True, self.known_id
        try:
            await self.start()
        finally:
            self.joined = self.known_id != before

    async def ask(self, urls: Sequence[str]) -> list[ClusterView]:
        """Implements ``AskMembers``: those who listen there say what the cluster is to them."""
        await asyncio.sleep(self._asking.uniform(*ANSWER_SECONDS))
        wire = self.cluster.wire
        others = [
            other.network
            for url in urls
            for other in self.cluster.hosts
            if url in other.config.listen_peer_urls and other is not self
        ]
        ends = [end for end in others if end is not None and wire.is_attached(end)]
        reached = [end for end in ends if wire.answers(self.known_id, end)]
        if len(reached) < len(ends):
            await asyncio.sleep(ASK_SECONDS_MAX)
        return [_decode_view(end.receiver.cluster_json()) for end in reached]

    def boot(self) -> tuple[Process, Environment]:
        """A new process, with nothing in it yet, and what comes into it from outside."""
        cluster = self.cluster
        loop = cluster.loop
        assert not self.up, f"member {self.number} is up"
        self.process = process = loop.new_process(self.config.name)
        process.set_clock_rate(self.clock_rate)
        rng = random.Random(cluster.rng.getrandbits(64))
        delays = random.Random(cluster.rng.getrandbits(64))
        self.disk.schedule = lambda run: loop.call_later(delays.uniform(*self.disk_seconds), run)

        def new_network(identity: Identity) -> MemoryNetwork:
            member = identity.member_id
            self.network = MemoryNetwork(cluster.wire, identity.cluster_id, member, process)
            return self.network

        environment = Environment(
            self.disk,
            new_network,
            rng,
            check_invariants=True,
            read_file=FILES.__getitem__,
            wall_clock=lambda: EPOCH_SECONDS + loop.now + self.wall_offset_seconds,
        )
        return process, environment

    def adopt(self, node: Node) -> None:
        """This is what runs here."""
        assert self.process is not None, f"member {self.number} is down"
        self._node = node
        self._service = self.process.run(Service, node)
        self._known_id = node.member_id
        for notice in self.cluster.on_node:
            notice(self)

    async def start(self) -> None:
        """Start a process on what the disk holds, as ``kvstore serve`` does.

        It may have to be replaced first: that takes until the others have done it.
        """
        process, environment = self.boot()
        self._opening = opening = MemberOpening(self.config, environment, self.ask)
        make = partial(Node, self.config, environment, self._joining)
        await self._open(process, partial(opening.open, None) if self.cluster.asks else make)

    async def renew(self, failure: BaseException) -> None:
        """Go on in the same process as another member, as ``kvstore serve`` does after an end in
        which ``ends_in_replacement``.
        """
        process, node = self.process, self.node
        assert process is not None, f"member {self.number} is down"
        if self._is_told_to_end(process):
            return
        self._leaving = node, self.cluster.loop.create_task(process.finish(node.stop()))
        try:
            await asyncio.shield(self._leaving[1])
        except ProcessKilledError:
            return
        if self._is_told_to_end(process):
            return
        self.disown()
        assert self._opening is not None, f"member {self.number} is down"
        await self._open(process, partial(self._opening.open, failure))

    def ends_in_replacement(self, failure: BaseException) -> bool:
        """Whether its process goes on as another member after this."""
        opening = self._opening if self.cluster.asks else None
        return opening is not None and opening.ends_in_replacement(failure)

    async def _open(self, process: Process, make: Callable[[], Node | Awaitable[Node]]) -> None:
        async def opened(making: Awaitable[Node]) -> Node:
            node = await making
            # At once: nothing of it is to run unseen.
            self.adopt(node)
            return node

        try:
            made = process.run(make)
            if isinstance(made, Node):
                node = made
                self.adopt(node)
                if not process.alive:
                    return
            else:
                node = await process.finish(opened(made))
            node.failed.add_done_callback(self._on_failed, context=self.cluster.loop.nobody)
            await process.finish(node.start())
        except ProcessKilledError:
            # Whoever killed it has seen to the rest.
            return
        except BaseException as error:
            if process.alive:
                # Its lock and its open files go with it; so may what it had not synced.
                self.crash()
            if isinstance(error, RemovedError):
                self.ending = self.cluster.loop.create_future()
                self.ending.set_result(None)
            raise

    def ends_by_itself(self, failure: BaseException) -> bool:
        """Whether its process ends in order after this: it was removed from the cluster."""
        return isinstance(failure, RemovedError) and not self.ends_in_replacement(failure)

    def _on_failed(self, failed: asyncio.Future[BaseException]) -> None:
        if self.ends_by_itself(failed.result()):
            self.ending = self.cluster.loop.create_task(self.stop())

    def _end(self) -> None:
        assert self.process is not None, f"member {self.number} is down"
        self.process.kill()
        if self.network is not None:
            self.cluster.wire.detach(self.network.member_id)
        self.disown()

    def disown(self) -> None:
        """Nothing runs here any more."""
        self._node = self._service = None
        for answered in list(self._calls):
            if not answered.done():
                answered.set_exception(ProcessLostError(f"member {self.number} went away"))

    def crash(self) -> None:
        """Cut the power: what was not synced is lost, in whole, in part, or torn."""
        self._end()
        self.disk.crash(self.cluster.rng)

    def kill(self) -> None:
        """SIGKILL: the machine lives, and its disk keeps what was written, synced or not."""
        self._end()
        self.disk.forsake(self.cluster.rng)

    async def stop(self) -> None:
        """End the process cleanly; whoever asks for that while it ends waits for the same end."""
        process = self.process
        assert process is not None, f"member {self.number} is down"
        if not self._is_told_to_end(process):
            self._stopping = process, self.cluster.loop.create_task(self._stop(process, self.node))
        assert self._stopping is not None, "it is told to end now"
        await asyncio.shield(self._stopping[1])

    def _is_told_to_end(self, process: Process) -> bool:
        return self._stopping is not None and self._stopping[0] is process

    async def _stop(self, process: Process, node: Node) -> None:
        leaving = self._leaving
        try:
            # It may have been killed since it was asked to stop.
            if leaving is not None and leaving[0] is node:
                await asyncio.shield(leaving[1])
            else:
                await process.finish(node.stop())
        except ProcessKilledError:
            return
        self._end()

    def pause(self, seconds: float) -> None:
        """Stop the process, and let it go on after so many virtual seconds."""
        process = self.process
        assert process is not None, f"member {self.number} is down"
        process.pause()
        self.cluster.loop.call_later(seconds, process.resume)

    def hang_disk(self, lane_name: str) -> Callable[[], None]:
        """Let what one lane of the disk is asked for take for ever; returns what ends that."""
        lane = next(lane for lane in self.disk.lanes if lane.name == lane_name)
        schedule = self.disk.schedule
        assert schedule is not None, f"member {self.number} is down"
        held: list[Callable[[], None]] = []

        def hold(run: Callable[[], None]) -> None:
            if run == lane.run_next:
                held.append(run)
            else:
                schedule(run)

        def go_on() -> None:
            self.disk.schedule = schedule
            for run in held:
                schedule(run)

        self.disk.schedule = hold
        return go_on

    # --- calls ------------------------------------------------------------------------------------

    async def call(self, method: str, request: Any, caller: Caller = ANYBODY) -> Any:
        """Call the service as a face would.

        Raises:
            KvError: The answer is one.
            ProcessLostError: The process went away first.
        """
        return await self.begin(method, request, caller)

    def begin(self, method: str, request: Any, caller: Caller = ANYBODY) -> asyncio.Future[Any]:
        """As ``call``, but the answer is waited for later (or never)."""
        answered, work = self._prepare(method, request, caller)
        self.run(work)
        return answered

    def send(self, method: str, request: Any, caller: Caller = ANYBODY) -> asyncio.Future[Any]:
        """As ``begin``, but a process that stands still takes the call when it goes on; and whoever
        cancels what they wait for is gone, as a face would tell a call that can be called off.
        """
        answered, work = self._prepare(method, request, caller)
        process = self.process
        assert process is not None, f"member {self.number} is down"

        def deliver() -> None:
            call_off = work()
            if call_off is not None:
                answered.add_done_callback(
                    lambda done: process.call_soon(call_off) if done.cancelled() else None,
                    context=self.cluster.loop.nobody,
                )

        process.call_soon(deliver)
        return answered

    def _prepare(
        self, method: str, request: Any, caller: Caller
    ) -> tuple[asyncio.Future[Any], Callable[[], Any]]:
        """What an answer ends up in, and what asks for it."""
        answered: asyncio.Future[Any] = self.cluster.loop.create_future()

        def reply(response: Any) -> None:
            if answered.cancelled():
                return
            assert not answered.done(), f"{method} was answered twice"
            if isinstance(response, KvError):
                answered.set_exception(response)
            else:
                answered.set_result(response)

        self._calls[answered] = None
        answered.add_done_callback(self._forget)
        call = getattr(self.service, method)
        return answered, lambda: call(request, caller, reply)

    def _forget(self, answered: asyncio.Future[Any]) -> None:
        self._calls.pop(answered, None)

    async def put(
        self, key: bytes, value: bytes, *, lease: int = 0, caller: Caller = ANYBODY
    ) -> PutResponse:
        response: PutResponse = await self.call("put", PutRequest(key, value, lease), caller)
        return response

    async def range(
        self, key: bytes, range_end: bytes = b"", *, serializable: bool = False, revision: int = 0
    ) -> RangeResponse:
        request = RangeRequest(key, range_end, serializable=serializable, revision=revision)
        response: RangeResponse = await self.call("range", request)
        return response

    async def get(self, key: bytes, *, serializable: bool = False) -> bytes | None:
        kvs = (await self.range(key, serializable=serializable)).kvs
        return kvs[0].value if kvs else None

    async def delete(self, key: bytes, range_end: bytes = b"") -> DeleteRangeResponse:
        response: DeleteRangeResponse = await self.call(
            "delete_range", DeleteRangeRequest(key, range_end)
        )
        return response

    async def grant(self, seconds: int, lease: int = 0) -> LeaseGrantResponse:
        request = LeaseGrantRequest(seconds, lease)
        response: LeaseGrantResponse = await self.call("lease_grant", request)
        return response

    async def keep_alive(self, lease: int) -> int:
        response: LeaseKeepAliveResponse = await self.call(
            "lease_keep_alive", LeaseKeepAliveRequest(lease)
        )
        return response.TTL

    async def time_to_live(self, lease: int) -> int:
        response: LeaseTimeToLiveResponse = await self.call(
            "lease_time_to_live", LeaseTimeToLiveRequest(lease)
        )
        return response.TTL
