"""A client written for etcd, as it comes from the package index, against each node."""

from __future__ import annotations

import base64
import threading

import etcd3gw
import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.processes import Member, wait_for

LEASE_SECONDS = 30
SHORT_LEASE_SECONDS = 2
EXPIRY_SECONDS = 8.0
SECONDS = 10.0


@pytest.fixture(params=[0, 1, 2], ids=["node1", "node2", "node3"])
def member(request: pytest.FixtureRequest, calm_cluster: Cluster) -> Member:
    return calm_cluster.members[request.param]


@pytest.fixture
def client(member: Member):
    # Without a path it asks /version which API the server has.
    client = etcd3gw.client(host="127.0.0.1", port=member.node.client_port, timeout=SECONDS)
    yield client
    client.session.close()


@pytest.fixture
def prefix(member: Member) -> str:
    return f"gw/{member.name}/"


def test_put_get_delete(client, prefix: str) -> None:
    key = prefix + "key"
    assert client.get(key) == []
    assert client.create(key, "first")
    assert not client.create(key, "again")
    assert client.put(key, b"\x00\xffbytes")
    ((value, meta),) = client.get(key, metadata=True)
    assert (value, meta["key"], meta["version"]) == (b"\x00\xffbytes", key.encode(), "2")
    assert client.replace(key, b"\x00\xffbytes", "new")
    assert not client.replace(key, "old", "newer")
    assert client.get(key) == [b"new"]
    assert client.delete(key)
    assert not client.delete(key)
    assert client.get(key) == []


def test_prefix(client, prefix: str) -> None:
    for number in range(5):
        client.put(f"{prefix}p/{number}", f"v{number}")
    client.put(prefix + "q", "other")
    found = client.get_prefix(prefix + "p/", sort_order="descend", sort_target="key")
    assert [(value, meta["key"]) for value, meta in found] == [
        (b"v%d" % number, f"{prefix}p/{number}".encode()) for number in (4, 3, 2, 1, 0)
    ]
    assert (prefix + "q").encode() in {meta["key"] for _, meta in client.get_all()}
    assert client.delete_prefix(prefix + "p/")
    assert client.get_prefix(prefix + "p/") == []


def test_transaction(client, prefix: str) -> None:
    def coded(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    one, two = coded(prefix + "one"), coded(prefix + "two")
    client.put(prefix + "one", "1")
    both = [
        {"request_put": {"key": one, "value": coded("2")}},
        {"request_put": {"key": two, "value": coded("2")}},
    ]
    txn = {
        "compare": [{"key": one, "result": "EQUAL", "target": "VALUE", "value": coded("1")}],
        "success": both,
        "failure": [{"request_range": {"key": one}}],
    }
    assert client.transaction(txn)["succeeded"] is True
    assert client.get(prefix + "one") == client.get(prefix + "two") == [b"2"]
    refused = client.transaction(txn)
    assert "succeeded" not in refused
    assert refused["responses"][0]["response_range"]["kvs"][0]["value"] == coded("2")


def test_lease(client, prefix: str) -> None:
    lease = client.lease(LEASE_SECONDS)
    assert client.put(prefix + "leased", "x", lease=lease)
    assert lease.keys() == [(prefix + "leased").encode()]
    assert 0 < lease.ttl() <= LEASE_SECONDS
    assert lease.refresh() == LEASE_SECONDS
    assert lease.revoke()
    assert client.get(prefix + "leased") == []
    assert lease.ttl() == -1
    assert lease.refresh() == -1

    short = client.lease(SHORT_LEASE_SECONDS)
    client.put(prefix + "short", "x", lease=short)
    assert client.get(prefix + "short") == [b"x"]
    wait_for("the lease to run out", lambda: not client.get(prefix + "short"), EXPIRY_SECONDS)
    assert short.ttl() == -1


def test_watch(client, prefix: str) -> None:
    events, cancel = client.watch_prefix(prefix + "w/")
    try:
        client.put(prefix + "w/1", "one")
        client.put(prefix + "w/2", "two")
        client.delete(prefix + "w/1")
        seen = [next(events) for _ in range(3)]
    finally:
        cancel()
    assert [
        (event.get("type", "PUT"), event["kv"]["key"], event["kv"].get("value")) for event in seen
    ] == [
        ("PUT", f"{prefix}w/1".encode(), b"one"),
        ("PUT", f"{prefix}w/2".encode(), b"two"),
        ("DELETE", f"{prefix}w/1".encode(), None),
    ]

    timer = threading.Timer(0.2, client.put, (prefix + "w/3", "three"))
    timer.start()
    event = client.watch_once(prefix + "w/3", timeout=SECONDS)
    timer.join()
    assert event["kv"]["value"] == b"three"


def test_lock(client, member: Member) -> None:
    # A lock is a key outside the prefix; each node's has a name of its own.
    first = client.lock(member.name, ttl=LEASE_SECONDS)
    second = client.lock(member.name, ttl=LEASE_SECONDS)
    assert first.acquire()
    assert first.is_acquired()
    assert not second.acquire()
    assert not second.is_acquired()
    assert first.refresh() == LEASE_SECONDS
    assert first.release()
    assert second.acquire()
    assert not first.release()
    assert second.release()


def test_status_and_members(client, member: Member, calm_cluster: Cluster) -> None:
    status = client.status()
    ids = {int(row["ID"]): row["name"] for row in client.members()}
    assert sorted(ids.values()) == [one.name for one in calm_cluster.members]
    assert ids[int(status["header"]["member_id"])] == member.name
    assert int(status["leader"]) in ids
