"""A member gives its place to another in one step, and one place is given away at a time."""

from typing import Any

from kvstore.commands import MembershipAction, MembershipChange, PublishMember
from kvstore.errors import ErrorKind
from kvstore.types import (
    AlarmAction,
    AlarmMember,
    AlarmRequest,
    AlarmType,
    Member,
    MemberId,
)
from tests.kvstore.apply.support import Rig, captured


def replace(rig: Rig, lost: int, successor: int) -> Any:
    version = rig.machine.roster.version
    change = MembershipChange(
        version, MembershipAction.REPLACE, successor, [], is_learner=True, replaces=lost
    )
    return rig.ask(change)


def test_the_successor_has_the_urls_of_the_lost_and_learns():
    rig = Rig()
    rig.run(AlarmRequest(AlarmAction.ACTIVATE, 9, AlarmType.NOSPACE))
    rig.run(AlarmRequest(AlarmAction.ACTIVATE, 7, AlarmType.NOSPACE))
    replace(rig, 9, 10)
    roster = rig.machine.roster
    assert roster.members[MemberId(10)] == Member(10, "", ("http://b:1",), (), isLearner=True)
    assert roster.removed == {9: ("http://b:1",)}
    assert roster.successors == {10: 9}
    assert rig.machine.alarms == (AlarmMember(7, AlarmType.NOSPACE),)


def test_another_place_is_given_away_only_once_the_first_successor_votes():
    rig = Rig()
    replace(rig, 9, 10)
    version = rig.machine.roster.version
    assert replace(rig, 7, 11) == ErrorKind.TOO_MANY_LEARNERS.error()
    assert 7 in rig.machine.roster.members
    rig.run(MembershipChange(version, MembershipAction.PROMOTE, 10, []))
    assert rig.machine.roster.successors == {}
    replace(rig, 7, 11)
    assert rig.machine.roster.successors == {11: 7}


def test_a_successor_that_is_lost_gives_the_same_place_on():
    rig = Rig()
    replace(rig, 9, 10)
    replace(rig, 10, 11)
    assert rig.machine.roster.successors == {11: 9}
    assert sorted(rig.machine.roster.members) == [7, 11]


def test_an_operator_who_takes_the_successor_out_frees_the_place():
    rig = Rig()
    replace(rig, 9, 10)
    version = rig.machine.roster.version
    rig.run(MembershipChange(version, MembershipAction.REMOVE, 10, []))
    assert rig.machine.roster.successors == {}
    replace(rig, 7, 11)
    assert rig.machine.roster.successors == {11: 7}


def test_a_learner_that_is_lost_stays_an_operators_learner():
    rig = Rig()
    rig.run(MembershipChange(0, MembershipAction.ADD, 8, ["http://c:1"], is_learner=True))
    replace(rig, 9, 10)
    replace(rig, 8, 11)
    assert rig.machine.roster.successors == {10: 9}
    assert rig.machine.roster.members[MemberId(11)].isLearner


def test_who_is_unknown_or_known_already_is_refused_and_nothing_is_done():
    rig = Rig()
    before = dict(rig.machine.roster.members)
    assert replace(rig, 99, 10) == ErrorKind.MEMBER_NOT_FOUND.error()
    assert replace(rig, 9, 7) == ErrorKind.MEMBER_EXIST.error()
    assert replace(rig, 9, 0) == ErrorKind.MEMBER_NOT_FOUND.error()
    stale = MembershipChange(99, MembershipAction.REPLACE, 10, [], replaces=9)
    assert rig.ask(stale) == ErrorKind.UNHEALTHY.error()
    assert rig.machine.roster.members == before
    replace(rig, 9, 10)
    assert replace(rig, 10, 9) == ErrorKind.MEMBER_NOT_FOUND.error(), "its id never comes back"


def test_a_snapshot_remembers_whose_place_it_is():
    rig = Rig()
    rig.run(PublishMember(9, "n", ["http://b:2"], 99))
    replace(rig, 9, 10)
    rows = captured(rig.machine)
    again = rig.reload(rows)
    assert again.machine.roster.successors == {10: 9}
    assert again.machine.roster.log_ids == {9: 99}, "the one that was removed keeps its log"
    assert captured(again.machine) == rows
