"""Each checker that looks into the members bites: a member is falsified, and it says so."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from raft.codec import encode_configuration, encode_entry
from raft.effects import Effects, RoleChange
from raft.messages import AppendEntriesReply, Heartbeat, RequestVoteReply
from raft.types import (
    NO_NODE,
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Index,
    NodeId,
    Role,
    Seq,
    SnapshotMeta,
    Term,
)
from tests.checking.violation import ViolationError
from tests.sim.checkers import disk_truth
from tests.sim.checkers.commitment import Commitment
from tests.sim.checkers.disk_truth import DiskTruth, Durable, _check_recovered
from tests.sim.checkers.elections import Elections
from tests.sim.checkers.logs import Logs
from tests.sim.checkers.reads import Reads
from tests.sim.checkers.states import States
from tests.sim.disk import SimDisk

WORLD: Any = SimpleNamespace(
    marks=SimpleNamespace(hit=lambda *_: None), machines=SimpleNamespace(forgotten={})
)
ALL = Configuration((NodeId(1), NodeId(2), NodeId(3)))
JOINT = Configuration((NodeId(1), NodeId(2), NodeId(3)), (NodeId(3), NodeId(4), NodeId(5)))


class FakeLog:
    """A log that begins at 1."""

    def __init__(self, terms: list[int]) -> None:
        self.base_index, self.base_term = Index(0), Term(0)
        self.entries = [entry(number, term) for number, term in enumerate(terms, 1)]

    @property
    def last_index(self) -> Index:
        return Index(len(self.entries))

    def term_at(self, index: Index) -> Term | None:
        if index == 0:
            return Term(0)
        return self.entries[index - 1].term if index <= len(self.entries) else None

    def slice(self, first: Index, last: Index) -> list[Entry]:
        return self.entries[first - 1 : last]


def entry(index: int, term: int, data: bytes = b"x", kind: EntryKind = EntryKind.COMMAND) -> Entry:
    return encode_entry(Index(index), Term(term), kind, data)


def member(number: int, terms: list[int], *, term: int = 0, commit: int = 0) -> Any:
    """What checkers see of a host: its log's terms, its term and commit index."""
    core = SimpleNamespace(
        log=FakeLog(terms),
        membership=SimpleNamespace(at=lambda _: ALL, current=ALL),
        applied_index=Index(0),
        required_index=Index(0),
        term=Term(term),
        voted_for=NO_NODE,
        commit_index=Index(commit),
    )
    raft = SimpleNamespace(
        _core=core, term=Term(term), role=Role.FOLLOWER, commit_index=Index(commit)
    )
    machine = SimpleNamespace(
        applied_index=0, effects_hash=0, store=SimpleNamespace(revision=1), number=number
    )
    node = SimpleNamespace(driver=SimpleNamespace(raft=raft))
    return SimpleNamespace(number=number, member_id=number, node=node, machine=machine)


def effects(**fields: Any) -> Effects:
    return Effects(
        **{
            "seq": Seq(1),
            "hard_state": None,
            "entries": [],
            "snapshot": None,
            "messages": [],
            "messages_after_sync": [],
            "committed": [],
            "accepted": [],
            "rejected": [],
            "reads": [],
            "reads_rejected": [],
            "role_change": None,
            **fields,
        }
    )


def durable(
    terms: list[int] | None = None, *, term: int = 0, vote: int = 0, commit: int = 0
) -> Durable:
    found = Durable()
    found.hard_state = HardState(Term(term), NodeId(vote), Index(commit))
    found.take_in([entry(number, each) for number, each in enumerate(terms or [], 1)])
    return found


def finds(checker: str, step: Callable[[], object]) -> None:
    with pytest.raises(ViolationError) as caught:
        step()
    assert caught.value.checker == checker


def leads(number: int, term: int) -> RoleChange:
    return RoleChange(Role.LEADER, Term(term), NodeId(number))


