"""Damage below an intact tail: term, vote and the log's end are known, or the log is refused."""

from __future__ import annotations

from contextlib import suppress
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft.types import Entry, HardState, Index, NodeId, SnapshotMeta, Term
from tests.wal.support import DIRECTORY, METADATA, Node, entries, mark, segments, state
from wal.errors import CorruptError
from wal.files import SECTOR_BYTES
from wal.memory_disk import MemoryDisk, PowerCutError
from wal.record import Mark
from wal.recovery import Recovered
from wal.replay import Replay
from wal.segment import segment_path


def allow_gaps(_recovered: Recovered) -> None:
    """A member that may come back mute."""


def reopen(disk: MemoryDisk) -> Recovered:
    disk.crash(Random(1))
    return Node(disk, metadata=None, judge=allow_gaps).recovered


def place_of(disk: MemoryDisk, data: bytes) -> tuple[str, int]:
    """Where some bytes first stand."""
    for path in segments(disk):
        offset = disk.content(path).find(data)
        if offset >= 0:
            return path, offset
    raise AssertionError(f"{data!r} is nowhere")


def batches_of_one(texts: list[bytes]) -> Node:
    """One entry a batch, each of the term 1, all in one segment."""
    node = Node(MemoryDisk())
    for index, text in enumerate(texts, 1):
        node.write(entries(index, index, data=text), state(1, commit_index=index - 1))
    return node


def test_an_earlier_batch_of_the_last_segment_leaves_term_vote_and_end_known() -> None:
    disk = batches_of_one([b"first", b"second", b"third"]).disk
    path, offset = place_of(disk, b"second")
    disk.flip(path, offset, 1)
    recovered = reopen(disk)
    assert not recovered.complete
    assert recovered.last_index == 3
    assert recovered.hard_state == state(1, commit_index=2)
    assert recovered.entries == []
    assert recovered.damage is not None
    assert (recovered.damage.file, recovered.damage.offset // SECTOR_BYTES) == (
        path,
        offset // SECTOR_BYTES,
    )


def test_it_is_the_same_at_every_later_start_until_a_mark_covers_it() -> None:
    disk = batches_of_one([b"first", b"second", b"third"]).disk
    disk.flip(*place_of(disk, b"second"), 1)
    for _ in range(3):
        recovered = reopen(disk)
        assert (recovered.complete, recovered.last_index) == (False, 3)
    disk.crash(Random(1))
    node = Node(disk, metadata=None, judge=allow_gaps)
    # As a mute member does: terms and votes, and in the end a leader's snapshot.
    node.write(None, state(7, 0))
    recovered = reopen(disk)
    assert (recovered.complete, recovered.last_index) == (False, 3)
    assert recovered.hard_state == state(7, 0)
    disk.crash(Random(1))
    node = Node(disk, metadata=None, judge=allow_gaps)
    node.write(None, state(7, 0, 5), mark(5, 6))
    node.write(entries(6, 7, 7))
    for _ in range(2):
        recovered = reopen(disk)
        assert (recovered.complete, recovered.last_index) == (True, 7)
        assert recovered.snapshot_mark == mark(5, 6)
        assert recovered.entries == entries(6, 7, 7)


@pytest.mark.parametrize("steps", range(12))
def test_a_power_cut_while_it_is_opened_changes_nothing(steps: int) -> None:
    node = over_segments()
    node.disk.flip(segments(node.disk)[1], 700, 1)
    node.disk.crash(Random(1))
    node.disk.steps_left = steps
    with suppress(PowerCutError):
        Node(node.disk, metadata=None, judge=allow_gaps)
    node.disk.crash(Random(steps))
    for _ in range(2):
        recovered = reopen(node.disk)
        assert (recovered.complete, recovered.last_index) == (False, 60)
        assert recovered.hard_state == state(1, commit_index=56)


@pytest.mark.parametrize("kind", ["the newest batch", "the newest hard state", "no entry behind"])
def test_what_leaves_term_vote_or_end_in_doubt_is_refused(kind: str) -> None:
    node = batches_of_one([b"first", b"second"])
    if kind == "the newest batch":
        place = place_of(node.disk, b"second")
    elif kind == "the newest hard state":
        place = place_of(node.disk, b"second")
        # No entry comes without its term; should one ever, its hard state is what was damaged.
        node.write(entries(3, 3))
    else:
        place = place_of(node.disk, b"second")
        node.write(None, state(2, 3, 2))
    node.disk.flip(*place, 1)
    node.disk.crash(Random(1))
    with pytest.raises(CorruptError) as refusal:
        Node(node.disk, metadata=None, judge=allow_gaps)
    assert refusal.value.file == place[0]


