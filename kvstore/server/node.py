"""A member, whole: everything between the disk and the service, put together and taken apart again.

Disk, network, loop (and with it the clock) and randomness come in from outside, so that a whole
cluster can run in one process, on a disk that forgets and a network that loses.
"""

import asyncio
import errno
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from kvstore.apply import Outcome, SnapshotLoader, StateLimits, StateMachine
from kvstore.budget import Rota
from kvstore.commands import Body, Kind, PublishMember
from kvstore.errors import ErrorKind, KvError, KvstoreError
from kvstore.lease.lessor import Lessor
from kvstore.server import bootstrap
from kvstore.server.applier import TURN_SECONDS, Applier
from kvstore.server.driver import Driver
from kvstore.server.identity import Identity
from kvstore.server.leases import LeaseKeeper
from kvstore.server.membership import MembershipKeeper
from kvstore.server.network.base import Network
from kvstore.server.network.framed import UNSENT_BYTES_MAX
from kvstore.server.pacing import ClockBudget
from kvstore.server.peer_port import PeerPort
from kvstore.server.peers import Peers
from kvstore.server.proposals import Proposals
from kvstore.server.reads import Reads
from kvstore.server.rebuild import Rebuild
from kvstore.server.replacements import ReplacementKeeper
from kvstore.server.scrub import Scrub
from kvstore.server.secrets import SecretWork, new_tokens
from kvstore.server.snapshot_export import SnapshotExports
from kvstore.server.snapshots import SnapshotKeeper
from kvstore.server.transfer import Transfer
from kvstore.server.upkeep import Upkeep
from kvstore.types import Member
from kvstore.watch.hub import WatchHub
from kvstore.watch.limits import WatchLimits
from raft.config import RaftConfig
from raft.errors import RaftError
from raft.node import RaftNode
from raft.types import NodeId, Seq
from wal.errors import WalError
from wal.record import Metadata
from wal.wal import Wal

if TYPE_CHECKING:
    from kvstore.config import ServerConfig
    from wal.files import Disk

log = logging.getLogger("kvstore.server")

READS_MAX = 100_000
REQUEST_SECONDS = 5.0
"""etcd's: a request may take this and two election timeouts."""
DRAIN_SECONDS_MAX = 2.0
LEASE_TTL_ELECTIONS = 1.5
SEQUENCE_BITS = 48
LOG_ID_BITS = 62
RESPONSE_MARGIN_BYTES = 512 * 1024
"""A watch response may exceed the largest request by this before it is cut, as in etcd."""


def _no_files(path: str) -> bytes:
    raise FileNotFoundError(errno.ENOENT, "no such file", path)


class Environment(msgspec.Struct, frozen=True):
    """What comes in from outside."""

    disk: "Disk"
    new_network: Callable[[Identity], Network]
    rng: random.Random
    check_invariants: bool = False
    clock: Callable[[], float] | None = None
    """Finer than the loop's, which on uvloop counts milliseconds; None: the loop's."""
    secret_rng: random.Random | None = None
    """For tokens and salts: nobody may guess what comes next; None: ``rng``."""
    read_file: Callable[[str], bytes] = _no_files
    """Reads the keys that the configuration names."""
    wall_clock: Callable[[], float] | None = None
    """Seconds since 1970, as clients count; None: the loop's."""