def disks_of(*members: Any, **kept: Durable) -> DiskTruth:
    disks = DiskTruth(WORLD)
    for each in members:
        disks.of[each.member_id] = kept.get(f"m{each.number}", durable())
    return disks


# --- elections ------------------------------------------------------------------------------------


def test_election_safety_two_leaders_of_one_term() -> None:
    one, two = member(1, []), member(2, [])
    voted = [durable(term=4, vote=number) for number in (1, 2)]
    checker = Elections(WORLD, disks_of(one, two, m1=voted[0], m2=voted[1]))
    checker._votes[3, 4] = 1
    checker.on_role(one, leads(1, 4))
    finds("election safety", lambda: checker.on_role(two, leads(2, 4)))


def test_election_safety_a_leader_by_the_votes_of_a_minority() -> None:
    one = member(1, [])
    checker = Elections(WORLD, disks_of(one, m1=durable(term=4, vote=1)))
    finds("election safety", lambda: checker.on_role(one, leads(1, 4)))


def test_election_safety_a_joint_configuration_asks_both_majorities() -> None:
    one = member(1, [])
    one.node.driver.raft._core.membership.current = JOINT
    checker = Elections(WORLD, disks_of(one, m1=durable(term=4, vote=1)))
    checker._votes[2, 4] = 1
    finds("election safety", lambda: checker.on_role(one, leads(1, 4)))
    checker = Elections(WORLD, disks_of(one, m1=durable(term=4, vote=1)))
    checker._votes.update({(3, 4): 1, (5, 4): 1})
    checker.on_role(one, leads(1, 4))


def test_a_vote_may_be_told_when_a_newer_term_is_on_the_disk_behind_it() -> None:
    """One write may hold both; in the older term no second vote can follow either."""
    one = member(1, [])
    vote = RequestVoteReply(NodeId(1), NodeId(2), Term(4), granted=True)
    checker = Elections(WORLD, disks_of(one, m1=durable(term=5, vote=3)))
    checker.on_send(one, vote)
    again = RequestVoteReply(NodeId(1), NodeId(3), Term(4), granted=True)
    finds("one vote a term", lambda: checker.on_send(one, again))


def test_election_safety_a_heartbeat_of_who_was_not_elected() -> None:
    one = member(1, [])
    beat = Heartbeat(NodeId(1), NodeId(2), Term(4), Index(0), 1)
    finds("election safety", lambda: Elections(WORLD, disks_of(one)).on_send(one, beat))


def test_one_vote_a_term_two_candidates() -> None:
    one = member(1, [])
    disks = disks_of(one, m1=durable(term=4, vote=2))
    checker = Elections(WORLD, disks)
    checker.on_send(one, RequestVoteReply(NodeId(1), NodeId(2), Term(4), granted=True))
    disks.of[1] = durable(term=4, vote=3)
    again = RequestVoteReply(NodeId(1), NodeId(3), Term(4), granted=True)
    finds("one vote a term", lambda: checker.on_send(one, again))


def test_one_vote_a_term_a_vote_that_was_forgotten() -> None:
    one = member(1, [], term=4)
    checker = Elections(WORLD, disks_of(one, m1=durable(term=4, vote=2)))
    checker.on_send(one, RequestVoteReply(NodeId(1), NodeId(2), Term(4), granted=True))
    finds("one vote a term", lambda: checker.on_start(one))


def test_monotonic_state_a_term_that_was_forgotten() -> None:
    checker = Elections(WORLD, disks_of(member(1, []), m1=durable(term=4, vote=2)))
    checker.on_send(member(1, []), RequestVoteReply(NodeId(1), NodeId(2), Term(4), granted=True))
    finds("monotonic state", lambda: checker.on_start(member(1, [], term=3)))


def test_durability_a_vote_that_is_not_on_the_disk() -> None:
    one = member(1, [])
    vote = RequestVoteReply(NodeId(1), NodeId(2), Term(4), granted=True)
    finds("durability", lambda: Elections(WORLD, disks_of(one)).on_send(one, vote))


