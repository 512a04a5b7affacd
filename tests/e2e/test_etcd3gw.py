"""A client written for etcd, as it comes from the package index, against each node."""

from __future__ import annotations

import base64
import threading

import etcd3gw
import pytest
import requests
from etcd3gw.exceptions import Etcd3Exception, WatchTimedOut

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


def coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_transaction(client, prefix: str) -> None:
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


def test_watch_with_a_timeout(client, prefix: str) -> None:
    with pytest.raises(WatchTimedOut):
        client.watch_once(prefix + "silent", timeout=0.3)
    with pytest.raises(WatchTimedOut):
        client.watch_prefix_once(prefix + "silent/", timeout=0.3)
    client.put(prefix + "old", "1")
    revision = int(client.get(prefix + "old", metadata=True)[0][1]["mod_revision"])
    event = client.watch_once(prefix + "old", timeout=SECONDS, start_revision=revision)
    assert event["kv"]["value"] == b"1"
    client.put(prefix + "old", "2")
    client.delete(prefix + "old")
    options = {"start_revision": revision, "filters": ["NOPUT"], "prev_kv": True}
    event = client.watch_once(prefix + "old", timeout=SECONDS, **options)
    assert (event["type"], event["prev_kv"]["value"]) == ("DELETE", coded("2"))


def test_a_lock_ends_with_its_lease(client, member: Member) -> None:
    name = member.name + "-short"
    first = client.lock(name, ttl=SHORT_LEASE_SECONDS)
    second = client.lock(name, ttl=LEASE_SECONDS)
    assert first.acquire()
    assert not second.acquire()
    wait_for("the lock to be free", lambda: second.acquire(), EXPIRY_SECONDS)
    assert not first.is_acquired()
    assert first.refresh() == -1
    assert second.release()


def test_the_lock_service_by_its_connection(client, prefix: str) -> None:
    """The client has no call for it; its connection and its errors serve as well."""

    def take(**arguments: object) -> dict:
        return client.post(client.get_url("/lock/lock"), json={"name": name, **arguments})

    name = coded(prefix + "lock")
    held = take()
    lease = client.lease(LEASE_SECONDS)
    waiting: list[dict] = []
    other = etcd3gw.client(host="127.0.0.1", port=client.port, timeout=SECONDS)
    waiter = threading.Thread(
        target=lambda: waiting.append(
            other.post(other.get_url("/lock/lock"), json={"name": name, "lease": lease.id})
        )
    )
    waiter.start()
    wait_for("somebody to wait", lambda: len(client.get_prefix(prefix + "lock/")) == 2, SECONDS)
    assert not waiting
    client.post(client.get_url("/lock/unlock"), json={"key": held["key"]})
    waiter.join()
    other.session.close()
    assert waiting[0]["key"] == coded(f"{prefix}lock/{int(lease.id):x}")
    assert take(lease=lease.id)["key"] == waiting[0]["key"]
    with pytest.raises(requests.exceptions.ReadTimeout):
        # It hangs up; the server then takes its key away.
        client.session.post(client.get_url("/lock/lock"), json={"name": name}, timeout=0.5)
    wait_for("the key to go", lambda: len(client.get_prefix(prefix + "lock/")) == 1, SECONDS)
    assert lease.revoke()
    assert client.get_prefix(prefix + "lock/") == []


def test_users_and_their_rights(new_cluster) -> None:
    """The client leaves logging in to its session: a token is a header of it."""
    port = new_cluster(size=1).members[0].node.client_port

    def connect(name: str = "", password: str = ""):
        client = etcd3gw.client(host="127.0.0.1", port=port, timeout=SECONDS)
        if name:
            login = {"name": name, "password": password}
            token = client.post(client.get_url("/auth/authenticate"), json=login)["token"]
            client.session.headers["Authorization"] = token
        return client

    nobody = connect()

    def ask(path: str, **body: object) -> None:
        nobody.post(nobody.get_url("/auth/" + path), json=body)

    mine = {"key": coded("mine/"), "range_end": coded("mine0"), "permType": "READWRITE"}
    ask("user/add", name="root", password="r")
    ask("role/add", name="root")
    ask("user/grant", user="root", role="root")
    ask("user/add", name="ann", password="a")
    ask("role/add", name="mine")
    ask("role/grant", name="mine", perm=mine)
    ask("user/grant", user="ann", role="mine")
    ask("enable")
    root, ann = connect("root", "r"), connect("ann", "a")
    with pytest.raises(Etcd3Exception):
        connect("ann", "wrong")
    with pytest.raises(Etcd3Exception):
        nobody.put("mine/key", "x")
    assert ann.put("mine/key", "x")
    assert ann.get("mine/key") == root.get("mine/key") == [b"x"]
    with pytest.raises(Etcd3Exception):
        ann.put("other", "x")
    assert root.put("other", "x")
    lease = ann.lease(LEASE_SECONDS)
    held = {"name": coded("mine/lock"), "lease": lease.id}
    assert ann.post(ann.get_url("/lock/lock"), json=held)["key"]
    with pytest.raises(Etcd3Exception):
        ann.post(ann.get_url("/lock/lock"), json={"name": coded("other")})
    events, cancel = ann.watch_prefix("mine/")
    root.put("mine/key", "y")
    assert next(events)["kv"]["value"] == b"y"
    cancel()
    for client in (nobody, root, ann):
        client.session.close()


def test_status_and_members(client, member: Member, calm_cluster: Cluster) -> None:
    status = client.status()
    ids = {int(row["ID"]): row["name"] for row in client.members()}
    assert sorted(ids.values()) == [one.name for one in calm_cluster.members]
    assert ids[int(status["header"]["member_id"])] == member.name
    assert int(status["leader"]) in ids
