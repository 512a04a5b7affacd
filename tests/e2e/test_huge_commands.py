"""One command over 300,000 keys: nobody stands for election, and no heartbeat is late."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from typing import Final

import msgspec
import pytest

from kvstore.client import json_codec
from kvstore.types import PutRequest, RequestOp, TxnRequest
from tests.e2e.cluster import Cluster
from tests.e2e.conftest import ClusterMaker, FigureMaker
from tests.e2e.processes import Member

KEYS: Final = 300_000
KEYS_PER_TXN: Final = 128
LOADERS: Final = 8
PROBED: Final = 100
PROBE_SECONDS: Final = 0.01
CALL_SECONDS: Final = 60.0
PREFIX, END = b"huge/", b"huge0"

COUNTED: Final = ("kvstore_raft_term", "etcd_server_leader_changes_seen_total")


class _Pair(msgspec.Struct):
    key: str
    value: str = ""


class _Range(msgspec.Struct):
    kvs: list[_Pair] = []
    count: str = "0"


class _Deleted(msgspec.Struct):
    deleted: str = "0"


def _call(member: Member, path: str, body: bytes) -> bytes:
    connection = http.client.HTTPConnection(
        "127.0.0.1", member.node.client_port, timeout=CALL_SECONDS
    )
    try:
        connection.request("POST", path, body)
        response = connection.getresponse()
        answer = response.read()
    finally:
        connection.close()
    assert response.status == http.client.OK, f"{path}: {response.status} {answer[:200]!r}"
    return answer


def _key(number: int) -> bytes:
    return b"%s%07d" % (PREFIX, number)


def _transactions() -> Iterator[bytes]:
    for first in range(0, KEYS, KEYS_PER_TXN):
        numbers = range(first, min(first + KEYS_PER_TXN, KEYS))
        ops = [RequestOp(request_put=PutRequest(_key(number), b"x")) for number in numbers]
        yield json_codec.encode(TxnRequest(success=ops))


def _load(member: Member) -> None:
    """All keys, in transactions, over several connections."""
    lock = threading.Lock()
    bodies = _transactions()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            connection = http.client.HTTPConnection(
                "127.0.0.1", member.node.client_port, timeout=CALL_SECONDS
            )
            while not errors:
                with lock:
                    body = next(bodies, None)
                if body is None:
                    break
                connection.request("POST", "/v3/kv/txn", body)
                response = connection.getresponse()
                answer = response.read()
                assert response.status == http.client.OK, answer[:200]
            connection.close()
        except BaseException as error:  # noqa: BLE001 - raised again below, in the test's thread
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(LOADERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


class Probe:
    """A client that looks at some of the keys on one member all the time.

    Its reads are serializable: they go on at the last published revision while the command runs.
    """

    def __init__(self, member: Member) -> None:
        self.reads = 0
        self.counts: set[int] = set()
        self.longest_seconds = 0.0
        self.errors: list[Exception] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(member,))

    def __enter__(self) -> Probe:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self, member: Member) -> None:
        try:
            with member.client() as client:
                while not self._stop.is_set():
                    start = time.monotonic()
                    response = client.get(_key(0), _key(PROBED), count_only=True, serializable=True)
                    self.counts.add(response.count)
                    self.longest_seconds = max(self.longest_seconds, time.monotonic() - start)
                    self.reads += 1
                    self._stop.wait(PROBE_SECONDS)
        except Exception as error:  # noqa: BLE001 - judged by the test
            self.errors.append(error)


def _counts(cluster: Cluster) -> dict[str, dict[str, float]]:
    counts = {}
    for member in cluster.members:
        samples = member.metrics()
        counts[member.name] = {name: samples[name] for name in COUNTED} | {
            # Heartbeats are frames: none was thrown away.
            name: value
            for name, value in samples.items()
            if name.startswith("etcd_network_peer_sent_failures_total")
        }
    return counts


def _stalls(cluster: Cluster) -> float:
    """How often a loop stood still: shown, not judged, for a busy machine stops processes too."""
    return sum(member.metrics()["kvstore_loop_stalls_total"] for member in cluster.members)


@pytest.mark.timeout(180)
def test_a_range_and_a_delete_of_300_000_keys_disturb_nobody(
    new_cluster: ClusterMaker, figure: FigureMaker
) -> None:
    # Heartbeats are as ever. But a call may take 15 s, for all three members share two slow cores.
    cluster = new_cluster(flags=["--election-timeout=5000"])
    leader = cluster.leader()
    _load(leader)
    before = _counts(cluster)
    everything = msgspec.json.encode({"key": PREFIX, "range_end": END})
    other = next(member for member in cluster.members if member is not leader)

    with Probe(leader) as near, Probe(other) as far:
        body = _call(leader, "/v3/kv/range", everything)
        deleted = _call(other, "/v3/kv/deleterange", everything)
        left = _call(leader, "/v3/kv/range", everything)

    found = msgspec.json.decode(body, type=_Range)
    assert len(found.kvs) == int(found.count) == KEYS
    assert int(msgspec.json.decode(deleted, type=_Deleted).deleted) == KEYS
    assert msgspec.json.decode(left, type=_Range) == _Range()
    assert near.errors == far.errors == []
    # All of it went at one revision: nobody saw some of the keys gone and some there.
    assert near.counts | far.counts <= {PROBED, 0}
    assert _counts(cluster) == before
    assert cluster.leader() is leader
    figure(
        f"huge: a range and a delete of {KEYS:,} keys; meanwhile {near.reads + far.reads} small "
        f"reads, the longest {max(near.longest_seconds, far.longest_seconds) * 1e3:.0f} ms; "
        f"loops that stood still: {_stalls(cluster):.0f}"
    )