def test_durability_a_leader_without_its_own_vote() -> None:
    one = member(1, [])
    finds("durability", lambda: Elections(WORLD, disks_of(one)).on_role(one, leads(1, 4)))


def test_a_pre_vote_promises_nothing() -> None:
    one = member(1, [])
    reply = RequestVoteReply(NodeId(1), NodeId(2), Term(4), granted=True, pre_vote=True)
    Elections(WORLD, disks_of(one)).on_send(one, reply)


# --- logs -----------------------------------------------------------------------------------------


def test_log_matching_other_bytes_at_the_same_place() -> None:
    checker = Logs(WORLD)
    one, two = member(1, [1]), member(2, [1])
    checker.on_effects(one, effects(entries=[entry(1, 1, b"a")]))
    finds("log matching", lambda: checker.on_effects(two, effects(entries=[entry(1, 1, b"b")])))


def test_log_matching_another_entry_before() -> None:
    checker = Logs(WORLD)
    checker.on_effects(member(1, [1, 2]), effects(entries=[entry(2, 2)]))
    other = member(2, [2, 2])
    finds("log matching", lambda: checker.on_effects(other, effects(entries=[entry(2, 2)])))


def test_state_machine_safety_another_entry_applied() -> None:
    checker = Logs(WORLD)
    checker.on_committed(member(1, []), [entry(1, 1)])
    finds("state machine safety", lambda: checker.on_committed(member(2, []), [entry(1, 2)]))


def test_state_machine_safety_an_entry_left_out() -> None:
    checker = Logs(WORLD)
    finds("state machine safety", lambda: checker.on_committed(member(1, []), [entry(2, 1)]))


def test_state_machine_safety_a_snapshot_of_another_history() -> None:
    checker = Logs(WORLD)
    checker.on_committed(member(1, []), [entry(1, 1)])
    other = effects(snapshot=SnapshotMeta(Index(1), Term(2), ALL))
    finds("state machine safety", lambda: checker.on_effects(member(2, []), other))


def test_leader_completeness_a_leader_that_lacks_what_is_committed() -> None:
    checker = Logs(WORLD)
    checker.on_committed(member(1, [1]), [entry(1, 1)])
    finds("leader completeness", lambda: checker.on_role(member(2, []), leads(2, 2)))
    finds("leader completeness", lambda: checker.on_role(member(2, [2]), leads(2, 3)))


def test_leader_completeness_asks_nothing_of_who_comes_to_lead_an_older_term() -> None:
    checker = Logs(WORLD)
    checker.on_role(member(1, []), leads(1, 6))
    checker.on_committed(member(1, [6]), [entry(1, 6)])
    checker.on_role(member(2, []), leads(2, 5))
    finds("leader completeness", lambda: checker.on_role(member(2, []), leads(2, 7)))


# --- commitment -----------------------------------------------------------------------------------


def committing(terms: list[int], holders: dict[str, Durable], *, term: int) -> Callable[[], None]:
    """The first of three commits its last entry, as its leader."""
    members = [member(number, terms, term=term) for number in (1, 2, 3)]
    checker = Commitment(WORLD, disks_of(*members, **holders))
    leader = members[0]
    checker.on_start(leader)
    leader.node.driver.raft.role = Role.LEADER
    checker.on_role(leader, leads(1, term))
    leader.node.driver.raft.commit_index = Index(len(terms))
    return lambda: checker.on_effects(leader, effects())


def test_durability_a_commit_that_a_quorum_holds() -> None:
    committing([1, 1], {"m1": durable([1, 1]), "m3": durable([1, 1])}, term=1)()


def test_durability_a_commit_that_only_one_holds() -> None:
    finds("durability", committing([1, 1], {"m1": durable([1, 1]), "m2": durable([1])}, term=1))


