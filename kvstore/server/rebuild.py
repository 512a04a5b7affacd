"""What a member starts from, and how it comes back from damage.

Nothing of this puts in doubt what the member promised: its newest term and vote, and the end of its
log, are known to be whole (``wal/recovery.py``), or it is refused. What else may be damaged, and
what comes of it:

- the newest snapshot: the one before it, and the log since, are as good;
- parts of the log, or snapshots, that nothing needs: nothing;
- all else: a member that is not alone starts **mute** (``raft/mute.py``), without a log, and takes
  part again once it has installed a snapshot of its leader's that covers what it may have
  acknowledged.

That it is mute is written nowhere: the damage stays where it is until the new snapshot's mark is
durable, so a crash in the middle finds the same again.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from kvstore.errors import LostStateError, StateError
from raft.types import NO_NODE, Entry, Index, NodeId, SnapshotMeta
from wal.errors import REPLACE_REMEDY, WalError
from wal.recovery import Recovered
from wal.snapshot_file import SnapshotFile, newest_valid

if TYPE_CHECKING:
    from kvstore.server.driver import Driver
    from wal.files import Disk

log = logging.getLogger("kvstore.server")

COMPLAINT_SECONDS = 10.0


class Start(msgspec.Struct, frozen=True):
    """What to start from: a snapshot (``file`` is None for the state before the first entry), the
    entries that follow it, and what a snapshot must cover before the member takes part; 0: it does.
    """

    snapshot: SnapshotMeta
    file: SnapshotFile | None
    entries: list[Entry]
    required_index: Index


def choose_start(disk: "Disk", directory: str, origin: SnapshotMeta, recovered: Recovered) -> Start:
    """The newest sound snapshot and the entries that follow it, or a mute start.

    Args:
        disk: Where.
        directory: The snapshots'.
        origin: The state before the first entry.
        recovered: What the log says.

    Raises:
        CorruptError: The log is damaged, and there is nobody to fetch from what it had.
        LostStateError: The same of the snapshots.
    """
    if recovered.complete:
        start = _newest_sound(disk, directory, origin, recovered)
        if start is not None:
            if recovered.damage is not None:
                log.warning("damage that a snapshot covers: %s", recovered.damage.summary)
            return start
        lost: WalError | StateError = LostStateError(
            f"the log needs a snapshot that {directory} has no sound copy of: {REPLACE_REMEDY}"
        )
        summary = f"{directory}: no snapshot that the log needs is sound"
    else:
        assert recovered.damage is not None, "a gap is damage"
        lost = recovered.damage
        summary = recovered.damage.summary
    newest = recovered.snapshot_mark or origin
    voters = {*newest.configuration.voters, *newest.configuration.voters_outgoing}
    if voters <= {NodeId(recovered.metadata.member_id)}:
        raise lost
    return _mute(disk, directory, origin, recovered, summary)


def _newest_sound(
    disk: "Disk", directory: str, origin: SnapshotMeta, recovered: Recovered
) -> Start | None:
    mark, entries = recovered.snapshot_mark, recovered.entries
    if mark is None:
        return Start(origin, None, entries, Index(0))
    file = _marked_file(disk, directory, mark)
    if file is not None:
        return Start(mark, file, entries, Index(0))
    fallback = recovered.fallback
    if fallback is None:
        return None
    entries = fallback.entries + entries
    mark = fallback.snapshot_mark
    if mark is None:
        log.warning("no snapshot is sound: starting from the whole log instead")
        return Start(origin, None, entries, Index(0))
    file = _marked_file(disk, directory, mark)
    if file is None:
        return None
    log.warning("starting from the snapshot before, at index %d, instead", mark.index)
    return Start(mark, file, entries, Index(0))


def _mute(
    disk: "Disk", directory: str, origin: SnapshotMeta, recovered: Recovered, damage: str
) -> Start:
    """Start mute, on any sound snapshot that there is: it tells who the others are."""
    required = Index(recovered.last_index)
    log.error(
        "%s; term, vote and the log's end are whole: this member votes for nobody and acknowledges "
        "nothing until it has rebuilt its state from a snapshot at index %d or later",
        damage,
        required,
    )
    file = newest_valid(disk, directory, lambda meta: meta.index < required, _report)
    return Start(origin if file is None else file.meta, file, [], required)


def _marked_file(disk: "Disk", directory: str, mark: SnapshotMeta) -> SnapshotFile | None:
    return newest_valid(
        disk, directory, lambda meta: (meta.index, meta.term) == (mark.index, mark.term), _report
    )


def _report(error: WalError) -> None:
    log.error("a snapshot was passed over: %s", error)


class Rebuild:
    """Watches a member that started mute, and says how it goes.

    Attributes:
        active: Whether the member is mute, and so serves nobody.
    """

    def __init__(self, driver: "Driver", now: Callable[[], float]) -> None:
        self._driver = driver
        self._now = now
        self._started = now()
        self._complain_at = self._started + COMPLAINT_SECONDS
        self.required_index = driver.raft.required_index
        self.active = self.required_index > 0
        self.rebuilt_total = 0
        if self.active:
            driver.on_tick(self._tick)

    def installed(self) -> None:
        """A snapshot is installed: raft takes none that does not cover what is required."""
        if self.active:
            self.active = False
            self.rebuilt_total += 1
            seconds = self._now() - self._started
            log.warning("rebuilt after %.1f s: this member takes part again", seconds)

    def _tick(self, now: float) -> None:
        if self.active and now >= self._complain_at:
            self._complain_at = now + COMPLAINT_SECONDS
            leader = self._driver.leader
            log.warning(
                "still rebuilding: no snapshot at index %d or later yet; %s",
                self.required_index,
                "no leader is known" if leader == NO_NODE else f"the leader is {leader:x}",
            )
