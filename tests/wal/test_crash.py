"""Whatever was acknowledged is found after any crash, and what is found is what was asked for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from raft.types import Entry, HardState
from tests.wal.support import OPTIONS, Node, entries, mark, state
from wal.memory_disk import MemoryDisk, PowerCutError


class _Model:
    """The log as it should be found, after each call of ``persist``: hard state, snapshot index,
    entries after it.
    """

    def __init__(self) -> None:
        self.states: list[tuple[HardState, int, tuple[Entry, ...]]] = [(state(0, 0), 0, ())]
        self.acknowledged = 0
        self.large: set[int] = set()
        self.seq_of: dict[int, int] = {}

    @property
    def newest(self) -> tuple[HardState, int, tuple[Entry, ...]]:
        return self.states[-1]


def _step(node: Node, model: _Model, rng: Random) -> None:
    """Do one random thing that a node does."""
    hard_state, snapshot, log = model.newest
    last = snapshot + len(log)
    what = rng.randrange(7)
    term: int = hard_state.term
    added: list[Entry] = []
    new_mark = None
    if what <= 2:
        data = rng.choice([b"", b"v" * 200, bytes(800), bytes(6000)])
        data += bytes(rng.randrange(600))
        added = entries(last + 1, last + rng.randrange(1, 5), max(term, 1), data)
        log = (*log, *added)
    elif what == 3 and log:
        # A new leader replaces the end (Raft §5.3).
        first = rng.randrange(log[0].index, last + 1)
        term += 1
        added = entries(first, first + rng.randrange(3), term)
        log = (*log[: first - snapshot - 1], *added)
    elif what == 4 and log:
        # A snapshot of its own: the entries after it stay.
        covered = rng.choice(log)
        new_mark = mark(covered.index, covered.term)
        log = log[covered.index - snapshot :]
        snapshot = covered.index
    elif what == 5:
        # A leader's snapshot that the log does not agree with: nothing stays (Raft §7).
        term += 1
        snapshot = rng.randrange(snapshot + 1, last + 5)
        new_mark = mark(snapshot, term)
        log = ()
    elif what == 6 and log:
        # A leader's snapshot that the log agrees with: what follows stays, written once more.
        covered = rng.choice(log)
        new_mark = mark(covered.index, covered.term)
        log = log[covered.index - snapshot :]
        snapshot = covered.index
        added = list(log)
    if added and added[-1].term > term:
        term = added[-1].term
    hard_state = state(term, rng.randrange(4), snapshot + len(log))
    seq = node.persist(added, hard_state, new_mark)
    model.states.append((hard_state, snapshot, log))
    model.seq_of[seq] = len(model.states) - 1
    written_again = what == 6
    if (
        not written_again
        and sum(len(each.encoded) + 4 for each in added) > OPTIONS.batch_bytes_max - 64
    ):
        model.large.add(len(model.states) - 1)


def _found(node: Node) -> tuple[HardState, int, tuple[Entry, ...]]:
    recovered = node.recovered
    snapshot = recovered.snapshot_mark.index if recovered.snapshot_mark is not None else 0
    return recovered.hard_state, snapshot, tuple(recovered.entries)


def _agrees(model: _Model, found: tuple[HardState, int, tuple[Entry, ...]]) -> bool:
    """Whether what was found is one of the states asked for, from the acknowledged one on.

    A call that is larger than a batch is durable piece by piece, so that the next state may have
    begun: then term and vote are the new ones, and a part of the new entries is there.
    """
    if found in model.states[model.acknowledged :]:
        return True
    for begun in sorted(model.large):
        after = model.states[begun]
        if begun <= model.acknowledged or (found[0].term, found[0].voted_for) != (
            after[0].term,
            after[0].voted_for,
        ):
            continue
        if found[1] == after[1] and found[2] == after[2][: len(found[2])]:
            return True
    return False


@settings(max_examples=3 * settings().max_examples)
@given(st.integers(0, 2**32))
def test_what_was_acknowledged_survives_crashes(seed: int) -> None:
    rng = Random(seed)
    disk = MemoryDisk()
    model = _Model()
    node = Node(disk)
    for boot in range(1, 5):
        assert node.recovered.metadata.incarnation == boot
        for _ in range(rng.randrange(25)):
            _step(node, model, rng)
            for _ in range(rng.randrange(3)):
                disk.run_next(rng.choice(["wal", "wal", "wal-prepare"]))
            for seq in node.persisted:
                model.acknowledged = max(model.acknowledged, model.seq_of[seq])
            node.persisted.clear()
            if rng.randrange(4) == 0:
                node.wal.release(model.newest[1])
        disk.crash(rng)
        node = Node(disk, metadata=None)
        found = _found(node)
        assert _agrees(model, found), f"{found} is not among the states asked for"
        # What was found is where the next life starts.
        model.states = [found]
        model.acknowledged = 0
        model.large.clear()
        model.seq_of.clear()


@given(st.integers(0, 2**32), st.integers(0, 60))
def test_a_power_cut_at_any_step_of_opening_and_closing_loses_nothing(
    seed: int, steps: int
) -> None:
    rng = Random(seed)
    disk = MemoryDisk()
    node = Node(disk)
    log = entries(1, 12, data=b"v" * 1000)
    node.write(log, state(3, 2, 12))
    for _ in range(3):
        if rng.randrange(2):
            node.wal.close(node.closed.append)
        disk.steps_left = steps
        _ignoring_power_cuts(disk.run_pending)
        disk.crash(rng)
        disk.steps_left = rng.randrange(12)
        _ignoring_power_cuts(lambda: Node(disk))
        disk.crash(rng)
        node = Node(disk, metadata=None)
        assert node.recovered.entries == log
        assert node.recovered.hard_state == state(3, 2, 12)


@given(st.integers(0, 2**32), st.integers(0, 14))
def test_a_power_cut_while_a_log_is_begun_leaves_a_log_or_none(seed: int, steps: int) -> None:
    disk = MemoryDisk()
    disk.steps_left = steps
    _ignoring_power_cuts(lambda: Node(disk))
    disk.crash(Random(seed))
    # With what it is to say of itself at hand it opens in any case; it is never half there.
    node = Node(disk)
    assert node.recovered.metadata.incarnation in (1, 2)
    assert node.recovered.entries == []


def _ignoring_power_cuts(job: Callable[[], object]) -> None:
    with suppress(PowerCutError):
        job()
