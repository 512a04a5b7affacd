"""Every limit that clients of etcd know, at its edge: the last that is taken, the first that is
not.

The front door's own limits (bodies, connections, silence) are held to in ``tests/e2e``, where there
are connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kvstore.api.limits import ApiLimits
from kvstore.config import QUOTA_DEFAULT_BYTES, ServerConfig
from kvstore.errors import ConfigError
from kvstore.types import WatchCreateRequest
from tests.kvstore.service.desk import Desk, JsonObject, Seen, b64
from tests.support.cluster import Cluster
from tests.support.scenario import run_scenario
from tests.support.watching import Watching

KIB = 1024
VALUE_BYTES_MAX = 1_572_838
"""Under a key of three bytes; with the envelope of a request that makes 1.5 MiB."""


def on_cluster(work: Callable[[Desk], Awaitable[Any]], *, size: int = 1, **settings: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        await work(Desk(cluster, await cluster.wait_leader()))

    run_scenario(scenario, 1, size=size, **settings)


def put(key: bytes, value: bytes = b"") -> JsonObject:
    return {"key": b64(key), "value": b64(value)}


def refused(seen: Seen, words: str) -> bool:
    return not seen.ok and seen.body["message"] == f"etcdserver: {words}"


# --- Requests -------------------------------------------------------------------------------------


def test_a_put_has_a_megabyte_and_a_half():
    async def work(desk: Desk) -> None:
        assert (await desk.ask("/kv/put", put(b"key", bytes(VALUE_BYTES_MAX)))).ok
        seen = await desk.ask("/kv/put", put(b"key", bytes(VALUE_BYTES_MAX + 1)))
        assert refused(seen, "request is too large")
        assert seen.status == 400

    on_cluster(work, wal_segment_bytes=4 * KIB * KIB)


def test_what_etcd_would_not_even_receive_is_refused_in_its_words():
    """The message is 9 bytes longer than the value: tags, lengths and the key."""
    most = 2 * KIB * KIB

    async def work(desk: Desk) -> None:
        seen = await desk.ask("/kv/put", put(b"key", bytes(most - 9)))
        assert refused(seen, "request is too large")
        seen = await desk.ask("/kv/put", put(b"key", bytes(most - 8)))
        assert seen.status == 429
        assert seen.body["code"] == 8
        words = f"grpc: received message larger than max ({most + 1} vs. {most})"
        assert seen.body["message"] == words

    on_cluster(work)


def test_the_limit_of_a_request_is_a_setting_and_holds_for_deletes_and_transactions_too():
    async def work(desk: Desk) -> None:
        for path, of_size in (
            ("/kv/put", lambda size: put(b"k", bytes(size))),
            ("/kv/deleterange", lambda size: {"key": b64(b"k" * size)}),
            ("/kv/txn", lambda size: {"success": [{"requestPut": put(b"k", bytes(size))}]}),
        ):
            sizes = range(KIB - 60, KIB + 2)
            taken = [(await desk.ask(path, of_size(size))).ok for size in sizes]
            # Once too large, always too large; and the limit is within these.
            assert taken[0]
            assert not taken[-1]
            assert taken == sorted(taken, reverse=True)

    on_cluster(work, max_request_bytes=KIB)


def test_a_body_may_be_longer_than_a_write_by_half_a_megabyte():
    limits = ApiLimits()
    assert limits.raw_body_bytes_max == 1536 * KIB + 512 * KIB
    # In base64, and with room for the names of the fields.
    assert limits.json_body_bytes_max > limits.raw_body_bytes_max * 4 // 3


@pytest.mark.parametrize("part", ["compare", "success", "failure"])
def test_a_transaction_has_128_operations_in_each_of_its_lists(part):
    item = {"compare": {"key": b64(b"k")}}.get(part, {"requestRange": {"key": b64(b"k")}})

    async def work(desk: Desk) -> None:
        assert (await desk.ask("/kv/txn", {part: [item] * 128})).ok
        seen = await desk.ask("/kv/txn", {part: [item] * 129})
        assert refused(seen, "too many operations in txn request")

    on_cluster(work)


def test_a_nested_transaction_has_what_the_one_around_it_left():
    reading = {"requestRange": {"key": b64(b"k")}}

    def nested(outer: int, inner: int) -> JsonObject:
        return {
            "success": [reading] * (outer - 1) + [{"requestTxn": {"success": [reading] * inner}}]
        }

    async def work(desk: Desk) -> None:
        for outer, inner in ((1, 127), (100, 28), (128, 0)):
            assert (await desk.ask("/kv/txn", nested(outer, inner))).ok
            seen = await desk.ask("/kv/txn", nested(outer, inner + 1))
            assert refused(seen, "too many operations in txn request"), (outer, inner)

    on_cluster(work)


def test_transactions_nest_64_deep():
    def deep(depth: int) -> JsonObject:
        request: JsonObject = {}
        for _ in range(depth - 1):
            request = {"success": [{"requestTxn": request}]}
        return request

    async def work(desk: Desk) -> None:
        assert (await desk.ask("/kv/txn", deep(64))).ok
        seen = await desk.ask("/kv/txn", deep(65))
        assert refused(seen, "too many operations in txn request")

    on_cluster(work)


def test_so_many_writes_wait_at_a_member_and_no_more():
    assert ServerConfig().max_inflight_proposals == 5000

    async def work(desk: Desk) -> None:
        asked = [desk.begin("/kv/put", put(b"k")) for _ in range(6)]
        seen = [await answered for answered in asked]
        assert [one.ok for one in seen] == [True] * 5 + [False]
        assert refused(seen[-1], "too many requests")

    on_cluster(work, max_inflight_proposals=5)


# --- The store ------------------------------------------------------------------------------------


def test_the_quota_is_2_gib_unless_it_is_said_or_switched_off():
    assert ServerConfig().quota_bytes == QUOTA_DEFAULT_BYTES == 2 << 30
    assert ServerConfig(quota_backend_bytes=5).quota_bytes == 5
    assert ServerConfig(quota_backend_bytes=-1).quota_bytes is None


@pytest.mark.parametrize(("beyond", "fits"), [(1, True), (0, False)])
def test_a_put_costs_its_bytes_and_256_and_fits_below_the_quota(beyond, fits):
    cost = 256 + len(b"key") + 1000

    async def work(desk: Desk) -> None:
        size = desk.host.machine.store.size_bytes
        assert size + cost + beyond == quota
        seen = await desk.ask("/kv/put", put(b"key", bytes(1000)))
        assert seen.ok is fits
        if not fits:
            assert refused(seen, "mvcc: database space exceeded")

    quota = _empty_size() + cost + beyond
    on_cluster(work, quota_backend_bytes=quota)


def _empty_size() -> int:
    found: list[int] = []

    async def work(desk: Desk) -> None:
        found.append(desk.host.machine.store.size_bytes)

    on_cluster(work)
    return found[0]


# --- Leases ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "granted"), [(-5, 2), (0, 2), (1, 2), (2, 2), (3, 3), (9_000_000_000, 9_000_000_000)]
)
def test_a_lease_lasts_two_seconds_at_least(asked, granted):
    async def work(desk: Desk) -> None:
        assert (await desk.do("/lease/grant", {"TTL": asked}))["TTL"] == str(granted)

    on_cluster(work)


def test_the_shortest_lease_outlives_an_election_and_a_half():
    async def work(desk: Desk) -> None:
        assert (await desk.do("/lease/grant", {"TTL": 1}))["TTL"] == "15"

    on_cluster(work, election_timeout_ms=10_000, heartbeat_interval_ms=1000)


def test_a_lease_lasts_9_billion_seconds_at_most():
    async def work(desk: Desk) -> None:
        seen = await desk.ask("/lease/grant", {"TTL": 9_000_000_001})
        assert refused(seen, "too large lease TTL")

    on_cluster(work)


# --- Watches --------------------------------------------------------------------------------------


def test_a_watch_that_catches_up_gets_at_most_1000_revisions_a_response():
    async def work(desk: Desk) -> None:
        for number in range(1500):
            await desk.host.put(b"k", b"%d" % number)
        watching = Watching(desk.host, WatchCreateRequest(b"k", start_revision=2))
        await desk.cluster.wait(lambda: len(watching.events) == 1500)
        sizes = [len({event.kv.mod_revision for event in found.events if event.kv})
                 for found in watching.responses if found.events]  # fmt: skip
        assert max(sizes) <= 1000
        watching.check(2, 1501)

    on_cluster(work, snapshot_count=10_000)


def test_a_response_in_fragments_stays_below_a_request_and_half_a_megabyte():
    limit = 64 * KIB + 512 * KIB

    async def work(desk: Desk) -> None:
        # One revision of some 2 MB, by a transaction of puts that keep the values there are.
        for number in range(40):
            await desk.do("/kv/put", put(b"k%d" % number, bytes(50 * KIB)))
        renewed = {"success": [{"requestPut": {"key": b64(b"k%d" % number), "ignore_value": True}}
                               for number in range(40)]}  # fmt: skip
        cut = Watching(desk.host, WatchCreateRequest(b"k", b"l", fragment=True))
        whole = Watching(desk.host, WatchCreateRequest(b"k", b"l"))
        await desk.do("/kv/txn", renewed)
        await desk.cluster.wait(lambda: len(cut.events) == len(whole.events) == 40)
        assert len([found for found in whole.responses if found.events]) == 1
        pieces = [found for found in cut.responses if found.events]
        assert [found.fragment for found in pieces] == [True] * (len(pieces) - 1) + [False]
        sizes = [sum(len(event.kv.value) for event in found.events if event.kv) for found in pieces]
        assert len(sizes) > 1
        assert max(sizes) <= limit

    on_cluster(work, max_request_bytes=64 * KIB, wal_segment_bytes=4 * KIB * KIB)


def test_the_id_that_a_watcher_wishes_for_may_be_any_number_once():
    async def work(desk: Desk) -> None:
        for wanted in (-(2**63), -1, 2**63 - 1):
            responses = Watching(desk.host, WatchCreateRequest(b"k", watch_id=wanted)).responses
            await desk.cluster.wait(responses.copy)
            assert responses[0].watch_id == wanted
            assert responses[0].created

    on_cluster(work)


# --- Users ----------------------------------------------------------------------------------------


def test_a_password_has_72_bytes():
    async def work(desk: Desk) -> None:
        await desk.do("/auth/user/add", {"name": "ann", "password": "ä" * 36})
        seen = await desk.ask("/auth/user/add", {"name": "bob", "password": "ä" * 36 + "p"})
        assert seen.body["message"] == "bcrypt: password length exceeds 72 bytes"

    on_cluster(work)


def test_a_token_lasts_so_long_from_its_last_use():
    async def work(desk: Desk) -> None:
        await desk.switch_auth_on()
        for _ in range(2):
            await asyncio.sleep(99.0)
            await desk.do("/kv/range", {"key": b64(b"k")})
        await asyncio.sleep(101.0)
        seen = await desk.ask("/kv/range", {"key": b64(b"k")})
        assert refused(seen, "invalid auth token")

    on_cluster(work, auth_token_ttl_seconds=100)


# --- Members --------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 2])
def test_there_are_so_many_learners_and_no_more(most):
    async def work(desk: Desk) -> None:
        for number in range(most):
            await desk.do("/cluster/member/add", learner(number))
        seen = await desk.ask("/cluster/member/add", learner(most))
        assert refused(seen, "too many learner members in cluster")

    on_cluster(work, max_learners=most)


def learner(number: int) -> JsonObject:
    return {"peerURLs": [f"http://learner{number}:2380"], "isLearner": True}


# --- Settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "first"),
    [
        ({"election_timeout_ms": 50_000}, {"election_timeout_ms": 50_001}),
        (
            {"heartbeat_interval_ms": 200, "election_timeout_ms": 1000},
            {"heartbeat_interval_ms": 201, "election_timeout_ms": 1000},
        ),
        (
            {"watch_progress_notify_interval_ms": 100},
            {"watch_progress_notify_interval_ms": 99},
        ),
        ({"max_learners": 1}, {"max_learners": 0}),
        ({"bcrypt_cost": 4}, {"bcrypt_cost": 3}),
        ({"bcrypt_cost": 31}, {"bcrypt_cost": 32}),
        ({"auth_token_ttl_seconds": 1}, {"auth_token_ttl_seconds": 0}),
        ({"max_txn_ops": 1}, {"max_txn_ops": 0}),
        ({"snapshot_catchup_entries": 1}, {"snapshot_catchup_entries": 0}),
    ],
    ids=lambda settings: " ".join(f"{name}={value}" for name, value in settings.items()),
)
def test_a_setting_has_its_range(last, first):
    assert isinstance(ServerConfig(**last), ServerConfig)
    with pytest.raises(ConfigError):
        ServerConfig(**first)


def test_the_defaults_are_etcds():
    config = ServerConfig()
    assert config.max_request_bytes == 1_572_864
    assert config.max_txn_ops == 128
    assert (config.heartbeat_interval_ms, config.election_timeout_ms) == (100, 1000)
    assert config.snapshot_catchup_entries == 5000
    assert config.watch_progress_notify_interval_ms == 600_000
    assert config.strict_reconfig_check
    assert config.max_learners == 1
    assert (config.auto_compaction_mode, config.auto_compaction_retention) == ("periodic", "0")
    assert (config.auth_token, config.auth_token_ttl_seconds) == ("simple", 300)
    assert config.bcrypt_cost == 10
