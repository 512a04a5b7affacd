"""Reading again finds every damage to what is durable; writing anew makes do without it."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft.types import Seq
from tests.wal.support import DIRECTORY, Node, entries, mark, segments, state
from tests.wal.test_below_the_tail import Story, allow_gaps, over_segments, reopen
from wal.errors import CorruptError
from wal.memory_disk import MemoryDisk
from wal.scrub import PIECE_BYTES, Written, scrub_segment, scrub_snapshot
from wal.segment import segment_path
from wal.snapshot_file import SnapshotWriter
from wal.wal import WalOptions


def scrub(node: Node) -> int:
    """Read everything again; return how many bytes that was."""
    return sum(
        length
        for written in node.wal.written()
        for length in scrub_segment(node.disk, DIRECTORY, written)
    )


def test_a_sound_log_is_read_whole() -> None:
    node = over_segments()
    *sealed, tail = node.wal.written()
    assert len(sealed) > 2
    size = len(node.disk.content(segments(node.disk)[0]))
    assert scrub(node) == len(sealed) * size + tail.end
    assert tail.end == len(node.disk.content(segment_path(DIRECTORY, tail.number)).rstrip(b"\0"))


def test_batches_larger_than_a_piece_are_read_whole() -> None:
    options = WalOptions(segment_bytes=1 << 20, batch_bytes_max=1 << 20)
    node = Node(MemoryDisk(), options=options)
    for index, size in enumerate([10, 3 * PIECE_BYTES, 100, PIECE_BYTES, 5 * PIECE_BYTES], 1):
        node.write(entries(index, index, data=b"v" * size))
    (tail,) = node.wal.written()
    lengths = list(scrub_segment(node.disk, DIRECTORY, tail))
    assert sum(lengths) == tail.end
    assert len(lengths) > 4


def test_what_is_being_written_is_not_read_before_it_is_durable() -> None:
    node = Node(MemoryDisk())
    node.write(entries(1, 1))
    (before,) = node.wal.written()
    node.persist(entries(2, 2))
    assert node.wal.written() == [before]
    node.disk.run_pending()
    assert node.wal.written()[0].end > before.end


@settings(max_examples=2 * settings().max_examples)
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(0, 2**32))
def test_any_byte_that_is_damaged_is_found(seed: int, steps: int, damage: int) -> None:
    story = Story(seed, steps)
    node = story.node
    node.disk.run_pending()
    assert scrub(node) > 0
    rng = Random(damage)
    written = rng.choice(node.wal.written())
    path = segment_path(DIRECTORY, written.number)
    offset = rng.randrange(written.end or len(node.disk.content(path)))
    node.disk.flip(path, offset, rng.randrange(1, 256))
    with pytest.raises(CorruptError) as found:
        scrub(node)
    assert found.value.file == path


@pytest.mark.parametrize("size", [0, 10, 700, 16 * 1024 - 512])
def test_a_segment_that_is_cut_short_is_found(size: int) -> None:
    node = over_segments()
    node.disk.cut(segments(node.disk)[1], size)
    with pytest.raises(CorruptError):
        scrub(node)


def test_a_segment_may_go_before_or_while_it_is_read() -> None:
    node = over_segments()
    reading = scrub_segment(node.disk, DIRECTORY, Written(1, 0))
    read = next(reading)
    node.write(None, None, mark(60))
    node.wal.release(60)
    node.disk.run_pending()
    assert segment_path(DIRECTORY, 1) not in segments(node.disk)
    assert read + sum(reading) == 16 * 1024
    assert not list(scrub_segment(node.disk, DIRECTORY, Written(1, 0)))


def test_any_byte_of_a_snapshot_that_is_damaged_is_found() -> None:
    disk = MemoryDisk()
    writer = SnapshotWriter(disk, "snap", mark(9))
    for chunk in (b"a" * 100, b"b" * 300):
        writer.append(chunk)
    file = writer.finish()
    assert sum(scrub_snapshot(disk, file.path)) == 400
    for offset in range(file.size_bytes):
        disk.flip(file.path, offset, 4)
        with pytest.raises(CorruptError):
            list(scrub_snapshot(disk, file.path))
        disk.flip(file.path, offset, 4)
    assert not list(scrub_snapshot(disk, "snap/gone.snap"))


# ------------------------------------------------------------------------------- writing anew


@pytest.mark.parametrize("segment", [0, 2, -1])
@pytest.mark.parametrize("behind", [0, 1, 20])
def test_a_damaged_segment_goes_with_all_before_it_once_what_follows_is_written_anew(
    segment: int, behind: int
) -> None:
    node = over_segments()
    in_use = [segment_path(DIRECTORY, each.number) for each in node.wal.written()]
    damaged = in_use[segment]
    node.disk.flip(damaged, 700, 1)
    node.write(None, None, mark(60 - behind))
    kept = entries(61 - behind, 60, data=b"v" * 900)
    assert node.wal.begin_anew(Seq(node.seq), kept, mark(60 - behind))
    node.disk.run_pending()
    assert not set(in_use) & set(segments(node.disk))
    assert scrub(node) > 0
    assert node.wal.queued_bytes == 0
    recovered = reopen(node.disk)
    assert recovered.damage is None
    assert (recovered.snapshot_mark, recovered.entries) == (mark(60 - behind), kept)
    assert recovered.hard_state == state(1, commit_index=56)


@pytest.mark.parametrize("behind", [0, 3])
def test_it_is_whole_as_soon_as_it_is_durable_though_the_damage_is_still_there(behind: int) -> None:
    node = over_segments()
    damaged = segment_path(DIRECTORY, node.wal.written()[-1].number)
    # In the newest entries: nothing behind them in that segment tells where the log ends.
    node.disk.flip(damaged, node.disk.content(damaged).rindex(b"v" * 100), 1)
    node.write(None, None, mark(60 - behind))
    kept = entries(61 - behind, 60, data=b"v" * 900)
    assert node.wal.begin_anew(Seq(node.seq), kept, mark(60 - behind))
    node.disk.run_next("wal")
    assert damaged in segments(node.disk)
    node.disk.crash(Random(3))
    recovered = Node(node.disk, metadata=None).recovered
    assert recovered.damage is not None
    assert (recovered.entries, recovered.last_index) == (kept, 60)


def test_the_log_is_written_on_while_it_is_written_anew() -> None:
    node = over_segments()
    node.persist(None, None, mark(55))
    node.persist(entries(61, 62), state(2))
    kept = entries(56, 60, data=b"v" * 900) + entries(61, 62)
    assert node.wal.begin_anew(Seq(node.seq), kept, mark(55))
    node.persist(entries(63, 64, 2), state(2, 1, 61))
    node.disk.run_pending()
    assert node.persisted[-1] == node.seq
    recovered = reopen(node.disk)
    assert recovered.entries == kept + entries(63, 64, 2)
    assert len(node.wal.written()) == 1


def test_nothing_is_written_anew_behind_a_mark_that_is_not_the_newest() -> None:
    node = over_segments()
    node.write(None, None, mark(55))
    assert not node.wal.begin_anew(Seq(node.seq), entries(51, 60), mark(50))
    node.close()
    assert not node.wal.begin_anew(Seq(node.seq), entries(56, 60), mark(55))


@settings(max_examples=2 * settings().max_examples)
@given(st.integers(0, 2**32), st.integers(0, 12), st.sampled_from([0, 3, 30]))
def test_a_power_cut_while_it_is_written_anew_leaves_it_damaged_or_whole(
    seed: int, jobs: int, behind: int
) -> None:
    rng = Random(seed)
    node = over_segments()
    # A damage that leaves term, vote and end known, in any case but the last segment's.
    damaged = rng.choice(node.wal.written())
    node.disk.flip(segment_path(DIRECTORY, damaged.number), 700, 1)
    node.persist(None, state(2), mark(60 - behind))
    kept = entries(61 - behind, 60, data=b"v" * 900)
    assert node.wal.begin_anew(Seq(node.seq), kept, mark(60 - behind))
    for _ in range(jobs):
        busy = [lane for lane in node.disk.lanes if lane.jobs]
        if busy:
            rng.choice(busy).run_next()
    whole = len(node.wal.written()) == 1
    node.disk.crash(rng)
    try:
        recovered = Node(node.disk, metadata=None, judge=allow_gaps).recovered
    except CorruptError:
        assert not whole, "what is durable came to nothing"
        return
    assert recovered.last_index == 60
    assert recovered.complete or not whole
    if recovered.complete:
        marked = 0 if recovered.snapshot_mark is None else recovered.snapshot_mark.index
        assert [entry.index for entry in recovered.entries] == list(range(marked + 1, 61))