def over_segments(count: int = 60) -> Node:
    node = Node(MemoryDisk())
    for first in range(1, count, 4):
        node.write(entries(first, first + 3, data=b"v" * 900), state(1, commit_index=first - 1))
    return node


def test_a_damaged_segment_that_a_mark_covers_costs_nothing() -> None:
    node = over_segments()
    node.write(None, None, mark(30))
    for entry in entries(61, 100, data=b"w" * 900):
        node.write([entry], state(1, commit_index=60))
    first = segments(node.disk)[0]
    node.disk.overwrite(first, 0, Random(1).randbytes(9000))
    # The second segment's entries reach back to the mark.
    for _ in range(2):
        node.disk.crash(Random(1))
        node = Node(node.disk, metadata=None)
        recovered = node.recovered
        assert recovered.damage is not None
        assert (recovered.damage.file, recovered.damage.offset) == (first, 0)
        assert recovered.snapshot_mark == mark(30)
        assert [entry.index for entry in recovered.entries] == list(range(31, 101))
    node.wal.release(30)
    node.disk.run_pending()
    assert first not in segments(node.disk)
    assert reopen(node.disk).damage is None


def test_damaged_segments_go_once_a_mark_covers_the_end() -> None:
    node = over_segments()
    damaged = segments(node.disk)[1]
    node.disk.flip(damaged, 700, 1)
    node.disk.crash(Random(1))
    node = Node(node.disk, metadata=None, judge=allow_gaps)
    node.wal.release(10**6)
    node.disk.run_pending()
    assert damaged in segments(node.disk), "nothing covers it yet"
    node.write(None, state(2, 0, 60), mark(60, 2))
    node.wal.release(60)
    node.disk.run_pending()
    assert damaged not in segments(node.disk)
    assert segments(node.disk)[0] == segment_path(DIRECTORY, node.wal._segments[0].number)
    recovered = reopen(node.disk)
    assert recovered.damage is None
    assert recovered.snapshot_mark == mark(60, 2)


def test_nothing_goes_that_was_damaged_or_stands_before_it_while_entries_are_missing() -> None:
    node = over_segments()
    node.write(None, None, mark(10))
    node.disk.flip(segments(node.disk)[1], 700, 1)
    before = [segment_path(DIRECTORY, each.number) for each in node.wal.written()]
    node.disk.crash(Random(1))
    node = Node(node.disk, metadata=None, judge=allow_gaps)
    assert not node.recovered.complete
    node.wal.release(10)
    node.disk.run_pending()
    assert set(before) <= set(segments(node.disk))


def test_a_segment_that_begins_with_an_installed_snapshot_does_not_tell_the_end() -> None:
    """What stands there repeats a mark: entries came behind it, in the segment that is damaged."""
    node = Node(MemoryDisk())
    node.write(entries(1, 3), state(1))
    node.write(None, None, mark(9, 1))
    count = len(node.wal._segments)
    node.write(entries(10, 10, data=b"acknowledged"))
    index = 11
    while len(node.wal._segments) == count:
        node.write(None, state(index))
        index += 1
        # Only hard states, so that the next segment begins without entries.
        assert index < 100
    node.disk.flip(*place_of(node.disk, b"acknowledged"), 1)
    node.disk.crash(Random(1))
    with pytest.raises(CorruptError):
        Node(node.disk, metadata=None, judge=allow_gaps)


def test_a_mark_that_keeps_no_log_tells_the_end_unless_it_repeats_at_a_segments_start() -> None:
    replay = Replay()
    for record in (METADATA, state(1), Mark(mark(9), log_kept=False)):
        replay.feed(record)
    told = [replay.end_known]
    replay.feed(Mark(mark(9), log_kept=False))
    assert [*told, replay.end_known] == [False, True]
    replay = Replay(METADATA, mark(3))
    replay.feed(Mark(mark(9), log_kept=False))
    assert replay.end_known


