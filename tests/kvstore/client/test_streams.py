"""Calls that take their time: locks, elections, snapshots."""

from __future__ import annotations

import base64
import hashlib
import itertools
import random
import threading

import msgspec
import pytest

from kvstore.client import Client, UnreachableError
from kvstore.client.transport import Endpoint
from kvstore.errors import Code, ErrorKind, KvError, UnknownOutcomeError
from kvstore.types import DowngradeAction, KeyValue, LeaderKey

A = "http://a:1"
B = "http://b:1"
CONTENT = random.Random(3).randbytes(1000)


def error_body(message: str, code: int) -> str:
    return f'{{"error":"{message}","code":{code},"message":"{message}"}}'


@pytest.fixture
def client(script):
    with Client([A, B], timeout=5) as found:
        found.transport._pause = lambda seconds: None
        yield found


# --- Locks and elections --------------------------------------------------------------------------


def test_a_lock_waits_on_a_connection_of_its_own_that_ends_with_it(client, script, http_answer):
    script.on(A, http_answer('{"header":{"revision":"7"},"key":"bG9jay80ZA=="}'), script.silence)
    assert client.lock(b"lock", 77).key == b"lock/4d"
    (request,) = script.requests
    assert request == (A, "/v3/lock/lock", b'{"name":"bG9jaw==","lease":77}')
    assert "Grpc-Timeout" not in script.headers[0]
    # Its far end ends once the near one does: the server hears that nobody waits any more.
    script.finish()


def test_a_wait_of_limited_length_tells_the_server_its_limit(client, script, http_answer):
    script.on(A, http_answer(error_body("context deadline exceeded", 4), 504))
    with pytest.raises(KvError) as caught:
        client.lock(b"lock", wait_seconds=1.5)
    assert caught.value == ErrorKind.DEADLINE_EXCEEDED.error()
    assert not isinstance(caught.value, UnknownOutcomeError)
    assert script.headers[0]["Grpc-Timeout"] == "1500m"


def test_a_wait_goes_to_the_next_endpoint_only_if_nothing_was_sent(client, script, http_answer):
    script.on(B, http_answer('{"key":"aw=="}'))
    assert client.lock(b"lock").key == b"k"
    script.on(A, script.close)
    with pytest.raises(UnknownOutcomeError, match="revoke the lease"):
        client.campaign(b"e", b"v")
    with pytest.raises(UnreachableError):
        client.lock(b"lock")


def test_elections(client, script, http_answer):
    leader = LeaderKey(b"e", b"e/4d", 9, 77)
    json_leader = {"name": "ZQ==", "key": "ZS80ZA==", "rev": 9, "lease": 77}
    script.on(A, http_answer(msgspec.json.encode({"leader": json_leader})))
    script.on(
        A,
        http_answer('{"header":{}}'),
        http_answer('{"kv":{"key":"ZS80ZA==","value":"dg=="}}'),
        http_answer('{"header":{}}'),
    )
    assert client.campaign(b"e", b"v", 77).leader == leader
    client.proclaim(leader, b"w")
    assert client.leader(b"e").kv == KeyValue(b"e/4d", 0, 0, 0, b"v", 0)
    client.resign(leader)
    asked = [(path, msgspec.json.decode(body)) for _, path, body in script.requests]
    assert asked == [
        ("/v3/election/campaign", {"name": "ZQ==", "lease": 77, "value": "dg=="}),
        ("/v3/election/proclaim", {"leader": json_leader, "value": "dw=="}),
        ("/v3/election/leader", {"name": "ZQ=="}),
        ("/v3/election/resign", {"leader": json_leader}),
    ]


@pytest.mark.parametrize("words", ["election: not leader", "etcdserver: requested lease not found"])
def test_a_refusal_with_code_unknown_leaves_no_doubt(client, script, http_answer, words):
    """Locks and elections answer every error with it."""
    script.on(A, http_answer(error_body(words, 2), 500))
    with pytest.raises(KvError, match=words) as caught:
        client.proclaim(LeaderKey(b"e", b"k", 1, 1), b"v")
    assert not isinstance(caught.value, UnknownOutcomeError)


def test_an_unknown_error_of_a_write_leaves_doubt(client, script, http_answer):
    script.on(A, http_answer(error_body("etcdserver: request timed out", 2), 500))
    with pytest.raises(UnknownOutcomeError):
        client.proclaim(LeaderKey(b"e", b"k", 1, 1), b"v")


def leads(value: bytes, revision: int) -> str:
    shown = base64.b64encode(value).decode()
    return f'{{"result":{{"kv":{{"key":"aw==","mod_revision":"{revision}","value":"{shown}"}}}}}}'


def test_observing_goes_on_elsewhere_and_repeats_nothing(client, script, stream):
    script.on(A, stream(leads(b"1", 5), leads(b"2", 6)))
    script.on(B, stream(leads(b"2", 6), leads(b"3", 8)), script.silence)
    seen = client.observe(b"e")
    assert [found.kv.value for found in itertools.islice(seen, 3)] == [b"1", b"2", b"3"]
    seen.close()


