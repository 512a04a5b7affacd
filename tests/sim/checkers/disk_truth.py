"""What every machine's disk really holds of the log, whatever the product believes.

Each batch that the log hands to its lane is decoded when the lane has run it *and* the disk has
synced meanwhile all that the job has written. So an acknowledgement that leaves too early is seen
at once, without waiting for the crash that would make it a loss.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from raft.types import Entry, HardState, Index, NodeId, SnapshotMeta, Term
from tests.checking.violation import ViolationError
from tests.sim.checkers import NodeChecker
from wal import files
from wal.record import Mark, decode_records

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from raft.effects import Effects
    from tests.sim.world import World
    from tests.support.host import Host
    from wal.files import File
    from wal.queue import Outgoing

LOG = ".wal"


class Durable:
    """One machine's log, as far as it is synced.

    Attributes:
        hard_state: The newest.
        mark: The newest snapshot mark; it covers all entries up to its index.
        terms: Index to term, of the entries that are there.
        last_index: The newest entry.
        vouched: What it held before its disk was damaged, while it is mute: it votes for nobody, so
            for nobody who lacks any of that, and what it acknowledged goes on to count (I18).
    """

    def __init__(self) -> None:
        self.vouched: Durable | None = None
        self.hard_state = HardState(Term(0), NodeId(0), Index(0))
        self.mark: SnapshotMeta | None = None
        self.terms: dict[int, int] = {}
        self.last_index = 0

    def holds(self, index: int, term: int) -> bool:
        """Whether this very entry is there, or a snapshot that covers it."""
        if self.mark is not None and index <= self.mark.index:
            return True
        return self.terms.get(index) == term

    def counts_for(self, index: int, term: int) -> bool:
        """Whether a leader may count this machine among those that hold an entry."""
        return self.holds(index, term) or (
            self.vouched is not None and self.vouched.counts_for(index, term)
        )

    def take_in(self, entries: list[Entry]) -> None:
        """These replace whatever there is from the first one of another term on."""
        for entry in entries:
            before = self.terms.get(entry.index)
            if before is not None and before != entry.term:
                for index in range(entry.index, self.last_index + 1):
                    self.terms.pop(index, None)
                self.last_index = entry.index
            self.terms[entry.index] = entry.term
            self.last_index = max(self.last_index, entry.index)

    def take_mark(self, mark: Mark) -> None:
        """A snapshot's mark was written."""
        if self.mark is not None and mark.meta.index <= self.mark.index:
            return
        self.mark = mark.meta
        if not mark.log_kept:
            self.terms.clear()
            self.last_index = mark.meta.index
        self.last_index = max(self.last_index, mark.meta.index)
        if self.vouched is not None and mark.meta.index >= self.vouched.last_index:
            self.vouched = None


class DiskTruth(NodeChecker):
    """Keeps ``of``: what is durable on each machine, by member id. What was durable is there when
    the machine comes back.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.of: dict[int, Durable] = {}

    def on_start(self, host: Host) -> None:
        """What was recovered is on the disk: it was read from there."""
        core = host.node.driver.raft._core
        durable = Durable()
        durable.hard_state = HardState(core.term, core.voted_for, core.commit_index)
        log = core.log
        if log.base_index:
            base = core.membership.at(log.base_index)
            durable.mark = SnapshotMeta(log.base_index, log.base_term, base)
        durable.last_index = log.base_index
        durable.take_in(log.slice(Index(log.base_index + 1), log.last_index))
        if core.required_index and host.number not in self.world.machines.hurt:
            raise ViolationError(
                "recovery",
                f"member {host.number} is to rebuild what it had up to entry "
                f"{core.required_index}, and nothing was done to its disk",
            )
        before = self.of.get(host.member_id)
        if before is not None and host.member_id not in self.world.machines.forgotten:
            if core.required_index:
                # It lost entries, and knows it: it takes no part until it has them again.
                _check_vote(host, before.hard_state, durable.hard_state)
                durable.vouched = before
            else:
                _check_recovered(host, before, durable)
        self.of[host.member_id] = durable
        self._follow(host, durable)

    def on_effects(self, host: Host, effects: Effects) -> None:
        """The mark of a snapshot that is installed in a damaged one's place is there already."""
        meta = effects.snapshot
        if meta is not None and meta.index <= host.node.wal.mark_durable_index:
            self.of[host.member_id].take_mark(Mark(meta, log_kept=False))

    def _follow(self, host: Host, durable: Durable) -> None:
        wal = host.node.wal
        lane = wal._lane
        disk = self.world.machines.disk(host)

        class Followed:
            """The lane of the log, with an eye on what it has made durable."""

            def submit(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
                batch: Outgoing | None = wal._writing

                def followed() -> Any:
                    syncs, before = disk.syncs, disk.dirty(LOG)
                    result = job()
                    # A sync of one file says nothing of another: the job may have begun the next.
                    left = [path for path in disk.dirty(LOG) if path not in before]
                    if batch is not None and disk.syncs > syncs and not left:
                        _take_batch(durable, batch)
                    return result

                lane.submit(followed, done)

            def write_and_sync(
                self,
                file: File,
                parts: Sequence[bytes],
                offset: int,
                done: Callable[[BaseException | None], None],
            ) -> None:
                self.submit(partial(files.write_and_sync, file, parts, offset), done)

            def close(self) -> None:
                lane.close()

        wal._lane = Followed()


def _check_vote(host: Host, old: HardState, new: HardState) -> None:
    """Term and vote are there again, whatever else was lost."""
    who = f"member {host.number}"
    if new.term < old.term:
        raise ViolationError(
            "monotonic state",
            f"{who} had term {old.term} on its disk, and came back with {new.term}",
        )
    if new.term == old.term and old.voted_for not in (0, new.voted_for):
        raise ViolationError(
            "one vote a term",
            f"{who} had voted for {old.voted_for:x} in term {old.term}, and came back with "
            f"{new.voted_for:x}",
        )


def _check_recovered(host: Host, before: Durable, after: Durable) -> None:
    """More may have survived than was synced, never less."""
    _check_vote(host, before.hard_state, after.hard_state)
    who = f"member {host.number}"
    old, new = before.hard_state.commit_index, after.hard_state.commit_index
    if new < old:
        raise ViolationError(
            "monotonic state",
            f"{who} had commit index {old} on its disk, and came back with {new}",
        )
    for index, term in before.terms.items():
        if after.holds(index, term):
            continue
        # A newer leader's entries may have replaced it, written and not yet known to be synced.
        newest = after.terms.get(min(index, after.last_index), 0)
        if newest <= term:
            raise ViolationError(
                "durability",
                f"{who} had entry {index} of term {term} on its disk, and came back with "
                f"{after.last_index} entries, there of term {newest}",
            )


def _take_batch(durable: Durable, batch: Outgoing) -> None:
    for record in decode_records(b"".join(batch.parts)):
        if isinstance(record, list):
            durable.take_in(record)
        elif isinstance(record, HardState):
            durable.hard_state = record
        elif isinstance(record, Mark):
            durable.take_mark(record)