def test_an_incarnation_is_not_used_again_though_the_batch_that_has_it_is_damaged() -> None:
    node = batches_of_one([b"first"])
    before = segments(node.disk)[0]
    used = len(node.disk.content(before).rstrip(b"\0"))
    node.disk.crash(Random(1))
    node = Node(node.disk, metadata=None)
    incarnation = node.wal.metadata.incarnation
    node.write(entries(2, 3), state(1))
    node.disk.flip(before, -(-used // SECTOR_BYTES) * SECTOR_BYTES + 50, 1)
    recovered = reopen(node.disk)
    assert recovered.damage is not None
    assert recovered.metadata.incarnation > incarnation


class Story:
    """A log as a member writes it, decided by a seed."""

    def __init__(self, seed: int, steps: int) -> None:
        rng = Random(seed)
        self.node = Node(MemoryDisk())
        self.log: list[Entry] = []
        self.mark: SnapshotMeta | None = None
        self.state = HardState(Term(1), NodeId(1), Index(0))
        for _ in range(steps):
            rng.choice([self._append] * 6 + [self._cut, self._vote, self._mark] * 2 + [self._more])(
                rng
            )

    @property
    def last(self) -> int:
        base = 0 if self.mark is None else self.mark.index
        return self.log[-1].index if self.log else base

    def _write(self, added: list[Entry], marked: SnapshotMeta | None = None) -> None:
        self.node.write(added, self.state, marked)

    def _append(self, rng: Random) -> None:
        size = rng.choice([1, 200, 900])
        first = self.last + 1
        added = entries(first, first + rng.randrange(5), self.state.term, rng.randbytes(size))
        self.log += added
        self._write(added)

    def _cut(self, rng: Random) -> None:
        base = 0 if self.mark is None else self.mark.index
        keep = rng.randrange(base, self.last + 1)
        self.log = [entry for entry in self.log if entry.index <= keep]
        self.state = HardState(Term(self.state.term + 1), NodeId(0), Index(0))
        self._append(rng)

    def _vote(self, rng: Random) -> None:
        self.state = HardState(Term(self.state.term + 1), NodeId(rng.randrange(4)), Index(0))
        self._write([])

    def _mark(self, rng: Random) -> None:
        if self.log and rng.random() < 0.8:
            chosen = rng.choice(self.log)
            self.mark = mark(chosen.index, chosen.term)
            self.log = [entry for entry in self.log if entry.index > chosen.index]
            self._write([], self.mark)
            if rng.random() < 0.5:
                self.node.wal.release(chosen.index)
        else:
            self.mark = mark(self.last + rng.randrange(1, 9), self.state.term)
            self.log = []
            self._write([], self.mark)

    def _more(self, _rng: Random) -> None:
        self.node = Node(self.crashed(), metadata=None, judge=allow_gaps)
        assert self.node.recovered.entries == self.log

    def crashed(self) -> MemoryDisk:
        self.node.disk.run_pending()
        self.node.disk.crash(Random(1))
        return self.node.disk


@settings(max_examples=6 * settings().max_examples)
@given(st.integers(0, 2**32), st.integers(1, 60), st.sampled_from(["flip", "garble", "cut"]))
def test_d3_damage_is_refused_or_leaves_term_vote_and_end_known(
    seed: int, steps: int, kind: str
) -> None:
    story = Story(seed, steps)
    disk = story.crashed()
    incarnation = story.node.wal.metadata.incarnation
    rng = Random(seed + 1)
    path = rng.choice(segments(disk))
    used = max(1, len(disk.content(path).rstrip(b"\0")))
    offset = rng.randrange(used)
    if kind == "flip":
        disk.flip(path, offset, rng.randrange(1, 256))
    elif kind == "garble":
        disk.overwrite(path, offset // SECTOR_BYTES * SECTOR_BYTES, rng.randbytes(SECTOR_BYTES))
    else:
        disk.cut(path, offset)
    try:
        node = Node(disk, metadata=None, judge=allow_gaps)
    except CorruptError:
        return
    recovered = node.recovered
    assert recovered.hard_state == story.state
    assert recovered.last_index == story.last
    assert recovered.metadata.incarnation > incarnation
    if recovered.complete:
        base = 0 if recovered.snapshot_mark is None else recovered.snapshot_mark.index
        newest = 0 if story.mark is None else story.mark.index
        assert base <= newest
        behind = [entry for entry in recovered.entries if entry.index > newest]
        assert behind == story.log
    else:
        assert recovered.entries == []
        assert recovered.damage is not None