class Node:
    """One running member. Made by ``open``; ``start`` joins it with its peers.

    Args:
        config: Its settings.
        environment: Disk, network, randomness.
        joining: Who this member is to the cluster that it joins, if its directory is empty; None:
            one of the founders whom the flags name.

    Attributes:
        is_learner: Whether it has no vote; it serves little then.
    """

    def __init__(
        self, config: "ServerConfig", environment: Environment, joining: Identity | None = None
    ) -> None:
        self.config = config
        self.limits = config
        self.disk = environment.disk
        self.loop = loop = asyncio.get_running_loop()
        self.rota = Rota(loop.call_soon)
        self.rng = environment.rng
        self.failed: asyncio.Future[BaseException] = loop.create_future()
        self.ready = asyncio.Event()
        self.request_timeout_seconds = REQUEST_SECONDS + 2 * config.election_timeout_ms / 1000
        self.hub = WatchHub(self._watch_limits())
        self.clock = environment.clock or loop.time
        self._apply_budget = ClockBudget(self.clock)
        secret_rng = environment.secret_rng or environment.rng
        self.tokens = new_tokens(
            config,
            environment.read_file,
            loop.time,
            environment.wall_clock or loop.time,
            secret_rng,
        )
        self.secret_work = SecretWork(
            lambda: environment.disk.lane("passwords"), secret_rng, config.bcrypt_cost
        )
        self._published_by: asyncio.Task[None] | None = None
        self._stopping = False
        self.before_stop: list[Callable[[], Awaitable[None]]] = []
        """What others have to end while commands still get through."""
        self.is_learner = False
        recovery = bootstrap.recover(
            config,
            environment.disk,
            bootstrap.LogEvents(self._on_persisted, self.fail, self.clock),
            fresh=self._new_log(environment, joining),
            new_machine=self._new_machine,
            new_loader=self._new_loader,
        )
        self.identity = recovery.identity
        self.cluster_id = recovery.identity.cluster_id
        self.member_id = recovery.identity.member_id
        self.network = environment.new_network(recovery.identity)
        self.wal = recovery.wal
        self._assemble(recovery, environment)
        self._connect(recovery, environment)

    def _assemble(self, recovery: bootstrap.Recovery, environment: Environment) -> None:
        config = self.config
        loop = self.loop
        start = recovery.start
        tick_seconds = config.heartbeat_interval_ms / 1000
        election_ticks = max(2, config.election_timeout_ms // config.heartbeat_interval_ms)
        raft = RaftNode(
            RaftConfig(
                node_id=NodeId(self.member_id),
                election_ticks=election_ticks,
                heartbeat_ticks=1,
                tail_entries_max=config.snapshot_catchup_entries,
                inflight_bytes_max=UNSENT_BYTES_MAX // 2,
                check_invariants=environment.check_invariants,
            ),
            random.Random(environment.rng.getrandbits(64)),
            hard_state=recovery.recovered.hard_state,
            snapshot=start.snapshot,
            entries=start.entries,
            applied=start.snapshot.index,
            required_index=start.required_index,
        )
        self._recovered_commit_index = raft.commit_index
        self.tokens.outlive(max(raft.last_index, start.required_index))
        self.driver = driver = Driver(loop, raft, tick_seconds, self.fail)
        self.rebuild = Rebuild(driver, loop.time)
        self.peers = Peers(
            self.network,
            loop,
            self.member_id,
            driver.receive,
            driver.unreachable,
            first_call=environment.rng.getrandbits(62),
        )
        self.proposals = Proposals(
            self.member_id,
            recovery.recovered.metadata.incarnation,
            wake=driver.wake,
            election_ticks=election_ticks,
            count_max=config.max_inflight_proposals,
            bytes_max=config.max_inflight_bytes,
            first_sequence=environment.rng.getrandbits(SEQUENCE_BITS),
        )
        self.reads = Reads(wake=driver.wake, election_ticks=election_ticks, count_max=READS_MAX)
        self.applier = Applier(
            loop,
            recovery.machine,
            ClockBudget(self.clock, TURN_SECONDS),
            self._apply_budget,
            self.proposals.resolve,
            driver.wake,
            self.fail,
        )

    def _connect(self, recovery: bootstrap.Recovery, environment: Environment) -> None:
        config = self.config
        driver = self.driver
        lane = environment.disk.lane("snapshots")
        self.snapshots = SnapshotKeeper(
            driver=driver,
            wal=self.wal,
            disk=environment.disk,
            directory=bootstrap.layout(config.data_dir).snapshots,
            lane=lane,
            member_id=self.member_id,
            snapshot_count=config.snapshot_count,
            network=self.network,
            new_loader=self._new_loader,
            on_replaced=self._on_replaced,
            latest=recovery.start.file,
        )
        self.scrub = Scrub(
            disk=environment.disk,
            layout=bootstrap.layout(config.data_dir),
            wal=self.wal,
            snapshots=self.snapshots,
            rebuild=self.rebuild,
            bytes_per_second=config.scrub_bytes_per_second,
        )
        self.exports = SnapshotExports(self.snapshots, environment.disk, lane)
        driver.wire(
            wal=self.wal,
            peers=self.peers,
            applier=self.applier,
            proposals=self.proposals,
            reads=self.reads,
            send_snapshot=self.snapshots.send_to,
            install_snapshot=self.snapshots.install,
        )
        self.leases = LeaseKeeper(
            self.loop,
            driver,
            self.proposals,
            self.reads,
            self.peers,
            extend_seconds=config.election_timeout_ms / 1000,
            timeout_seconds=self.request_timeout_seconds,
        )
        self.hub.rebase(recovery.machine.store)
        self.upkeep = Upkeep(self)
        self.transfer = Transfer(self)
        self.membership = MembershipKeeper(self, environment.wall_clock or self.loop.time)
        self.replacements = ReplacementKeeper(self)
        self.peer_port = PeerPort(self, recovery.beginning)

    def _new_log(self, environment: Environment, joining: Identity | None) -> Metadata | None:
        """What a new log begins with; None if there is one.

        Raises:
            ConfigError: The directory is empty, and nothing says who this member is.
        """
        config = self.config
        if Wal.exists(environment.disk, bootstrap.layout(config.data_dir).wal):
            return None
        bootstrap.refuse_unfinished(environment.disk, config.data_dir)
        return bootstrap.new_log(
            config,
            joining or bootstrap.founding_identity(config),
            log_id=1 + environment.rng.getrandbits(LOG_ID_BITS),
            first_incarnation=bootstrap.new_incarnation(environment.rng),
        )

    # --- the state --------------------------------------------------------------------------------

    def _watch_limits(self) -> WatchLimits:
        config = self.config
        return WatchLimits(
            streams_max=config.max_watch_streams,
            watchers_per_stream_max=config.max_watchers_per_stream,
            response_bytes_max=config.max_request_bytes + RESPONSE_MARGIN_BYTES,
        )

    @property
    def lease_seconds_min(self) -> int:
        """The shortest lease: one that outlives an election (etcd's floor).

        It is put into the command before it is proposed; were it left to apply, members with
        different flags would grant different leases.
        """
        return max(1, -int(-LEASE_TTL_ELECTIONS * self.config.election_timeout_ms // 1000))

    def _new_machine(self, members: tuple[Member, ...]) -> StateMachine:
        return StateMachine(
            list(members),
            hub=self.hub,
            lessor=Lessor(min_ttl_seconds=1),
            limits=StateLimits(quota_bytes=self.config.quota_bytes or 0),
            budget=self._apply_budget,
            tokens=self.tokens,
        )

    def _new_loader(self) -> SnapshotLoader:
        return SnapshotLoader(
            hub=self.hub,
            lessor=Lessor(min_ttl_seconds=1),
            limits=StateLimits(quota_bytes=self.config.quota_bytes or 0),
            budget=self._apply_budget,
            tokens=self.tokens,
        )

    def _on_replaced(self, before: StateMachine, machine: StateMachine) -> None:
        self.rebuild.installed()
        self.upkeep.retire(before)
        self.hub.rebase(machine.store)
        # Who was deleted, or changed a password, in the entries that the snapshot stands for?
        self.tokens.clear()
        self.proposals.forget_applied(machine.origins.has_applied)

    def read_budget(self) -> ClockBudget:
        """A fresh budget for one long read."""
        return ClockBudget(self.clock, is_spent=self.rota.is_busy)

    # --- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen to peers and begin to take part.

        Raises:
            NetworkError: The peer port cannot be listened on.
        """
        self.driver.start()
        # What is known to be committed is applied first: it tells who must be refused a link.
        while not self.failed.done() and not self._caught_up():  # noqa: ASYNC110
            await asyncio.sleep(0)
        await self.network.start(self.peer_port)
        self.membership.refresh()
        self._published_by = self.loop.create_task(self._publish())
        self.scrub.start()

    def _caught_up(self) -> bool:
        return self.applier.machine.applied_index >= self._recovered_commit_index

    async def _publish(self) -> None:
        """Tell the cluster this member's name and client URLs.

        With that through the log, it is ready.
        """
        config = self.config
        urls = list(config.advertise_client_urls)
        body = PublishMember(self.member_id, config.name, urls, self.peer_port.log_id)
        while True:
            result = await self.propose(Kind.PUBLISH_MEMBER, body)
            if not isinstance(result, KvError):
                if isinstance(result.response, KvError):
                    # Only members that were removed are not known: all others are in the roster
                    # by the entry that let them in. It ends when it is needed no more.
                    return
                break
            log.info("this member cannot publish itself yet: %s", result.message)
            await asyncio.sleep(self.config.heartbeat_interval_ms / 1000)
        # Before anybody is served: whether this member only learns is in what it has just applied.
        self.membership.refresh()
        self.ready.set()

    async def propose(self, kind: Kind, body: Body) -> Outcome | KvError:
        """Put one of the member's own commands through the log, and wait."""
        decided: asyncio.Future[Outcome | KvError] = self.loop.create_future()

        def settle(result: Outcome | KvError) -> None:
            if not decided.done():
                decided.set_result(result)

        deadline = self.loop.time() + self.request_timeout_seconds
        self.proposals.submit(kind, body, settle, deadline, internal=True)
        return await decided

    def _on_persisted(self, seq: int) -> None:
        self.driver.persisted(Seq(seq))

    def fail(self, error: BaseException) -> None:
        """This member cannot go on. It acknowledges nothing any more; the process is to end."""
        self._stopping = True
        if hasattr(self, "driver"):
            self.driver.stop()
        if not self.failed.done():
            # What the rooms foresee says all there is to say; the rest is our own mistake.
            foreseen = isinstance(error, (KvstoreError, RaftError, WalError, OSError))
            log.critical(
                "this member stops (data directory %s): %s",
                self.config.data_dir,
                error,
                exc_info=None if foreseen else error,
            )
            self.failed.set_result(error)

    async def stop(self) -> None:
        """Hand leadership on, finish what was promised, and leave a clean log."""
        await self.dismiss()
        self._stopping = True
        if self._published_by is not None:
            self._published_by.cancel()
        if not self.failed.done():
            await self.hand_over()
            await self._drain()
        self.driver.stop()
        self.proposals.fail_all(ErrorKind.STOPPED)
        self.reads.fail_all(ErrorKind.STOPPED)
        self.leases.fail_all(ErrorKind.STOPPED)
        self.membership.fail_all(ErrorKind.STOPPED)
        await self.scrub.stop()
        await self.snapshots.stop()
        await self.network.stop()
        closed: asyncio.Future[WalError | None] = self.loop.create_future()
        self.wal.close(closed.set_result)
        error = await closed
        if error is not None:
            log.warning("the log could not be closed cleanly: %s", error)

    async def dismiss(self) -> None:
        """Send away who waits for something that may never come."""
        while self.before_stop:
            await self.before_stop.pop()()

    async def hand_over(self) -> None:
        """If this member leads, let another lead, and wait until it does (for a bounded time)."""
        await self.transfer.hand_over()

    def transfer_leadership(self) -> bool:
        """Begin to hand leadership to the linked voter that has most; False if there is none."""
        return self.transfer.begin()

    def move_leader(self, target: int, reply: Callable[[KvError | None], None]) -> None:
        """Hand leadership to a voting member, and answer once it leads; see ``Transfer.move``."""
        self.transfer.move(target, reply, self.request_timeout_seconds)

    async def _drain(self) -> None:
        give_up = self.loop.time() + DRAIN_SECONDS_MAX
        await self._wait(lambda: not len(self.proposals) and not len(self.reads), give_up)

    async def _wait(self, condition: Callable[[], bool], give_up: float) -> None:
        while not condition() and self.loop.time() < give_up:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
