"""The checkers bite: each invariant, broken on purpose, is noticed."""

# Ids, terms and indexes are written as plain numbers here.
# mypy: disable-error-code="arg-type,assignment,dict-item"

import pytest

from raft.durability import Write
from raft.invariants import ClusterChecker, InvariantChecker
from raft.progress import ProgressState
from raft.types import SnapshotMeta

from .cluster import voters
from .lab import Lab, entries_of, entry


def leading():
    lab = Lab().lead_and_commit()
    lab.propose(b"a", b"b")
    lab.take()
    return lab.node._core


def replace_entries(core, terms):
    held = core.log._entries
    held[:] = [entry(each.index, term, each.data) for each, term in zip(held, terms, strict=True)]


def lose_uncommitted_tail(core):
    core.log.truncate_from(3)
    core.durability.cut(2, 1)
    for each in core.leadership.progress.values():
        each.become_probe(2)


def forget_commit(core):
    core.commit_index = core.applying_index = core.applied_index = 0


def unfollow_term(core):
    core.term = core.durability.term = 0
    replace_entries(core, [0, 0, 0])


def change_vote(core):
    core.voted_for = core.durability.voted_for = core.node_id = core.leader = 2
    core.leadership.node_id = 2


# What is true of a leader whose log is (no-op, a, b), the no-op committed; and how to break it.
BREAKS = [
    ("I01", lambda core: core.log._entries.pop(0)),
    ("I01", lambda core: core.log._ends.__setitem__(-1, 1)),
    ("I01", lambda core: setattr(core.log, "last_index", 99)),
    ("I02", lambda core: replace_entries(core, [1, 9, 1])),
    ("I02", lambda core: replace_entries(core, [1, 1, 9])),
    ("I03", lambda core: setattr(core, "applied_index", 2)),
    ("I03", lambda core: setattr(core, "applying_index", 2)),
    ("I03", lambda core: setattr(core, "commit_index", 9)),
    ("I03", lambda core: core.log.trim_to(2)),
    ("I04", lambda core: setattr(core.durability, "stable_index", 9)),
    ("I04", lambda core: setattr(core.durability, "handed_index", 9)),
    ("I04", lambda core: setattr(core.durability, "term", 9)),
    ("I05", unfollow_term),
    ("I06", change_vote),
    ("I08", forget_commit),
    ("I08", lambda core: setattr(core, "applied_index", 0)),
    ("I09", lose_uncommitted_tail),
    ("I10", lambda core: replace_entries(core, [0, 1, 1])),
    ("I11", lambda core: setattr(core, "leadership", None)),
    ("I11", lambda core: setattr(core.durability, "voted_for", 2)),
    ("I11", lambda core: setattr(core, "leader", 2)),
    ("I13", lambda core: core.durability.writes.append(Write(9, None, 3, 0))),
    ("I15", lambda core: setattr(core.membership, "current", voters(5))),
    ("I16", lambda core: core.leadership.progress.popitem()),
    ("I16", lambda core: setattr(core.leadership.progress[2], "match", 9)),
    ("I16", lambda core: setattr(core.leadership.progress[2], "next", 99)),
    ("I16", lambda core: setattr(core.leadership.progress[2], "inflight_bytes", 1)),
    ("I16", lambda core: setattr(core.leadership.progress[2], "state", ProgressState.PROBE)),
]


@pytest.mark.parametrize("place", range(len(BREAKS)))
def test_a_broken_invariant_is_noticed(place):
    number, break_it = BREAKS[place]
    core = leading()
    checker = InvariantChecker(core)
    checker.check(core)
    break_it(core)
    with pytest.raises(AssertionError, match=number):
        checker.check(core)


def test_i06_a_candidate_that_voted_for_another_is_noticed():
    lab = Lab()
    lab.campaign()
    core = lab.node._core
    checker = InvariantChecker(core)
    core.voted_for = 2
    with pytest.raises(AssertionError, match="I06"):
        checker.check(core)


def test_a_log_is_checked_as_a_whole_though_only_news_is_looked_at():
    """What was found sound before a trim, a cut, or in between, is not taken for granted."""
    core = Lab(log=[1, 1, 2, 2, 3, 3], term=3).node._core
    checker = InvariantChecker(core)
    log = core.log
    log.trim_to(2)
    core.applied_index = core.applying_index = core.commit_index = 2
    checker.check(core)
    log.truncate_from(6)
    core.durability.cut(5, 3)
    checker.check(core)
    log.append([entry(6, 3, b"another")])
    checker.check(core)
    log._ends[-1] += 1
    with pytest.raises(AssertionError, match="I01: bytes"):
        checker.check(core)
    log._ends[-1] -= 1
    checker.check(core)
    log._entries[1] = entry(4, 1)
    with pytest.raises(AssertionError, match="I02"):
        checker.check(core)


def test_i11_a_follower_that_believes_that_it_leads_is_noticed():
    core = Lab().node._core
    checker = InvariantChecker(core)
    core.leader = 1
    with pytest.raises(AssertionError, match="I11"):
        checker.check(core)


def test_i20_two_leaders_of_a_term_are_noticed():
    checker = ClusterChecker()
    checker.saw_leader(1, 5)
    checker.saw_leader(1, 5)
    checker.saw_leader(2, 6)
    with pytest.raises(AssertionError, match="I20"):
        checker.saw_leader(2, 5)


def test_i07_two_votes_of_a_node_in_a_term_are_noticed():
    checker = ClusterChecker()
    checker.saw_vote(1, 5, 2)
    checker.saw_vote(1, 5, 2)
    with pytest.raises(AssertionError, match="I07"):
        checker.saw_vote(1, 5, 3)


def test_i21_logs_that_differ_at_a_position_are_noticed():
    checker = ClusterChecker()
    checker.check_logs({1: list(entries_of([1, 2])), 2: list(entries_of([1, 1, 3]))})
    with pytest.raises(AssertionError, match="I21"):
        checker.check_logs({1: [entry(1, 1, b"a")], 2: [entry(1, 1, b"b")]})
    with pytest.raises(AssertionError, match="I21"):
        checker.check_logs({1: list(entries_of([1, 3])), 2: list(entries_of([2, 3]))})


def test_i22_a_leader_that_lacks_what_is_committed_is_noticed():
    checker = ClusterChecker()
    core = leading()
    checker.saw_applied(2, entries_of([1]))
    checker.saw_leader(1, core.term)
    with pytest.raises(AssertionError, match="I22"):
        checker.check_leader(core)
    checker = ClusterChecker()
    checker.saw_applied(2, entries_of([1] * 9))
    with pytest.raises(AssertionError, match="I22"):
        checker.check_leader(core)


def test_i23_another_entry_at_an_applied_index_is_noticed():
    checker = ClusterChecker()
    checker.saw_applied(1, entries_of([1, 1]))
    with pytest.raises(AssertionError, match="I23"):
        checker.saw_applied(2, entries_of([1, 2]))
    with pytest.raises(AssertionError, match="I23"):
        checker.saw_applied(1, entries_of([1], after=3))
    checker.saw_restart(1, 1)
    checker.saw_applied(1, entries_of([1], after=1))
    checker.saw_snapshot(SnapshotMeta(2, 1, voters(3)))
    with pytest.raises(AssertionError, match="I23"):
        checker.saw_snapshot(SnapshotMeta(2, 7, voters(3)))
