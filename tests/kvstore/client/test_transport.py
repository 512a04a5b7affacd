"""Which failures are tried again, on which endpoint, and which leave a write in doubt."""

from __future__ import annotations

import msgspec
import pytest

from kvstore.client import Client, UnreachableError, prefix_end
from kvstore.client.transport import Transport
from kvstore.errors import Code, ErrorKind, KvError, UnknownOutcomeError
from kvstore.types import AlarmMember, AlarmType

A = "http://a:1"
B = "http://b:1"
OK = '{"header":{"revision":"7"}}'


def error_body(kind: ErrorKind) -> str:
    return f'{{"error":"{kind.message}","code":{kind.code},"message":"{kind.message}"}}'


@pytest.fixture
def client(script):
    with Client([A, B], timeout=5) as found:
        found.transport._pause = lambda seconds: None
        yield found


def test_a_call_keeps_its_connection(client, script, http_answer):
    script.on(A, http_answer(OK), http_answer(OK))
    assert client.put(b"k", b"v").header.revision == 7
    client.put(b"k", b"v")
    assert script.requests == [(A, "/v3/kv/put", b'{"key":"aw==","value":"dg=="}')] * 2


def test_a_refused_connection_goes_to_the_next_endpoint_and_stays_there(
    client, script, http_answer
):
    script.on(B, http_answer(OK), http_answer(OK))
    client.put(b"k", b"v")
    script.on(A, http_answer(OK))
    client.put(b"k", b"v")
    assert [url for url, _, _ in script.requests] == [B, B]
    script.connections.clear()


def test_nobody_there_is_said_at_once_and_nothing_happened(client, script):
    with pytest.raises(UnreachableError, match="kvstore cluster") as caught:
        client.put(b"k", b"v")
    assert not isinstance(caught.value, UnknownOutcomeError)


def test_a_write_without_an_answer_is_in_doubt_and_never_sent_twice(client, script, http_answer):
    script.on(A, script.close)
    script.on(B, http_answer(OK))
    with pytest.raises(UnknownOutcomeError, match="may or may not"):
        client.put(b"k", b"v")
    assert len(script.requests) == 1


def test_a_read_without_an_answer_is_asked_elsewhere(client, script, http_answer):
    script.on(A, script.close)
    script.on(B, http_answer(OK))
    assert client.get(b"k").header.revision == 7
    assert [url for url, _, _ in script.requests] == [A, B]


def test_a_connection_that_the_server_closed_while_idle_leaves_no_doubt(
    client, script, http_answer
):
    script.on(A, http_answer(OK), script.silence)
    client.put(b"k", b"v")
    far = script._sockets[0]
    far.shutdown(2)
    script.on(A, http_answer(OK))
    client.put(b"k", b"v")
    assert [url for url, _, _ in script.requests] == [A, A]


def test_a_paused_member_costs_a_read_only_its_share_of_the_time(script, http_answer):
    script.on(A, script.silence)
    script.on(B, http_answer(OK))
    with Client([A, B], timeout=0.2) as client:
        header = client.get(b"k").header
    assert header is not None
    assert header.revision == 7


def test_a_paused_member_leaves_a_write_in_doubt(script, http_answer):
    script.on(A, script.silence)
    with Client([A, B], timeout=0.1) as client, pytest.raises(UnknownOutcomeError):
        client.put(b"k", b"v")


def test_after_a_write_in_doubt_the_next_call_begins_elsewhere(script, http_answer):
    script.on(A, script.silence)
    script.on(B, http_answer(OK))
    with Client([A, B], timeout=0.1) as client:
        with pytest.raises(UnknownOutcomeError):
            client.put(b"k", b"1")
        client.put(b"k", b"2")
    assert [url for url, _, _ in script.requests] == [A, B]


@pytest.mark.parametrize("kind", [ErrorKind.NO_LEADER, ErrorKind.TOO_MANY_REQUESTS])
def test_a_write_that_was_refused_before_it_was_proposed_is_tried_again(
    client, script, http_answer, kind
):
    script.on(A, http_answer(error_body(kind), 503))
    script.on(B, http_answer(OK))
    client.put(b"k", b"v")
    assert [url for url, _, _ in script.requests] == [A, B]


