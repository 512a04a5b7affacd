"""A watch on any member shows every event once, in order, whoever leads meanwhile."""

import asyncio
from typing import Any

import pytest

from kvstore.types import WatchCreateRequest
from tests.support.cluster import Cluster
from tests.support.scenario import run_scenario, scenario
from tests.support.watching import Watching


def watch(**options: Any) -> WatchCreateRequest:
    return WatchCreateRequest(b"w", b"x", **options)


@pytest.mark.parametrize("end", ["crash", "pause", "isolate"])
def test_a_watch_from_an_old_revision_survives_a_change_of_leader(end: str) -> None:
    async def work(cluster: Cluster) -> None:
        leader = await cluster.wait_leader()
        for number in range(300):
            await leader.put(b"w/%d" % (number % 11), b"%d" % number)
        watching = {host: Watching(host, watch(start_revision=2)) for host in cluster.hosts}
        if end == "crash":
            del watching[leader]
            leader.crash()
        elif end == "pause":
            leader.pause(5.0)
        else:
            cluster.wire.isolate(leader.member_id)
        successor = await cluster.wait_leader(other_than=leader)
        for number in range(50):
            await successor.put(b"w/%d" % (number % 11), b"%d" % number)
        cluster.wire.heal()
        last = 301 + 50
        await cluster.wait(lambda: all(one.revisions[-1:] == [last] for one in watching.values()))
        for one in watching.values():
            one.check(2, last)
        if not leader.up:
            await leader.start()

    run_scenario(work, 1)


@scenario(1)
async def test_a_watch_from_a_revision_to_come_begins_there(cluster: Cluster) -> None:
    follower = (await cluster.followers())[0]
    watching = Watching(follower, watch(start_revision=5))
    for number in range(8):
        await follower.put(b"w/%d" % number, b"")
    await cluster.wait(lambda: len(watching.events) == 5)
    watching.check(5, 9)


@scenario(1)
async def test_responses_carry_the_answering_members_header(cluster: Cluster) -> None:
    follower = (await cluster.followers())[0]
    watching = Watching(follower, watch())
    await follower.put(b"w", b"")
    await cluster.wait(lambda: watching.events)
    created, event = watching.responses
    assert created.created
    for response in (created, event):
        assert response.header is not None
        assert response.header.cluster_id == follower.node.cluster_id
        assert response.header.member_id == follower.member_id
        assert response.header.raft_term == follower.node.driver.raft.term
    assert event.header is not None
    assert event.header.revision == 2


@scenario(1, watch_progress_notify_interval_ms=1000)
async def test_an_idle_watcher_that_asked_for_it_hears_the_revision(cluster: Cluster) -> None:
    host = cluster[0]
    watching = Watching(host, watch(progress_notify=True))
    await host.put(b"other", b"")
    await asyncio.sleep(2.5)
    notices = [one for one in watching.responses if not one.created and not one.events]
    assert notices
    assert notices[-1].header is not None
    assert notices[-1].header.revision == 2
    before = len(watching.responses)
    watching.ask_progress()
    await cluster.wait(lambda: len(watching.responses) > before)
    assert watching.responses[before].watch_id == -1
