"""Members that differ find out, and the right ones go on."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.errors import DivergedError, ErrorKind, StateError
from kvstore.server.corruption import MARK_EVERY, MARKS_MAX, Marks, Verdict, judge
from kvstore.types import AlarmMember, AlarmType, PutRequest
from tests.support.cluster import Cluster
from tests.support.host import Host
from tests.support.scenario import scenario
from tests.support.writer import check_kept, writers

CHECKED = {"corrupt_check_time_ms": 1000}


def test_notes_are_bounded_and_the_newest_stay():
    marks = Marks()
    for number in range(MARKS_MAX + 10):
        marks.note(number * MARK_EVERY, number)
    assert len(marks.notes) == MARKS_MAX
    assert min(marks.notes) == 10 * MARK_EVERY
    marks.clear()
    assert not marks.notes


def test_members_are_compared_at_the_newest_index_that_they_share():
    notes = {1: {64: 5, 128: 6, 192: 7}, 2: {64: 5, 128: 6}, 3: {128: 6, 192: 7}}
    assert judge(notes, 3) == Verdict(128, 6)


def test_a_member_that_lags_far_behind_does_not_keep_others_from_being_compared():
    notes = {1: {640: 5}, 2: {640: 6}, 3: {64: 1}}
    assert judge(notes, 3) == Verdict(640, None)


def test_whoever_differs_from_a_majority_of_all_members_is_named():
    assert judge({1: {64: 5}, 2: {64: 6}, 3: {64: 5}}, 3) == Verdict(64, 5, (2,))
    five = {1: {64: 9}, 2: {64: 5}, 3: {64: 5}, 4: {64: 8}, 5: {64: 5}}
    assert judge(five, 5) == Verdict(64, 5, (1, 4))


def test_without_a_majority_of_all_members_nobody_is_named():
    assert judge({1: {64: 5}, 2: {64: 6}}, 2).undecided
    assert judge({1: {64: 5}, 2: {64: 6}}, 3).undecided
    assert judge({1: {64: 5}, 2: {64: 6}, 3: {64: 7}}, 3).undecided
    assert judge({1: {64: 5}, 2: {64: 5}, 3: {64: 6}}, 5).undecided


def test_one_members_notes_are_no_comparison():
    assert judge({1: {64: 5}}, 3) == Verdict(0, None)
    assert judge({1: {64: 5}, 2: {128: 6}}, 3) == Verdict(0, None)
    assert not judge({}, 3).undecided


@given(st.sets(st.integers(1, 9)), st.integers(1, 9), st.integers(0, 20))
def test_members_that_agree_are_never_found_to_differ(
    answering: set[int], members: int, lag: int
) -> None:
    notes = {
        member: {index: index * 31 for index in range(max(0, member * lag - 8), member * lag + 2)}
        for member in answering
    }
    verdict = judge(notes, members)
    assert not verdict.undecided
    assert verdict.differing == ()


async def write(cluster: Cluster, count: int) -> None:
    """So many entries, or as many as there can be: till writes are refused or the leader stops."""
    leader = await cluster.wait_leader()
    for number in range(count):
        put = PutRequest(b"w%03d" % (number % 50), b"%d" % number)
        answered = leader.begin("put", put)
        await asyncio.wait({answered, leader.node.failed}, return_when=asyncio.FIRST_COMPLETED)
        if leader.node.failed.done():
            # The process is to end: it answers nobody any more.
            answered.cancel()
            return
        error = answered.exception()
        assert error in (None, ErrorKind.CORRUPT.error())


def plant(host: Host) -> None:
    """Let a member apply what nobody else does."""
    host.machine._put(PutRequest(b"planted", b"%d" % host.number))


@scenario(1, 2, **CHECKED)
async def test_members_that_agree_go_on_agreeing(cluster: Cluster) -> None:
    async with writers(cluster, 2) as crew:
        await asyncio.sleep(5.0)
        (await cluster.followers())[0].crash()
        await asyncio.sleep(2.0)
        for host in cluster.hosts:
            if not host.up:
                await host.start()
        await asyncio.sleep(5.0)
    await check_kept(cluster, crew)
    leader = await cluster.wait_leader()
    assert leader.node.upkeep.corruption.compared_total >= 1
    for host in cluster.hosts:
        assert host.node.upkeep.corruption.differences_total == 0
        assert host.machine.alarms == ()


@scenario(1, 2, **CHECKED)
async def test_a_follower_that_differs_stops_itself_and_the_others_go_on(
    cluster: Cluster,
) -> None:
    leader = await cluster.wait_leader()
    wrong, right = await cluster.followers()
    wrong.failure_expected = True
    plant(wrong)
    await write(cluster, 2 * MARK_EVERY)
    await cluster.wait(wrong.node.failed.done, seconds_max=10.0)
    error = wrong.node.failed.result()
    assert isinstance(error, StateError)
    assert "differs from that of a majority" in str(error)
    assert "Replace it" in str(error)
    wrong.crash()
    for _ in range(2):
        # Nor does it serve what is wrong in a life to come.
        with pytest.raises(DivergedError, match=r"differs from that of a majority.*Replace it"):
            await wrong.start()
    await leader.put(b"k", b"v")
    assert await right.get(b"k") == b"v"
    assert leader.machine.alarms == ()
    assert not leader.node.failed.done()


@scenario(1, 2, **CHECKED)
async def test_a_leader_that_differs_stops_itself_and_another_leads(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    leader.failure_expected = True
    plant(leader)
    await write(cluster, 2 * MARK_EVERY)
    await cluster.wait(leader.node.failed.done, seconds_max=10.0)
    assert isinstance(leader.node.failed.result(), StateError)
    leader.crash()
    new = await cluster.wait_leader(other_than=leader)
    await new.put(b"k", b"v")
    assert new.machine.alarms == ()


@scenario(1, **CHECKED)
async def test_without_a_majority_the_alarm_stops_writes_everywhere(cluster: Cluster) -> None:
    for host in cluster.hosts:
        plant(host)
    await write(cluster, 2 * MARK_EVERY)
    alarm = AlarmMember(0, AlarmType.CORRUPT)
    await cluster.wait(lambda: all(host.machine.alarms == (alarm,) for host in cluster.hosts))
    for host in cluster.hosts:
        assert not host.node.failed.done()
        reasons: list[dict[str, str]] = []
        host.run(host.service.checks, ("data_corruption",), reasons.append)
        assert reasons == [{"data_corruption": "alarm activated: CORRUPT"}]
        assert (await host.range(b"w000")).kvs, "reads go on"
    await asyncio.sleep(3.0)
    raised = [host.node.upkeep.alarms.raised_total for host in cluster.hosts]
    assert sum(raised) == 1


@scenario(1, corrupt_check_time_ms=0)
async def test_the_check_can_be_switched_off(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    plant((await cluster.followers())[0])
    await write(cluster, 2 * MARK_EVERY)
    await asyncio.sleep(30.0)
    assert leader.node.upkeep.corruption.checks_total == 0
    assert not any(host.node.failed.done() for host in cluster.hosts)


@scenario(1, **CHECKED)
async def test_a_judgement_of_a_state_that_was_replaced_meanwhile_is_void(
    cluster: Cluster,
) -> None:
    follower = (await cluster.followers())[0]
    await write(cluster, 2 * MARK_EVERY)
    await cluster.wait(lambda: MARK_EVERY in follower.node.applier.marks.notes)
    follower.node.applier.replace(follower.machine)
    follower.node.upkeep.corruption._judge_self(MARK_EVERY, 12345)
    assert not follower.node.failed.done()