@pytest.mark.parametrize(
    "kind",
    [
        ErrorKind.STOPPED,
        ErrorKind.LEADER_CHANGED,
        ErrorKind.TIMEOUT,
        ErrorKind.TIMEOUT_LEADER_FAIL,
        ErrorKind.TIMEOUT_CONNECTION_LOST,
        ErrorKind.DEADLINE_EXCEEDED,
        ErrorKind.CANCELED,
    ],
)
def test_an_answer_that_may_follow_a_proposal_leaves_a_write_in_doubt(
    client, script, http_answer, kind
):
    script.on(A, http_answer(error_body(kind), 503))
    with pytest.raises(UnknownOutcomeError) as caught:
        client.put(b"k", b"v")
    assert caught.value == kind.error()


def test_a_gateway_error_without_json_leaves_a_write_in_doubt(client, script, http_answer):
    script.on(A, http_answer("bad gateway", 502))
    with pytest.raises(UnknownOutcomeError, match="bad gateway"):
        client.put(b"k", b"v")


@pytest.mark.parametrize(
    ("kind", "status"),
    [(ErrorKind.EMPTY_KEY, 400), (ErrorKind.NO_SPACE, 429), (ErrorKind.LEASE_NOT_FOUND, 404)],
)
def test_a_refusal_is_final(client, script, http_answer, kind, status):
    script.on(A, http_answer(error_body(kind), status))
    with pytest.raises(KvError) as caught:
        client.put(b"k", b"v")
    assert caught.value == kind.error()
    assert not isinstance(caught.value, UnknownOutcomeError)


def test_a_path_that_does_not_exist_is_no_doubt(client, script, http_answer):
    script.on(A, http_answer("404 page not found", 404))
    with pytest.raises(KvError, match="404 page not found") as caught:
        client.put(b"k", b"v")
    assert caught.value.code is Code.UNIMPLEMENTED


def test_retries_end_with_the_time(monkeypatch):
    now = [0.0]

    def pause(seconds: float) -> None:
        now[0] += seconds

    transport = Transport([A, B], 2.0, clock=lambda: now[0], pause=pause)
    attempts = []

    def attempt(self, endpoint, path, body, seconds, *, safe):
        attempts.append(endpoint.url)
        raise ErrorKind.NO_LEADER.error()

    monkeypatch.setattr(Transport, "_attempt", attempt)
    with pytest.raises(KvError, match="no leader"):
        transport.call("/x", b"", safe=False)
    assert now[0] <= 2.0
    assert attempts == [A, B] * (len(attempts) // 2)
    assert len(attempts) < 20


def test_a_keep_alive_reads_its_line_and_finds_a_lost_lease(client, script, http_answer):
    script.on(
        A,
        http_answer('{"result":{"ID":"5","TTL":"60"}}\n'),
        http_answer('{"result":{"ID":"5"}}\n'),
        http_answer('{"error":{"code":14,"message":"etcdserver: no leader"}}\n'),
        http_answer("nonsense"),
    )
    assert client.lease_keep_alive(5).TTL == 60
    for kind in (ErrorKind.LEASE_NOT_FOUND, ErrorKind.NO_LEADER):
        with pytest.raises(KvError) as caught:
            client.lease_keep_alive(5)
        assert caught.value == kind.error()
    with pytest.raises(KvError, match="no stream"):
        client.lease_keep_alive(5)


def test_an_alarm_is_listed_and_cleared_by_member_and_type(client, script, http_answer):
    shown = '{"header":{},"alarms":[{"memberID":"7","alarm":"NOSPACE"}]}'
    script.on(A, http_answer(shown), http_answer(shown))
    (raised,) = client.alarm_list().alarms
    assert raised == AlarmMember(7, AlarmType.NOSPACE)
    assert client.alarm_disarm(raised).alarms == [raised]
    path, body = script.requests[-1][1:]
    assert path == "/v3/maintenance/alarm"
    assert msgspec.json.decode(body) == {
        "action": "DEACTIVATE",
        "memberID": 7,
        "alarm": "NOSPACE",
    }


@pytest.mark.parametrize("url", ["https://a:1/x", "http://a:1/x", "http://", "ftp://a:1"])
def test_an_endpoint_that_is_no_url_is_refused(url):
    with pytest.raises(ValueError, match="http://host:port"):
        Client([url])


def test_a_client_needs_an_endpoint():
    with pytest.raises(ValueError, match="at least one"):
        Client([])


@pytest.mark.parametrize(
    ("prefix", "end"),
    [(b"a", b"b"), (b"a\xff", b"b"), (b"a\xff\xff", b"b"), (b"\xff", b"\0"), (b"", b"\0")],
)
def test_the_end_of_a_prefix(prefix, end):
    assert prefix_end(prefix) == end