def test_leader_completeness_an_old_terms_entry_committed_by_counting() -> None:
    """Raft figure 8."""
    held = {"m1": durable([1]), "m2": durable([1])}
    finds("leader completeness", committing([1], held, term=3))


def test_durability_a_joint_configuration_asks_both_majorities() -> None:
    leader = member(1, [1], term=1)
    leader.node.driver.raft._core.log.entries.append(
        entry(2, 1, encode_configuration(JOINT), EntryKind.CONFIGURATION)
    )
    disks = DiskTruth(WORLD)
    disks.of = {1: durable([1, 1]), 2: durable([1, 1]), 3: durable(), 4: durable(), 5: durable()}
    checker = Commitment(WORLD, disks)
    checker.on_start(leader)
    leader.node.driver.raft.role = Role.LEADER
    checker.on_role(leader, leads(1, 1))
    leader.node.driver.raft.commit_index = Index(2)
    finds("durability", lambda: checker.on_effects(leader, effects()))


def test_a_commit_may_be_counted_before_the_same_step_appends_a_change_of_members() -> None:
    """A step takes in several events; later ones count by the new configuration."""
    grown = Configuration((*ALL.voters, NodeId(4)))
    change = entry(3, 1, encode_configuration(grown), EntryKind.CONFIGURATION)
    holders = {1: durable([1, 1, 1]), 2: durable([1, 1, 1])}
    leader = member(1, [1], term=1)
    disks = DiskTruth(WORLD)
    disks.of = holders
    checker = Commitment(WORLD, disks)
    checker.on_start(leader)
    raft = leader.node.driver.raft
    raft.role = Role.LEADER
    checker.on_role(leader, leads(1, 1))
    raft._core.log.entries += [entry(2, 1), change]
    raft.commit_index = Index(2)
    checker.on_effects(leader, effects(entries=[change]))
    raft.commit_index = Index(3)
    finds("durability", lambda: checker.on_effects(leader, effects()))


def test_durability_an_acknowledgement_of_what_the_disk_has_not() -> None:
    one = member(1, [1, 1])
    checker = Commitment(WORLD, disks_of(one, m1=durable([1])))
    reply = AppendEntriesReply(NodeId(1), NodeId(2), Term(1), accepted=True, match_index=Index(2))
    finds("durability", lambda: checker.on_send(one, reply))


def test_durability_an_acknowledgement_of_what_the_log_has_no_more() -> None:
    one = member(1, [1], term=2)
    checker = Commitment(WORLD, disks_of(one, m1=durable([1])))
    reply = AppendEntriesReply(NodeId(1), NodeId(2), Term(2), accepted=True, match_index=Index(2))
    finds("durability", lambda: checker.on_send(one, reply))
    # Of an earlier term it says what was so then, and nobody who leads now counts it.
    late = AppendEntriesReply(NodeId(1), NodeId(2), Term(1), accepted=True, match_index=Index(2))
    checker.on_send(one, late)


