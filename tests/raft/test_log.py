"""The log in memory, and what a restart may rely on."""

# Ids, terms and indexes are written as plain numbers here.
# mypy: disable-error-code="arg-type,assignment"

import random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from raft.config import RaftConfig
from raft.errors import StorageError
from raft.log import Log
from raft.node import RaftNode
from raft.types import HardState, SnapshotMeta

from .cluster import voters
from .lab import entries_of, entry


class LogModel(RuleBasedStateMachine):
    """The log against a plain list of everything that was ever appended and not cut."""

    @initialize(base=st.integers(0, 5))
    def begin(self, base):
        self.base, self.base_term = base, 1 if base else 0
        self.entries = []
        self.log = Log(base, self.base_term, [])

    @property
    def last(self):
        return self.base + len(self.entries)

    @rule(steps=st.lists(st.integers(0, 2), max_size=5), size=st.integers(0, 50))
    def append(self, steps, size):
        term = max(1, self.entries[-1].term if self.entries else self.base_term)
        made = []
        for place, step in enumerate(steps, self.last + 1):
            term += step
            made.append(entry(place, term, b"x" * size))
        self.log.append(made)
        self.entries += made

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def truncate(self, data):
        index = data.draw(st.integers(self.base + 1, self.last))
        self.log.truncate_from(index)
        del self.entries[index - self.base - 1 :]

    @rule(data=st.data())
    def trim(self, data):
        index = data.draw(st.integers(self.base, self.last))
        self.log.trim_to(index)
        if index > self.base:
            self.base_term = self.entries[index - self.base - 1].term
            del self.entries[: index - self.base]
            self.base = index

    @rule(index=st.integers(0, 50), term=st.integers(0, 5))
    def reset(self, index, term):
        self.log.reset(index, term)
        self.base, self.base_term, self.entries = index, term, []

    @rule(data=st.data(), bytes_max=st.integers(1, 300))
    def sizes(self, data, bytes_max):
        after = data.draw(st.integers(self.base, self.last))
        upto = data.draw(st.integers(after, self.last))
        between = self.entries[after - self.base : upto - self.base]
        size = sum(len(each.encoded) for each in between)
        assert self.log.bytes_between(after, upto) == size
        oldest = self.log.oldest_within(upto, bytes_max)
        assert self.log.bytes_between(oldest, upto) <= bytes_max
        if oldest > self.base:
            assert self.log.bytes_between(oldest - 1, upto) > bytes_max
        if between:
            taken = self.log.slice_bytes(after + 1, upto, bytes_max)
            assert taken == between[: len(taken)]
            assert taken
            assert len(taken) == 1 or sum(len(each.encoded) for each in taken) <= bytes_max
            more = between[: len(taken) + 1]
            assert more == taken or sum(len(each.encoded) for each in more) > bytes_max

    @invariant()
    def agrees(self):
        if not hasattr(self, "log"):
            return
        assert (self.log.base_index, self.log.last_index) == (self.base, self.last)
        assert len(self.log) == len(self.entries)
        assert self.log.slice(self.base + 1, self.last) == self.entries
        assert self.log.size_bytes == sum(len(each.encoded) for each in self.entries)
        terms = [self.base_term, *[each.term for each in self.entries]]
        assert self.log.last_term == terms[-1]
        assert [self.log.term_at(self.base + place) for place in range(len(terms))] == terms
        assert self.log.term_at(self.base - 1) is None
        assert self.log.term_at(self.last + 1) is None


TestLogModel = LogModel.TestCase


def test_i01_a_gap_is_our_own_mistake():
    with pytest.raises(AssertionError, match="I01"):
        Log(0, 0, entries_of([1, 1], after=1))


def test_i02_a_term_that_decreases_is_our_own_mistake():
    with pytest.raises(AssertionError, match="I02"):
        Log(0, 0, [entry(1, 2)]).append([entry(2, 1)])


# ------------------------------------------------------------------------------------ restarts


def restart(*, hard_state=(3, 1, 0), snapshot=(0, 0), terms=(), applied=None, entries=None):
    meta = SnapshotMeta(snapshot[0], snapshot[1], voters(3))
    return RaftNode(
        RaftConfig(node_id=1, check_invariants=True),
        random.Random(1),
        hard_state=HardState(*hard_state),
        snapshot=meta,
        entries=list(entries or entries_of(terms, after=snapshot[0])),
        applied=snapshot[0] if applied is None else applied,
    )


def test_a_restart_finds_term_vote_log_and_commit_index():
    node = restart(hard_state=(3, 2, 6), snapshot=(5, 2), terms=[2, 3])
    assert (node.term, node.voted_for, node.commit_index) == (3, 2, 6)
    assert (node.first_index, node.last_index, node.stable_index) == (6, 7, 7)
    effects = node.take_effects()
    assert effects is not None
    assert [each.index for each in effects.committed] == [6]
    assert effects.hard_state is None, "what is durable is not written again"


def test_a_state_that_is_ahead_of_the_snapshot_is_not_applied_again():
    node = restart(snapshot=(5, 2), terms=[2, 3], applied=7)
    assert (node.commit_index, node.applied_index) == (7, 7)
    assert node.take_effects() is None


@pytest.mark.parametrize(
    ("what", "complaint"),
    [
        ({"entries": entries_of([1], after=1)}, "cannot follow"),
        ({"entries": [entry(1, 2), entry(2, 1)]}, "cannot follow"),
        ({"snapshot": (5, 2), "terms": [1]}, "cannot follow"),
        ({"terms": [4]}, "hard state only 3"),
        ({"terms": [1], "hard_state": (3, 0, 2)}, "committed, the log ends at 1"),
        ({"terms": [1], "applied": 2}, "applied 2"),
        ({"snapshot": (5, 2), "applied": 4}, "applied 4"),
    ],
)
def test_i07_what_does_not_hold_together_never_votes_again(what, complaint):
    with pytest.raises(StorageError, match=complaint):
        restart(**what)
