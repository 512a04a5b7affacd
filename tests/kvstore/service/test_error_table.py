"""Each error of the API, brought about by a real call on whole members, as a client sees it."""

from __future__ import annotations

import json

import pytest
from multidict import CIMultiDict

from kvstore.api.answer import error_answer
from kvstore.api.caller_headers import caller_of
from kvstore.api.error_map import HTTP_STATUS
from kvstore.errors import ErrorKind, KvError
from tests.kvstore.service.desk import Desk, JsonObject, Seen, b64
from tests.kvstore.service.error_table import ROWS, Way, brings, check, on_cluster, take
from tests.support.cluster import Cluster
from tests.support.scenario import run_scenario

A = b64(b"a")
ABSENT = 12345
PUT: JsonObject = {"requestPut": {"key": A}}
ON_A: JsonObject = {"key": A, "value": A}

ADD = "/cluster/member/add"
LEARNER: JsonObject = {"peerURLs": ["http://m9:2380"], "isLearner": True}
MOVE = "/maintenance/transfer-leadership"
DOWNGRADE = "/maintenance/downgrade"

WAYS: dict[str, Way] = {
    "EMPTY_KEY": [("/kv/put", {})],
    "KEY_NOT_FOUND": [("/kv/put", {"key": A, "ignore_value": True})],
    "VALUE_PROVIDED": [("/kv/put", {**ON_A, "ignore_value": True})],
    "LEASE_PROVIDED": [("/kv/put", {"key": A, "lease": 1, "ignore_lease": True})],
    "TOO_MANY_OPS": [("/kv/txn", {"success": [{"requestRange": {"key": A}}] * 129})],
    "DUPLICATE_KEY": [("/kv/txn", {"success": [PUT, PUT]})],
    "INVALID_SORT_OPTION": [("/kv/range", {"key": A, "sort_target": 9, "sort_order": 1})],
    "REQUEST_TOO_LARGE": [("/kv/put", {"key": A, "value": b64(bytes(1_572_864))})],
    "LEASE_NOT_FOUND": [("/lease/revoke", {"ID": ABSENT})],
    "LEASE_EXIST": [("/lease/grant", {"TTL": 60, "ID": 7})] * 2,
    "LEASE_TTL_TOO_LARGE": [("/lease/grant", {"TTL": 9_000_000_001})],
    "COMPACTED": [
        ("/kv/put", ON_A),
        ("/kv/put", ON_A),
        ("/kv/compaction", {"revision": 3}),
        ("/kv/range", {"key": A, "revision": 2}),
    ],
    "FUTURE_REVISION": [("/kv/range", {"key": A, "revision": 2})],
    "CORRUPT": [
        ("/maintenance/alarm", {"action": "ACTIVATE", "memberID": 1, "alarm": "CORRUPT"}),
        ("/kv/put", ON_A),
    ],
    "MEMBER_BAD_URLS": [("/cluster/member/add", {"peerURLs": ["bad"]})],
    "MEMBER_NOT_FOUND": [("/cluster/member/remove", {"ID": ABSENT})],
    "PEER_URL_EXIST": [("/cluster/member/add", {"peerURLs": ["http://m0:2380"]})],
    "TOO_MANY_LEARNERS": [(ADD, LEARNER), (ADD, {**LEARNER, "peerURLs": ["http://m8:2380"]})],
    "BAD_LEADER_TRANSFEREE": [(MOVE, {"targetID": ABSENT})],
    "WRONG_DOWNGRADE_VERSION_FORMAT": [(DOWNGRADE, {"version": "three"})],
    "INVALID_DOWNGRADE_TARGET_VERSION": [(DOWNGRADE, {"version": "3.5.0"})],
    "DOWNGRADE_IN_PROCESS": [(DOWNGRADE, {"action": "ENABLE", "version": "3.6.0"})] * 2,
    "UNKNOWN_METHOD": [(DOWNGRADE, {"action": 9, "version": "3.6.0"})],
    "ELECTION_NO_LEADER": [("/election/leader", {"name": A})],
    "ELECTION_NOT_LEADER": [
        ("/election/proclaim", {"leader": {"name": A, "key": A, "rev": 7, "lease": 7}})
    ],
    "ELECTION_LEADER_MISSING": [("/election/proclaim", {})],
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_each_error_has_its_code_its_words_and_its_status(row):
    kind = ErrorKind[row.name]
    assert (kind.code, kind.message, HTTP_STATUS[kind.code]) == (row.code, row.message, row.status)


@brings(*WAYS)
@pytest.mark.parametrize("name", WAYS)
def test_a_call_is_refused(name):
    on_cluster(lambda desk: take(WAYS[name], name, desk))


# --- Space, leaders, time -------------------------------------------------------------------------


@brings("NO_SPACE")
def test_a_full_store_takes_nothing_more():
    async def work(desk: Desk) -> None:
        for number in range(20):
            seen = await desk.ask(
                "/kv/put", {"key": b64(b"%d" % number), "value": b64(bytes(1000))}
            )
            if not seen.ok:
                check("NO_SPACE", seen)
                break
        else:
            pytest.fail("20 kB fit into 10 kB")

    on_cluster(work, quota_backend_bytes=10_000)


@brings("NO_LEADER")
def test_who_wants_a_leader_hears_at_once_that_there_is_none():
    async def work(desk: Desk) -> None:
        await cut_off(desk)
        check("NO_LEADER", await desk.ask("/kv/range", {"key": A}, has_leader=True))

    on_cluster(work, size=3)


@brings("TIMEOUT")
def test_a_read_without_a_leader_times_out():
    async def work(desk: Desk) -> None:
        await cut_off(desk)
        before = desk.cluster.loop.now
        check("TIMEOUT", await desk.ask("/kv/range", {"key": A}))
        assert 6.5 < desk.cluster.loop.now - before < 8.0

    on_cluster(work, size=3)


@brings("DEADLINE_EXCEEDED")
def test_a_write_without_a_leader_runs_out_of_time():
    async def work(desk: Desk) -> None:
        await cut_off(desk)
        before = desk.cluster.loop.now
        check("DEADLINE_EXCEEDED", await desk.ask("/kv/put", ON_A))
        assert 6.5 < desk.cluster.loop.now - before < 8.0
        check("DEADLINE_EXCEEDED", await desk.ask("/kv/range", {"key": A}, seconds=0.5))

    on_cluster(work, size=3)


async def cut_off(desk: Desk) -> None:
    """Let the member lose its peers, and then its leader."""
    desk.cluster.wire.isolate(desk.host.member_id)
    await desk.cluster.wait(lambda: not desk.host.node.driver.leader)


@brings("STOPPED")
def test_a_member_that_stops_says_so_to_those_who_wait():
    async def work(desk: Desk) -> None:
        await cut_off(desk)
        waiting = desk.begin("/kv/range", {"key": A})
        await desk.host.stop()
        check("STOPPED", await waiting)

    on_cluster(work, size=3)


@brings("TOO_MANY_REQUESTS")
def test_more_writes_than_may_wait_are_refused():
    async def work(desk: Desk) -> None:
        asked = [desk.begin("/kv/put", ON_A) for _ in range(3)]
        seen = [await answered for answered in asked]
        assert [one.ok for one in seen] == [True, True, False]
        check("TOO_MANY_REQUESTS", seen[-1])

    on_cluster(work, max_inflight_proposals=2)


# --- Members and leadership -----------------------------------------------------------------------


@brings("MEMBER_NOT_LEARNER", "MEMBER_NOT_ENOUGH_STARTED")
def test_a_single_member_is_no_learner_and_cannot_leave():
    async def work(desk: Desk) -> None:
        mine = {"ID": desk.host.member_id}
        check("MEMBER_NOT_LEARNER", await desk.ask("/cluster/member/promote", mine))
        check("MEMBER_NOT_ENOUGH_STARTED", await desk.ask("/cluster/member/remove", mine))

    on_cluster(work)


@brings("LEARNER_NOT_READY")
def test_a_learner_that_has_never_been_seen_gets_no_vote():
    async def work(desk: Desk) -> None:
        added = (await desk.do(ADD, LEARNER))["member"]
        check("LEARNER_NOT_READY", await desk.ask("/cluster/member/promote", {"ID": added["ID"]}))

    on_cluster(work)


@brings("UNHEALTHY")
def test_no_voter_comes_while_another_is_out_of_reach():
    async def work(desk: Desk) -> None:
        other = next(host for host in desk.cluster.hosts if host is not desk.host)
        desk.cluster.wire.isolate(other.member_id)
        await desk.cluster.wait(lambda: not desk.host.node.network.is_up(other.member_id))
        check("UNHEALTHY", await desk.ask(ADD, {"peerURLs": ["http://m9:2380"]}))

    on_cluster(work, size=3)


@brings("NOT_LEADER")
def test_only_the_leader_hands_leadership_over():
    async def work(desk: Desk) -> None:
        other = next(host for host in desk.cluster.hosts if host is not desk.host)
        check("NOT_LEADER", await desk.at(other).ask(MOVE, {"targetID": other.member_id}))

    on_cluster(work, size=3)


@brings("TIMEOUT_LEADER_TRANSFER")
def test_leadership_does_not_move_to_who_cannot_be_reached():
    async def work(desk: Desk) -> None:
        other = next(host for host in desk.cluster.hosts if host is not desk.host)
        desk.cluster.wire.isolate(other.member_id)
        check("TIMEOUT_LEADER_TRANSFER", await desk.ask(MOVE, {"targetID": other.member_id}))

    on_cluster(work, size=3)


@brings("CLUSTER_VERSION_UNAVAILABLE")
def test_no_downgrade_before_the_cluster_knows_its_version():
    async def scenario(cluster: Cluster) -> None:
        assert not cluster[0].machine.cluster_version
        seen = await Desk(cluster).ask(DOWNGRADE, {"version": "3.6.0"})
        check("CLUSTER_VERSION_UNAVAILABLE", seen)

    run_scenario(scenario, 1, size=1)


@brings("INVALID_CLIENT_API_VERSION")
def test_the_version_that_a_client_names_is_text():
    headers = CIMultiDict({"Grpc-Metadata-Client-Api-Version": "\udcff"})
    with pytest.raises(KvError) as refusal:
        caller_of(headers)
    answer = error_answer(refusal.value)
    check("INVALID_CLIENT_API_VERSION", Seen(answer.status, json.loads(answer.body)))