@pytest.mark.parametrize("synced", [True, False])
def test_what_a_job_wrote_is_durable_when_each_of_its_files_is_synced(
    synced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SimDisk()
    old, new = disk.create("data/1.wal"), disk.create("data/2.wal")
    batch = object()
    wal = SimpleNamespace(_lane=disk.lane("wal"), _writing=batch)
    host: Any = SimpleNamespace(node=SimpleNamespace(wal=wal))
    world: Any = SimpleNamespace(machines=SimpleNamespace(disk=lambda _: disk))
    taken: list[object] = []
    monkeypatch.setattr(disk_truth, "_take_batch", lambda _, each: taken.append(each))
    DiskTruth(world)._follow(host, Durable())

    def job() -> None:
        old.write((b"seal",), 0)
        old.sync()
        new.write((b"batch",), 0)
        if synced:
            new.sync()

    wal._lane.submit(job, lambda _: None)
    disk.run_pending()
    assert taken == ([batch] if synced else [])


def test_a_late_acknowledgement_is_of_the_log_as_it_was_in_its_term() -> None:
    one = member(1, [1, 3], term=3)
    checker = Commitment(WORLD, disks_of(one, m1=durable([1, 1])))
    late = AppendEntriesReply(NodeId(1), NodeId(2), Term(1), accepted=True, match_index=Index(2))
    checker.on_send(one, late)
    # Sent in the present term it would be of an entry that is not durable yet.
    reply = AppendEntriesReply(NodeId(1), NodeId(2), Term(3), accepted=True, match_index=Index(2))
    finds("durability", lambda: checker.on_send(one, reply))


def test_election_safety_a_leader_that_does_not_vote() -> None:
    stranger = member(9, [1])
    checker = Commitment(WORLD, disks_of(stranger))
    checker.on_start(stranger)
    finds("election safety", lambda: checker.on_role(stranger, leads(9, 2)))


# --- what comes back ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "checker"),
    [
        (durable(term=3), durable(term=2), "monotonic state"),
        (durable(commit=3), durable(commit=2), "monotonic state"),
        (durable(term=3, vote=1), durable(term=3, vote=2), "one vote a term"),
        (durable(term=3, vote=1), durable(term=3), "one vote a term"),
        (durable([1, 1]), durable([1]), "durability"),
        (durable([1, 2]), durable([1, 1]), "durability"),
    ],
    ids=["term", "commit", "another vote", "no vote", "an entry gone", "an older entry"],
)
def test_recovery_loses_nothing_that_was_synced(
    before: Durable, after: Durable, checker: str
) -> None:
    finds(checker, lambda: _check_recovered(member(1, []), before, after))


def test_recovery_may_bring_more_than_was_synced() -> None:
    host = member(1, [])
    _check_recovered(host, durable([1]), durable([1, 1], term=1))
    # A newer leader's entries, written and not known to be synced when the power went.
    _check_recovered(host, durable([1, 1, 1]), durable([1, 2]))


def test_recovery_a_member_that_lost_something_though_its_disk_was_left_alone() -> None:
    world: Any = SimpleNamespace(machines=SimpleNamespace(hurt={2: None}))
    lost = member(1, [])
    lost.node.driver.raft._core.required_index = Index(4)
    finds("recovery", lambda: DiskTruth(world).on_start(lost))


# --- states and reads -----------------------------------------------------------------------------


def test_equality_another_state_at_the_same_index() -> None:
    checker = States(WORLD)
    one, two = member(1, []), member(2, [])
    checker.on_start(one)
    two.machine.effects_hash = 7
    finds("equality", lambda: checker.on_start(two))


def test_equality_a_revision_that_went_back() -> None:
    checker = States(WORLD)
    one = member(1, [])
    one.machine.store.revision = 5
    checker.on_start(one)
    one.machine.store.revision = 4
    finds("equality", lambda: checker.on_start(one))


def test_state_machine_safety_an_applied_index_that_is_not_the_entrys() -> None:
    outcome: Any = SimpleNamespace(index=3)
    finds("state machine safety", lambda: States(WORLD).on_outcome(member(1, []), outcome))


def test_linearizability_a_read_below_what_was_committed_when_it_was_asked() -> None:
    waiting: list[Callable[[None], None]] = []
    reported: list[ViolationError] = []
    world: Any = SimpleNamespace(report=reported.append)
    logs = Logs(WORLD)
    one = member(1, [])
    one.node.reads = SimpleNamespace(submit=lambda reply, _deadline: waiting.append(reply))
    Reads(world, logs).on_start(one)
    logs.committed_index = 5
    answers: list[object] = []
    for _ in range(2):
        one.node.reads.submit(answers.append, 1.0)
    one.machine.applied_index = 5
    waiting[0](None)
    assert not reported
    one.machine.applied_index = 4
    waiting[1](None)
    assert [violation.checker for violation in reported] == ["linearizability"]
    # Whoever asked is answered all the same.
    assert answers == [None, None]
