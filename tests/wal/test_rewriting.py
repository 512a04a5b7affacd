"""Entries that are written twice: the second writing, cut short or not, takes nothing away."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft.types import Entry
from tests.wal.support import OPTIONS, Node, entries, entry, mark, reopened, segments, state
from wal.errors import CorruptError
from wal.memory_disk import MemoryDisk


def _installed_in_two(log: list[Entry], snapshot: int, first_piece: int) -> Node:
    """A node that died after the mark and the first piece of what follows it, written again."""
    node = Node(MemoryDisk())
    for each in log:
        node.write([each], state(3, 1, 0))
    behind = [each for each in log if each.index > snapshot]
    node.write(behind[:first_piece], None, mark(snapshot, log[snapshot - 1].term))
    return reopened(node)


@pytest.mark.parametrize("first_piece", [1, 4, 7, 8])
def test_paper_s5_3_half_of_a_suffix_written_again_cuts_nothing(first_piece: int) -> None:
    log = entries(1, 5, 1) + entries(6, 9, 2) + entries(10, 12, 3)
    node = _installed_in_two(log, 4, first_piece)
    assert node.recovered.snapshot_mark == mark(4)
    assert node.recovered.entries == log[4:]
    # And the log goes on from there.
    node.write(entries(13, 14, 3))
    assert reopened(node).recovered.entries == log[4:] + entries(13, 14, 3)


def test_paper_s5_3_the_first_entry_of_another_term_cuts() -> None:
    node = Node(MemoryDisk())
    node.write(entries(1, 8, 1), state(3))
    node.write(entries(3, 4, 1) + entries(5, 6, 3))
    assert reopened(node).recovered.entries == entries(1, 4, 1) + entries(5, 6, 3)


def test_two_entries_of_one_index_and_term_are_refused() -> None:
    node = Node(MemoryDisk())
    node.write(entries(1, 3, 1), state(1))
    node.write([entry(2, 1, b"another")])
    with pytest.raises(CorruptError, match="entry 2 was written twice in one term, and differs"):
        reopened(node)


def _without_its_first_segment(node: Node) -> Node:
    """As it is found once a later snapshot has let the first segment go."""
    first = segments(node.disk)[0]
    node.wal.release(10)
    node.disk.run_pending()
    assert first not in segments(node.disk)
    return reopened(node)


def _over_two_segments() -> tuple[Node, list[Entry], int]:
    """A log, and the first entry in its second segment."""
    node = Node(MemoryDisk())
    log = entries(1, 20, 1, b"v" * 1000)
    first = 0
    for each in log:
        before = len(node.wal._segments)
        node.write([each], state(3))
        if before == 1 and len(node.wal._segments) == 2:
            first = each.index
    assert 8 < first < 18
    return node, log, first


def test_a_suffix_that_begins_in_a_segment_that_is_gone_is_read_from_its_second_writing() -> None:
    node, log, first = _over_two_segments()
    # From below the second segment's first entry to somewhere behind it.
    node.write(log[first - 3 : first + 1], None, mark(first - 3))
    node = reopened(node)
    assert node.recovered.entries == log[first - 3 :]
    node.write(entries(21, 21, 1), None, mark(first))
    node.wal.release(first)
    node.disk.run_pending()
    node = reopened(node)
    assert segments(node.disk)[0].endswith("2.wal")
    assert node.recovered.entries == [*log[first:], *entries(21, 21, 1)]


@pytest.mark.parametrize("reach", [-1, 0, 1])
def test_a_conflict_that_begins_in_a_segment_that_is_gone_cuts(reach: int) -> None:
    node, log, first = _over_two_segments()
    ours = entries(first - 2, first + reach, 2)
    node.write(ours)
    assert reopened(node).recovered.entries == log[: first - 3] + ours
    node = reopened(node)
    node.write(None, None, mark(first - 1, 2))
    node.wal.release(first - 1)
    node.disk.run_pending()
    node = reopened(node)
    assert segments(node.disk)[0].endswith("2.wal")
    assert node.recovered.entries == ours[2:]


@given(st.integers(0, 2**32), st.integers(0, 40))
def test_a_power_cut_at_any_step_of_installing_a_snapshot_loses_no_acknowledged_entry(
    seed: int, steps: int
) -> None:
    rng = Random(seed)
    node = Node(MemoryDisk())
    log = entries(1, 25, 2, b"v" * 1000)
    node.write(log, state(2))
    snapshot = rng.randrange(1, 20)
    suffix = log[snapshot:]
    assert sum(len(each.encoded) for each in suffix) > OPTIONS.batch_bytes_max
    node.persist(suffix, state(2, 1, snapshot), mark(snapshot, 2))
    for _ in range(steps):
        node.disk.run_next("wal")
    node.disk.crash(rng)
    recovered = Node(node.disk, metadata=None).recovered
    marked = snapshot if recovered.snapshot_mark is not None else 0
    assert recovered.entries == log[marked:]


def test_what_follows_a_mark_that_keeps_the_log_goes_out_in_one_batch() -> None:
    node = Node(MemoryDisk())
    log = entries(1, 9, 1, b"v" * 1000)
    node.write(log, state(1))
    before = node.wal.batches
    node.write(log[3:], None, mark(3))
    assert node.wal.batches == before + 1
    # A mark that cuts leaves nothing that half of its entries could be confused with.
    node.write(entries(13, 20, 2, b"v" * 1000), state(2), mark(12, 2))
    assert node.wal.batches > before + 2
    assert node.wal.queued_bytes == 0
    assert reopened(node).recovered.entries == entries(13, 20, 2, b"v" * 1000)