def test_observing_ends_with_an_error_that_time_does_not_mend(client, script, stream):
    words = '{"error":{"code":7,"message":"etcdserver: permission denied"}}'
    script.on(A, stream(leads(b"1", 5), words))
    seen = client.observe(b"e")
    next(seen)
    with pytest.raises(KvError) as caught:
        next(seen)
    assert caught.value == ErrorKind.PERMISSION_DENIED.error()


def test_observing_gives_up_when_nobody_is_there_for_the_clients_time(client, script):
    pauses: list[float] = []
    client.transport._pause = pauses.append
    with pytest.raises(UnreachableError):
        next(client.observe(b"e"))
    assert 4 <= sum(pauses) <= 5


# --- Snapshots ------------------------------------------------------------------------------------


def chunks(content: bytes, size: int, digest: bytes | None = None) -> list[str]:
    lines = []
    for start in range(0, len(content), size):
        piece = content[start : start + size]
        left = len(content) - start - len(piece)
        lines.append(
            f'{{"result":{{"remaining_bytes":"{left}","version":"3.7.0",'
            f'"blob":"{base64.b64encode(piece).decode()}"}}}}'
        )
    digest = hashlib.sha256(content).digest() if digest is None else digest
    lines.append(f'{{"result":{{"blob":"{base64.b64encode(digest).decode()}"}}}}')
    return lines


END = b"0\r\n\r\n"


def test_a_snapshot_is_fetched_and_checked(client, script, stream):
    script.on(A, stream(*chunks(CONTENT, 300)) + END)
    parts: list[bytes] = []
    told: list[tuple[int, int]] = []
    saved = client.save_snapshot(parts.append, progress=lambda *sizes: told.append(sizes))
    assert b"".join(parts) == CONTENT
    assert saved == (1000, hashlib.sha256(CONTENT).hexdigest(), "3.7.0")
    assert told == [(1000, 700), (1000, 400), (1000, 100), (1000, 0)]


@pytest.mark.parametrize(
    "lines",
    [
        chunks(CONTENT, 300, b"x" * 32),
        chunks(CONTENT, 300)[:-1],
        chunks(CONTENT, 300)[:2],
        [],
    ],
    ids=["another digest", "no digest", "cut short", "nothing"],
)
def test_a_snapshot_that_did_not_come_whole_is_none(client, script, stream, lines):
    script.on(A, stream(*lines) + END)
    with pytest.raises(KvError, match="fetch it again") as caught:
        client.save_snapshot(lambda _: None)
    assert caught.value.code is Code.DATA_LOSS


def test_a_snapshot_whose_stream_breaks_is_none(client, script, stream):
    script.on(A, stream(*chunks(CONTENT, 300)[:2]))
    with pytest.raises(KvError, match="cut short after 300 bytes"):
        client.save_snapshot(lambda _: None)


# --- The rest of maintenance ----------------------------------------------------------------------


def test_maintenance_calls_ask_their_paths(client, script, http_answer):
    script.on(
        A,
        http_answer('{"hash":7,"compact_revision":"-1","hash_revision":"4"}'),
        http_answer("{}"),
        http_answer('{"version":"3.7"}'),
        http_answer("{}"),
    )
    found = client.hash_kv(4, client.transport.endpoints[0])
    assert (found.hash, found.compact_revision, found.hash_revision) == (7, -1, 4)
    client.defragment()
    assert client.downgrade(DowngradeAction.VALIDATE, "3.6").version == "3.7"
    client.move_leader(9)
    assert [(path, msgspec.json.decode(body)) for _, path, body in script.requests] == [
        ("/v3/maintenance/hashkv", {"revision": 4}),
        ("/v3/maintenance/defragment", {}),
        ("/v3/maintenance/downgrade", {"version": "3.6"}),
        ("/v3/maintenance/transfer-leadership", {"targetID": 9}),
    ]


def test_the_leaders_endpoint_is_found_by_asking_each(client, script, http_answer):
    script.on(A, http_answer('{"header":{"member_id":"1"},"leader":"2"}'))
    script.on(B, http_answer('{"header":{"member_id":"2"},"leader":"2"}'))
    assert client.leader_endpoint() is client.transport.endpoints[1]
    script.on(B, script.close)
    assert client.leader_endpoint() is None


def test_health_is_a_quorum_whatever_it_says_of_permission(client, script, http_answer):
    denied = http_answer(error_body("etcdserver: permission denied", 7), 403)
    down = http_answer(error_body("etcdserver: request timed out", 14), 503)
    script.on(A, http_answer('{"header":{}}'), denied, down)
    (one, _) = client.transport.endpoints
    client.check_health(one)
    client.check_health(one)
    with pytest.raises(KvError, match="timed out"):
        client.check_health(one)


def test_a_stream_that_another_thread_closes_ends(script, monkeypatch, stream):
    """So a program can stop observing."""
    from kvstore.client.stream import Stream, StreamLostError

    script.on(A, stream(leads(b"1", 5)), script.silence)
    with Client([A]) as client:
        waiting = Stream(client.transport, "/v3/election/observe", b"{}")
        lines = waiting.lines()
        next(lines)
        ended: list[BaseException] = []

        def wait() -> None:
            try:
                next(lines)
            except (StreamLostError, StopIteration) as error:
                ended.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        waiting.close()
        thread.join(5)
        assert ended
        assert isinstance(waiting.endpoint, Endpoint)
