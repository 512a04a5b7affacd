"""A log on the disk that forgets, and what the tests of it share."""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

from raft.codec import encode_entry
from raft.types import (
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Index,
    NodeId,
    Seq,
    SnapshotMeta,
    Term,
)
from wal.errors import WalError
from wal.memory_disk import MemoryDisk
from wal.opening import refuse_gaps
from wal.record import Metadata
from wal.recovery import Recovered
from wal.wal import Wal, WalOptions

DIRECTORY = "member/wal"
WAIT_SECONDS = 20
OPTIONS = WalOptions(segment_bytes=16 * 1024, batch_bytes_max=4 * 1024)
METADATA = Metadata(cluster_id=0xC1, member_id=0x42, bootstrap=b"a=http://localhost")
VOTERS = Configuration(voters=(NodeId(1), NodeId(2), NodeId(3)))


def entry(index: int, term: int = 1, data: bytes = b"put") -> Entry:
    return encode_entry(Index(index), Term(term), EntryKind.COMMAND, data)


def entries(first: int, last: int, term: int = 1, data: bytes = b"put") -> list[Entry]:
    return [entry(index, term, data) for index in range(first, last + 1)]


def state(term: int, voted_for: int = 1, commit_index: int = 0) -> HardState:
    return HardState(Term(term), NodeId(voted_for), Index(commit_index))


def mark(index: int, term: int = 1) -> SnapshotMeta:
    return SnapshotMeta(Index(index), Term(term), VOTERS)


class Node:
    """A log that was opened, and everything it said since."""

    def __init__(
        self,
        disk: MemoryDisk,
        metadata: Metadata | None = METADATA,
        options: WalOptions = OPTIONS,
        judge: Callable[[Recovered], None] = refuse_gaps,
    ) -> None:
        self.disk = disk
        self.persisted: list[int] = []
        self.failures: list[WalError] = []
        self.closed: list[WalError | None] = []
        self.now = 0.0
        self.seq = 0
        wal, recovered = Wal.open(
            disk,
            DIRECTORY,
            options,
            metadata,
            on_persisted=self.persisted.append,
            on_failed=self.failures.append,
            clock=lambda: self.now,
            judge=judge,
        )
        self.wal: Wal = wal
        self.recovered: Recovered = recovered

    def persist(
        self,
        entries: list[Entry] | None = None,
        hard_state: HardState | None = None,
        snapshot_mark: SnapshotMeta | None = None,
    ) -> int:
        self.seq += 1
        self.wal.persist(Seq(self.seq), hard_state, entries or [], snapshot_mark)
        return self.seq

    def write(
        self,
        entries: list[Entry] | None = None,
        hard_state: HardState | None = None,
        snapshot_mark: SnapshotMeta | None = None,
    ) -> int:
        """Persist and wait for the disk."""
        seq = self.persist(entries, hard_state, snapshot_mark)
        self.disk.run_pending()
        return seq

    def close(self) -> None:
        self.wal.close(self.closed.append)
        self.disk.run_pending()


def segments(disk: MemoryDisk) -> list[str]:
    """The paths of all segments, spare ones too."""
    return [f"{DIRECTORY}/{name}" for name in disk.list(DIRECTORY) if name.endswith(".wal")]


def reopened(node: Node) -> Node:
    node.disk.crash(Random(1))
    return Node(node.disk, metadata=None)


class HandLoop:
    """What a real disk asks of an event loop, run by hand."""

    def __init__(self) -> None:
        self._calls: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, lambda: self._woken.recv(4096))

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any) -> None:
        self._calls.append((callback, args))
        self._wake.send(b".")

    def add_reader(self, descriptor: int, callback: Callable[[], object]) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, callback)

    def remove_reader(self, descriptor: int) -> None:
        self._selector.unregister(descriptor)

    def run_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "nothing happens any more"
            for key, _events in self._selector.select(WAIT_SECONDS):
                key.data()
            while self._calls:
                callback, args = self._calls.popleft()
                callback(*args)

    def close(self) -> None:
        self._selector.close()
        self._woken.close()
        self._wake.close()
