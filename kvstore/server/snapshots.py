"""Snapshots of the state.

Taken when the log has grown, sent to followers that fell behind it, installed when one arrives.

Taking costs the loop slices of half a millisecond: the revision log's prefix is immutable, so what
is captured in one step can be written out while writes go on. The file counts only once its mark is
in the log, behind everything it covers.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from kvstore.apply import SnapshotLoader
from kvstore.errors import ErrorKind
from kvstore.server.network.base import Network, NetworkError, SnapshotOffer, SnapshotSink
from kvstore.server.pacing import in_lane
from kvstore.server.snapshot_sink import ReceivedSnapshot
from raft.events import LogCompacted, Receive, SnapshotSent
from raft.messages import InstallSnapshot
from raft.types import Index, NodeId, Role, SnapshotMeta, Term
from wal.errors import WalError
from wal.snapshot_file import (
    SnapshotFile,
    SnapshotReader,
    SnapshotWriter,
    prune,
    set_aside,
)

if TYPE_CHECKING:
    from kvstore.apply import StateMachine
    from kvstore.server.driver import Driver
    from wal.files import Disk, Lane
    from wal.wal import Wal

log = logging.getLogger("kvstore.snapshot")

GROWN_BYTES_MIN = 64 * 1024 * 1024
GROWN_ENTRIES_MAX = 500_000
RETRY_SECONDS = 1.0
"""A pause after a failed taking or sending, so that a lasting trouble is no busy loop."""
FILES_KEPT = 2
"""The newest, and the one before it with the log since: should the newest turn out damaged."""
ROOM_RETRY_SECONDS = 5.0
"""How often a full disk is tried again, and a snapshot taken so that the log can shrink."""


class SnapshotKeeper:
    """All snapshots of one member.

    Args:
        disk: Where the files are.
        directory: Their directory.
        lane: Runs file work off the loop.
        snapshot_count: Take one every so many entries; 0: when the log has grown by as much as the
            last snapshot, and by 64 MiB at least, or by 500,000 entries.
        new_loader: Makes a loader for a state that arrives.
        on_replaced: Told of the state before and the new one when a snapshot is installed.
        latest: The newest file found at start.
    """

    def __init__(
        self,
        *,
        driver: "Driver",
        wal: "Wal",
        disk: "Disk",
        directory: str,
        lane: "Lane",
        member_id: int,
        snapshot_count: int,
        network: Network,
        new_loader: Callable[[], SnapshotLoader],
        on_replaced: Callable[["StateMachine", "StateMachine"], None],
        latest: SnapshotFile | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._driver = driver
        self._wal = wal
        self._disk = disk
        self._directory = directory
        self._lane = lane
        self._member_id = member_id
        self._snapshot_count = snapshot_count
        self._network = network
        self._new_loader = new_loader
        self._on_replaced = on_replaced
        self.latest = latest
        self._taking: asyncio.Task[SnapshotFile] | None = None
        self._sending: dict[NodeId, asyncio.Task[None]] = {}
        self._sink: ReceivedSnapshot | None = None
        self._ready: tuple[SnapshotMeta, SnapshotFile, StateMachine] | None = None
        self._retry_at = 0.0
        self._unproven = False
        self._wanted = False
        self._proven_index = latest.meta.index if latest else 0
        self._rebuilding = driver.raft.required_index > 0
        self._stopped = False
        self.taken_total = 0
        self.sent_total = 0
        self.installed_total = 0
        driver.on_tick(self._tick)

    async def stop(self) -> None:
        """Let go of whatever is under way."""
        self._stopped = True
        tasks = [*self._sending.values(), *([self._taking] if self._taking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- taking -----------------------------------------------------------------------------------

    def _grown(self) -> bool:
        wal = self._wal
        if self._snapshot_count:
            return wal.grown_entries >= self._snapshot_count
        size = self.latest.size_bytes if self.latest else 0
        return (
            wal.grown_bytes >= max(GROWN_BYTES_MIN, size) or wal.grown_entries >= GROWN_ENTRIES_MAX
        )

    def _tick(self, now: float) -> None:
        latest = self.latest
        if self._unproven and latest and self.has_durable():
            self._adopt(latest)
        if self._taking is not None or now < self._retry_at or self._rebuilding:
            return
        full = self._wal.disk_full
        if not full and not self._wanted and not self._grown():
            return
        if full:
            # Only a snapshot lets the log shrink. Its own preparation waits: it must not fill the
            # room that the snapshot needs.
            self._retry_at = now + ROOM_RETRY_SECONDS
        # Where the last one's mark waits for room in the log, another one would only take more.
        waits = full and self._unproven
        applied = self._driver.applier.machine.applied_index
        if not waits and (latest is None or latest.meta.index < applied):
            self.take()
        elif full:
            self._wal.retry_space()

    def take(self) -> "asyncio.Task[SnapshotFile]":
        """Take a snapshot now, or join the taking that is under way."""
        if self._taking is None:
            self._taking = self._loop.create_task(self._take())
            self._taking.add_done_callback(self._taken)
        return self._taking

    async def discard(self, name: str) -> None:
        """A file was found damaged: set it aside, and take another snapshot as soon as there is
        anything to take.

        Raises:
            WalError: The disk refused.
        """
        directory = self._directory
        if self.latest is not None and self.latest.path == f"{directory}/{name}":
            self.latest = None
        self._wanted = True
        await in_lane(self._lane, lambda: set_aside(self._disk, directory, name))

    def has_durable(self) -> bool:
        """Whether a restart finds the latest snapshot: it is there, and the log's mark names it."""
        latest = self.latest
        return latest is not None and self._wal.mark_durable_index >= latest.meta.index

    async def begin_log_anew(self) -> bool:
        """A segment was found damaged: take a snapshot, and write behind it what follows it.

        Returns:
            Whether that is under way; not if memory lacks, by now, some of what would be needed.

        Raises:
            WalError: The disk refused.
            KvError: The member stops.
        """
        file = await self._taken_now()
        entries = self._driver.raft.written_after(file.meta.index)
        if entries is None:
            return False
        anew = self._wal.begin_anew(self._driver.queued_seq, entries, file.meta)
        if anew:
            self._proven_index = file.meta.index
        return anew

    async def current(self) -> SnapshotFile:
        """A snapshot with all that is applied by now: the latest if it has that, or a new one.

        Raises:
            WalError: The disk refused.
            KvError: The member stops.
        """
        if self._taking is not None:
            # What it captured may be older than this call.
            await asyncio.wait({self._taking})
        latest = self.latest
        if latest is not None and latest.meta.index >= self._driver.applier.machine.applied_index:
            return latest
        return await self._taken_now()

    async def _taken_now(self) -> SnapshotFile:
        """What ``take`` comes to; whoever waits for it may be cancelled, and the taking goes on."""
        if self._stopped:
            raise ErrorKind.STOPPED.error()
        taking = self.take()
        await asyncio.wait({taking})
        if taking.cancelled():
            raise ErrorKind.STOPPED.error()
        return taking.result()

    def _taken(self, task: "asyncio.Task[SnapshotFile]") -> None:
        self._taking = None
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._retry_at = max(self._retry_at, self._loop.time() + RETRY_SECONDS)
            log.error("no snapshot could be taken: %s", error)
            self._wal.retry_space()

    async def _take(self) -> SnapshotFile:
        while self._driver.applier.busy:  # noqa: ASYNC110 - slices alternate with this
            # A huge command is half applied; its effects are visible only when it is whole.
            await asyncio.sleep(0)
        applier = self._driver.applier
        capture = applier.machine.capture()
        meta = self._driver.raft.snapshot_meta(Index(capture.index))
        assert meta.term == capture.term, "raft and the state differ about the applied entry"
        try:
            writer = await in_lane(
                self._lane, lambda: SnapshotWriter(self._disk, self._directory, meta)
            )
            try:
                for chunk in capture.chunks():
                    await in_lane(self._lane, partial(writer.append, chunk))
                file = await in_lane(self._lane, writer.finish)
            except BaseException:
                self._lane.submit(writer.abort, lambda _: None)
                raise
        finally:
            capture.close()
        # Queued behind all that it covers, so durable after it.
        self._wal.persist(self._driver.queued_seq, None, [], meta)
        self.taken_total += 1
        self._wanted = False
        if self.latest is None or self.latest.meta.index < meta.index:
            # Else a newer one was installed meanwhile.
            self.latest = file
            self._unproven = True
        log.info("took a snapshot at index %d, %d bytes", meta.index, file.size_bytes)
        return file

    def _adopt(self, file: SnapshotFile) -> None:
        """The mark is durable.

        From here on this file, and the log behind it, is what a restart needs.
        """
        self._unproven = False
        self._driver.step(LogCompacted(file.meta.index))
        # On a full disk room counts for more than a second way to start.
        full = self._wal.disk_full
        self._wal.release(file.meta.index if full else self._proven_index)
        self._proven_index = file.meta.index
        self._lane.submit(
            lambda: prune(self._disk, self._directory, file, 1 if full else FILES_KEPT),
            self._pruned,
        )

    def _pruned(self, result: Any) -> None:
        if isinstance(result, BaseException):
            log.warning("old snapshots could not be removed: %s", result)

    # --- sending ----------------------------------------------------------------------------------

    def send_to(self, member: NodeId, term: Term) -> None:
        """Bring a follower up, as leader of ``term``, that lacks what memory's log has no more."""
        if member not in self._sending and not self._stopped:
            task = self._loop.create_task(self._send(member, term))
            self._sending[member] = task
            task.add_done_callback(lambda _: self._sending.pop(member, None))

    async def _send(self, member: NodeId, term: Term) -> None:
        try:
            file = await self._transfer(member, term)
        except Exception as error:  # noqa: BLE001
            # Whatever it was, raft must hear of it: it sends this follower nothing until then.
            log.warning("member %x did not take the snapshot: %s", member, error)
            await asyncio.sleep(RETRY_SECONDS)
            self._driver.step(SnapshotSent(member, ok=False, index=Index(0)))
        else:
            self.sent_total += 1
            log.info("member %x has the snapshot at index %d", member, file.meta.index)
            self._driver.step(SnapshotSent(member, ok=True, index=file.meta.index))

    async def _transfer(self, member: NodeId, term: Term) -> SnapshotFile:
        driver = self._driver
        file = self.latest
        for _ in range(2):
            # What a taking under way has captured may be older than what is needed by now.
            if file is None or file.meta.index < driver.raft.snapshot_floor(member):
                file = await self.take()
        assert file is not None, "it was taken"
        if driver.role != Role.LEADER or driver.raft.term != term:
            # In a later term's name it would depose whoever leads that term.
            raise NetworkError("this member does not lead that term any more")
        log.info("sending member %x the snapshot at index %d", member, file.meta.index)
        reader = await in_lane(self._lane, lambda: SnapshotReader(self._disk, file))
        offer = SnapshotOffer(self._member_id, term, file.meta, file.size_bytes, file.crc)

        async def read(offset: int, length: int) -> bytes:
            return await in_lane(self._lane, lambda: reader.read_raw(offset, length))

        try:
            await self._network.send_snapshot(member, offer, read)
        finally:
            self._lane.submit(reader.close, lambda _: None)
        return file

    # --- receiving --------------------------------------------------------------------------------

    async def receive(self, offer: SnapshotOffer) -> "SnapshotSink | str":
        """A leader offers a snapshot: take it, or say why not."""
        raft = self._driver.raft
        if offer.term < raft.term:
            return f"term {offer.term} is over, this member is at {raft.term}"
        if offer.meta.index < raft.required_index:
            return f"this member needs index {raft.required_index}"
        if offer.meta.index <= raft.commit_index:
            # Whoever leads does not know it, and would offer the same again for good: what said so
            # may have gone with the process that installed it. Raft says it once more.
            self._driver.step(Receive(_install(offer, self._member_id)))
            return f"this member has index {raft.commit_index} already"
        if self._sink is not None:
            return "another snapshot is arriving"
        self._sink = sink = ReceivedSnapshot(
            self._disk,
            self._directory,
            self._lane,
            offer,
            load=self._load,
            accept=self._offer_to_raft,
            ended=self._forget_sink,
        )
        try:
            await sink.open()
        except (OSError, WalError) as error:
            self._sink = None
            return f"the snapshot cannot be stored: {error}"
        return sink

    def _forget_sink(self) -> None:
        self._sink = None

    async def _load(self, file: SnapshotFile) -> "StateMachine":
        """Build the state that a file holds, beside the present one, in slices."""
        loader = self._new_loader()
        reader = await in_lane(self._lane, lambda: SnapshotReader(self._disk, file))
        chunks = reader.chunks()
        try:
            while (chunk := await in_lane(self._lane, lambda: next(chunks, None))) is not None:
                loader.feed(chunk)
        finally:
            self._lane.submit(reader.close, lambda _: None)
        return loader.finish()

    def _offer_to_raft(
        self, offer: SnapshotOffer, file: SnapshotFile, machine: "StateMachine"
    ) -> None:
        """The file is durable and loaded: raft decides whether it is wanted."""
        self._ready = (file.meta, file, machine)
        self._driver.step(Receive(_install(offer, self._member_id)))
        # The turn in which raft decides is scheduled by now: if it does not want the state, nobody
        # else does.
        self._loop.call_soon(self._forget_ready)

    def _forget_ready(self) -> None:
        self._ready = None

    def install(self, meta: SnapshotMeta) -> None:
        """Raft wants it: from now on this is the state."""
        ready, self._ready = self._ready, None
        assert ready is not None, "raft installs a snapshot that was not offered"
        assert ready[0] == meta, "raft installs another snapshot than was offered"
        _, file, machine = ready
        before = self._driver.applier.machine
        self._driver.applier.replace(machine)
        self._on_replaced(before, machine)
        self.installed_total += 1
        log.info("installed the snapshot at index %d", meta.index)
        self.latest = file
        if self._rebuilding:
            # What the log had before is damaged, and no second way to start.
            self._rebuilding = False
            self._proven_index = meta.index
        self._unproven = True


def _install(offer: SnapshotOffer, member_id: int) -> InstallSnapshot:
    """What is offered, as raft's message."""
    return InstallSnapshot(NodeId(offer.sender), NodeId(member_id), Term(offer.term), offer.meta)
