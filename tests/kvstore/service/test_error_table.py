"""Each error of the API, brought about by a real call on whole members, as a client sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kvstore.api.error_map import HTTP_STATUS
from kvstore.errors import ErrorKind
from tests.kvstore.service.desk import Desk, JsonObject, Seen, b64
from tests.kvstore.service.error_table import ROWS, TABLE
from tests.support.cluster import Cluster
from tests.support.scenario import run_scenario

A = b64(b"a")
ABSENT = 12345
PUT: JsonObject = {"requestPut": {"key": A}}
ON_A: JsonObject = {"key": A, "value": A}

Way = list[tuple[str, JsonObject]]
"""Calls one after the other, the last of which is refused."""

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
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_each_error_has_its_code_its_words_and_its_status(row):
    kind = ErrorKind[row.name]
    assert (kind.code, kind.message, HTTP_STATUS[kind.code]) == (row.code, row.message, row.status)


def check(name: str, seen: Seen) -> None:
    """See that an answer is the error of a row, with the keys that all clients read."""
    row = TABLE[name]
    assert seen.status == row.status, seen
    assert seen.body == {"error": row.message, "message": row.message, "code": row.code}


def on_cluster(work: Callable[[Desk], Awaitable[Any]], *, size: int = 1, **settings: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        await work(Desk(cluster, await cluster.wait_leader()))

    run_scenario(scenario, 1, size=size, **settings)


@pytest.mark.parametrize("name", WAYS)
def test_a_call_is_refused(name):
    async def work(desk: Desk) -> None:
        *before, (path, body) = WAYS[name]
        for earlier in before:
            await desk.do(*earlier)
        check(name, await desk.ask(path, body))

    on_cluster(work)


def test_a_full_store_takes_nothing_more():
    """NO_SPACE."""

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


def test_who_wants_a_leader_hears_at_once_that_there_is_none():
    """NO_LEADER."""

    async def work(desk: Desk) -> None:
        await cut_off(desk)
        check("NO_LEADER", await desk.ask("/kv/range", {"key": A}, has_leader=True))

    on_cluster(work, size=3)


def test_a_read_without_a_leader_times_out():
    """TIMEOUT."""

    async def work(desk: Desk) -> None:
        await cut_off(desk)
        before = desk.cluster.loop.now
        check("TIMEOUT", await desk.ask("/kv/range", {"key": A}))
        assert 6.5 < desk.cluster.loop.now - before < 8.0

    on_cluster(work, size=3)


def test_a_write_without_a_leader_runs_out_of_time():
    """DEADLINE_EXCEEDED."""

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


def test_a_member_that_stops_says_so_to_those_who_wait():
    """STOPPED."""

    async def work(desk: Desk) -> None:
        await cut_off(desk)
        waiting = desk.begin("/kv/range", {"key": A})
        await desk.host.stop()
        check("STOPPED", await waiting)

    on_cluster(work, size=3)


def test_more_writes_than_may_wait_are_refused():
    """TOO_MANY_REQUESTS."""

    async def work(desk: Desk) -> None:
        asked = [desk.begin("/kv/put", ON_A) for _ in range(3)]
        seen = [await answered for answered in asked]
        assert [one.ok for one in seen] == [True, True, False]
        check("TOO_MANY_REQUESTS", seen[-1])

    on_cluster(work, max_inflight_proposals=2)
