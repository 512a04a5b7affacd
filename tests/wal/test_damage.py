"""A damaged log is refused; a torn one is cut. Never is less recovered than was acknowledged, and
never anything else.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft.types import Entry
from tests.wal.support import DIRECTORY, Node, entries, entry, mark, segments, state
from wal.errors import CorruptError, FormatError
from wal.files import SECTOR_BYTES
from wal.memory_disk import MemoryDisk
from wal.recovery import Recovered
from wal.segment import segment_path
from wal.wal import WalOptions

# How many entries a batch gets, and what is in them: zeros too, as clients store them.
batches = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.sampled_from([b"", b"v" * 300, bytes(600), bytes(1500), b"\x80" + bytes(1200)]),
    ),
    min_size=1,
    max_size=12,
)
damages = st.sampled_from(["flip", "zero", "garble", "cut"])


class _Log:
    """A log that was written batch by batch, and where the bytes of the last one are."""

    def __init__(self, shape: list[tuple[int, bytes]], *, clean: bool) -> None:
        self.disk = MemoryDisk()
        # Large enough that what is written together is one batch on the disk.
        self.node = Node(
            self.disk, options=WalOptions(segment_bytes=16 << 10, batch_bytes_max=8 << 10)
        )
        self.entries: list[Entry] = []
        self.before_last = 0
        before: dict[str, bytes] = {}
        for count, data in shape:
            before = {path: self.disk.content(path) for path in segments(self.disk)}
            self.before_last = len(self.entries)
            first = self.before_last + 1
            added = entries(first, first + count - 1, data=data)
            self.node.write(added, state(1, commit_index=self.before_last))
            self.entries += added
        self.last_batch = {
            (path, sector)
            for path in segments(self.disk)
            for sector in range(len(self.disk.content(path)) // SECTOR_BYTES)
            if _sector(self.disk.content(path), sector) != _sector(before.get(path, b""), sector)
            and any(_sector(self.disk.content(path), sector))
        }
        if clean:
            self.node.close()
        self.disk.crash(Random(0))


def _sector(content: bytes, sector: int) -> bytes:
    return content[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES]


def _damage(log: _Log, kind: str, data: st.DataObject) -> tuple[str, int]:
    """Do one damage to one sector of one segment, and say where."""
    disk = log.disk
    path = data.draw(st.sampled_from(segments(disk)))
    size = len(disk.content(path))
    used = len(disk.content(path).rstrip(b"\0")) // SECTOR_BYTES
    sector = data.draw(st.integers(0, min(used + 2, size // SECTOR_BYTES - 1)))
    start = sector * SECTOR_BYTES
    if kind == "flip":
        offset = start + data.draw(st.integers(0, SECTOR_BYTES - 1))
        disk.flip(path, offset, data.draw(st.integers(1, 255)))
    elif kind == "zero":
        disk.overwrite(path, start, bytes(SECTOR_BYTES))
    elif kind == "garble":
        seed = data.draw(st.integers(0, 255))
        disk.overwrite(path, start, Random(seed).randbytes(SECTOR_BYTES))
    else:
        disk.cut(path, start + data.draw(st.integers(0, SECTOR_BYTES - 1)))
    return path, sector


def _open(disk: MemoryDisk) -> tuple[Recovered | None, CorruptError | None]:
    try:
        return Node(disk, metadata=None).recovered, None
    except CorruptError as refusal:
        return None, refusal


@settings(max_examples=4 * settings().max_examples)
@given(batches, damages, st.booleans(), st.data())
def test_one_damaged_sector_is_refused_or_costs_nothing(
    shape: list[tuple[int, bytes]], kind: str, clean: bool, data: st.DataObject
) -> None:
    log = _Log(shape, clean=clean)
    place = _damage(log, kind, data)
    recovered, refusal = _open(log.disk)
    if refusal is not None:
        assert refusal.file.startswith(DIRECTORY)
        assert 0 <= refusal.offset <= 4 * 16 * 1024
        assert refusal.remedy
        return
    assert recovered is not None
    if recovered.entries != log.entries:
        # A last batch of which a sector is zero looks as a power cut would have left it before it
        # was acknowledged. Where the log was closed, that excuse is gone.
        assert kind == "zero"
        assert place in log.last_batch
        assert not clean
        assert recovered.entries == log.entries[: log.before_last]


@settings(max_examples=3 * settings().max_examples)
@given(batches, st.data())
def test_a_batch_torn_anywhere_is_cut_and_nothing_before_it(
    shape: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    log = _Log(shape, clean=False)
    # Only those in the newest segment: a seal is synced before anything is written behind it.
    newest = max(path for path, _sector in log.last_batch)
    last = sorted(place for place in log.last_batch if place[0] == newest)
    lost = data.draw(st.lists(st.sampled_from(last), min_size=1, unique=True))
    for path, sector in lost:
        log.disk.overwrite(path, sector * SECTOR_BYTES, bytes(SECTOR_BYTES))
    node = Node(log.disk, metadata=None)
    assert node.recovered.entries == log.entries[: log.before_last]
    # And the log goes on from there, with nothing left of what was torn.
    more = entries(log.before_last + 1, log.before_last + 3, term=2)
    node.write(more, state(2))
    log.disk.crash(Random(0))
    again = Node(log.disk, metadata=None).recovered
    assert again.entries == log.entries[: log.before_last] + more


def test_a_missing_batch_before_a_later_one_is_corruption() -> None:
    log = _Log([(1, b"a"), (1, b"b"), (1, b"c")], clean=False)
    path = segments(log.disk)[0]
    (sector,) = {sector for _path, sector in log.last_batch}
    log.disk.overwrite(path, (sector - 1) * SECTOR_BYTES, bytes(SECTOR_BYTES))
    with pytest.raises(CorruptError, match="was written after it") as caught:
        Node(log.disk)
    assert (caught.value.file, caught.value.offset) == (path, sector * SECTOR_BYTES)


def test_a_tail_that_is_missing_after_a_clean_stop_is_corruption() -> None:
    log = _Log([(1, b"a"), (1, b"b")], clean=True)
    ((path, sector),) = log.last_batch
    log.disk.overwrite(path, sector * SECTOR_BYTES, bytes(SECTOR_BYTES))
    with pytest.raises(CorruptError, match="the log was closed at") as caught:
        Node(log.disk)
    assert caught.value.file == path


@pytest.mark.parametrize("offset", range(40))
def test_a_damaged_mark_of_a_clean_stop_is_refused(offset: int) -> None:
    log = _Log([(1, b"a")], clean=True)
    log.disk.flip(f"{DIRECTORY}/clean", offset, 0x10)
    with pytest.raises((CorruptError, FormatError)):
        Node(log.disk)


def test_a_header_of_which_the_magic_alone_is_gone_is_corruption() -> None:
    log = _Log([(1, b"a"), (1, b"b")], clean=False)
    ((path, sector),) = log.last_batch
    log.disk.overwrite(path, sector * SECTOR_BYTES, bytes(4))
    with pytest.raises(CorruptError, match="magic is gone"):
        Node(log.disk)


def test_a_segment_that_was_written_to_behind_the_end_is_corruption() -> None:
    log = _Log([(1, b"a")], clean=False)
    spare = segments(log.disk)[-1]
    log.disk.flip(spare, 5000, 0x80)
    with pytest.raises(CorruptError, match="the log ends in segment 1") as caught:
        Node(log.disk)
    assert caught.value.file == spare


def test_a_batch_behind_a_seal_is_corruption() -> None:
    log = _Log([(4, bytes(1500))] * 4, clean=False)
    first = segments(log.disk)[0]
    end = len(log.disk.content(first).rstrip(b"\0"))
    assert end < len(log.disk.content(first))
    log.disk.overwrite(first, end, b"K")
    with pytest.raises(CorruptError) as caught:
        Node(log.disk)
    assert (caught.value.file, caught.value.offset) == (first, end)


def test_a_segment_that_is_gone_is_corruption() -> None:
    shape = [(4, b"v" * 900)] * 12
    count = len(segments(_Log(shape, clean=False).disk))
    refused = 0
    for gone in range(1, count + 1):
        log = _Log(shape, clean=False)
        log.disk.remove(segment_path(DIRECTORY, gone))
        recovered, refusal = _open(log.disk)
        if recovered is not None:
            assert recovered.entries == log.entries
        if refusal is not None:
            refused += 1
            # Removed at the front, nothing but the entries that are missing gives it away.
            assert refusal.file == segment_path(DIRECTORY, 2 if gone == 1 else gone)
    # The last one was a spare.
    assert refused == count - 1


def test_a_segment_that_a_stranger_put_there_is_refused() -> None:
    disk = MemoryDisk()
    Node(disk).close()
    disk.create(f"{DIRECTORY}/backup.wal").close()
    with pytest.raises(CorruptError, match="no segment has such a name"):
        Node(disk)


def test_a_damaged_entry_in_an_intact_batch_is_refused() -> None:
    # The entry was damaged in memory, before its batch's checksum was made: its own says so.
    disk = MemoryDisk()
    node = Node(disk)
    broken = entry(1)
    node.write([Entry(broken.index, broken.term, broken.kind, broken.encoded[:-1] + b"?")])
    disk.crash(Random(0))
    with pytest.raises(CorruptError, match="makes no sense"):
        Node(disk)


def test_a_commit_index_beyond_the_end_is_refused() -> None:
    disk = MemoryDisk()
    node = Node(disk)
    node.write(entries(1, 3), state(1, commit_index=4))
    disk.crash(Random(0))
    with pytest.raises(CorruptError, match="commit index is 4"):
        Node(disk)


def test_a_first_segment_that_is_gone_is_missed_only_where_no_snapshot_covers_it() -> None:
    disk = MemoryDisk()
    node = Node(disk)
    for first in range(1, 40, 4):
        node.write(entries(first, first + 3, data=b"v" * 900))
    node.write(snapshot_mark=mark(20))
    disk.remove(segment_path(DIRECTORY, 1))
    node.close()
    node = Node(disk)
    assert [found.index for found in node.recovered.entries] == list(range(21, 41))
    node.close()
    for path in segments(disk)[:2]:
        disk.remove(path)
    with pytest.raises(CorruptError, match="entries 21 to 36 are missing"):
        Node(disk)
