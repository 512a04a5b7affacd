"""Health and version, callers, waiting, and the doorman: each alone, without a socket."""

import asyncio
import json

import pytest
from multidict import CIMultiDict

from kvstore.api.caller_headers import caller_of
from kvstore.api.doorman import HEAD_BYTES_MAX, Doorman
from kvstore.api.health import checks, health, version
from kvstore.api.wait import Waiter
from kvstore.errors import Code, KvError
from kvstore.service.caller import ANYBODY, Caller
from kvstore.types import AlarmType
from tests.kvstore.api.fake_service import FakeService

# --- Health and version ---------------------------------------------------------------------------


def ask_health(service, query=""):
    pending = health(service, query)
    replies: list[object] = []
    pending.begin(replies.append)
    return pending.finish(replies[0])


def test_health_has_etcds_bytes():
    service = FakeService()
    answer = ask_health(service)
    assert (answer.status, answer.body) == (200, b'{"health":"true","reason":""}')
    assert answer.head.startswith(b"Content-Type: text/plain")
    service.sick = "RAFT NO LEADER"
    answer = ask_health(service)
    assert (answer.status, answer.body) == (503, b'{"health":"false","reason":"RAFT NO LEADER"}')


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("", (False, frozenset())),
        ("serializable=true", (True, frozenset())),
        ("serializable=1", (False, frozenset())),
        ("exclude=NOSPACE", (False, frozenset({AlarmType.NOSPACE}))),
        ("exclude=NOSPACE&exclude=CORRUPT", (False, frozenset({AlarmType.NOSPACE, 2}))),
        ("exclude=nospace&exclude=X", (False, frozenset())),
        ("&".join(["exclude=NOSPACE"] * 50), (False, frozenset())),
    ],
)
def test_health_parameters(query, asked):
    service = FakeService()
    ask_health(service, query)
    assert service.health_asked == asked


def ask_checks(path, query="", **failing):
    service = FakeService()
    service.failing = failing
    pending = checks(service, path, query)
    assert pending is not None
    replies: list[object] = []
    pending.begin(replies.append)
    answer = pending.finish(replies[0])
    return answer.status, answer.body.decode()


def test_a_failing_check_is_shown_among_all_that_were_made():
    reason = "alarm activated: CORRUPT"
    assert ask_checks("/readyz", data_corruption=reason) == (
        503,
        "[-]data_corruption failed: alarm activated: CORRUPT\n[+]serializable_read ok\n"
        "[+]linearizable_read ok\n[+]non_learner ok\n\n",
    )
    assert ask_checks("/livez", data_corruption=reason) == (200, "ok\n")
    alone = (503, "[-]data_corruption failed: alarm activated: CORRUPT\n\n")
    assert ask_checks("/readyz/data_corruption", data_corruption=reason) == alone
    assert ask_checks("/readyz/non_learner", data_corruption=reason) == (200, "ok\n")


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("", "ok\n"),
        ("exclude=data_corruption&exclude=nothing&exclude=", "ok\n"),
        (
            "verbose&exclude=data_corruption&exclude=non_learner&exclude=linearizable_read",
            "[+]serializable_read ok\nok\n",
        ),
        (
            "verbose=&exclude=serializable_read&exclude=data_corruption",
            "[+]linearizable_read ok\n[+]non_learner ok\nok\n",
        ),
    ],
)
def test_parameters_of_checks(query, body):
    failing = {"data_corruption": "it is"} if "data_corruption" in query else {}
    assert ask_checks("/readyz", query, **failing) == (200, body)


def test_a_check_alone_cannot_be_left_out():
    status, _ = ask_checks(
        "/livez/serializable_read", "exclude=serializable_read", serializable_read="no"
    )
    assert status == 503


@pytest.mark.parametrize("path", ["/livezz", "/livez/", "/livez/non_learner", "/readyz/x", "/"])
def test_there_are_no_other_checks(path):
    assert checks(FakeService(), path, "") is None


def test_version_names_what_is_agreed_and_what_is_not_yet():
    service = FakeService()
    assert version(service).body == (
        b'{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}'
    )
    service.cluster_version = ""
    assert json.loads(version(service).body) == {
        "etcdserver": "3.7.1",
        "etcdcluster": "not_decided",
        "storage": "unknown",
    }


# --- Callers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "caller"),
    [
        ({}, ANYBODY),
        ({"authorization": "t1"}, Caller("t1")),
        ({"Authorization": "Bearer t1"}, Caller("t1")),
        ({"Grpc-Metadata-Token": "t2", "Authorization": "t1"}, Caller("t2")),
        ({"Grpc-Metadata-Authorization": "Bearer t3"}, Caller("t3")),
        ({"Grpc-Metadata-Hasleader": "true"}, Caller(has_leader=True)),
        ({"Grpc-Metadata-hasLeader": "yes"}, Caller()),
        ({"Grpc-Timeout": "500m"}, Caller(timeout_seconds=0.5)),
        ({"Grpc-Timeout": "2H"}, Caller(timeout_seconds=7200.0)),
        ({"Grpc-Timeout": "3M"}, Caller(timeout_seconds=180.0)),
        ({"Grpc-Timeout": "4S"}, Caller(timeout_seconds=4.0)),
        ({"Grpc-Timeout": "-5S"}, Caller(timeout_seconds=0.0)),
        ({"Authorization": ""}, Caller()),
    ],
)
def test_who_calls_is_read_from_the_headers(headers, caller):
    assert caller_of(CIMultiDict(headers)) == caller


@pytest.mark.parametrize(
    ("text", "waited_seconds", "seconds"),
    [
        ("700000u", 0.0, 0.7),
        ("7000000n", 0.0, 0.007),
        ("+2S", 1.5, 0.5),
        ("7u", 0.0, 0.0),
        ("7n", 0.0, 0.0),
        ("2S", 2.0, 0.0),
    ],
)
def test_a_timeout_runs_from_the_head_on_and_what_is_too_short_is_over(
    text, waited_seconds, seconds
):
    caller = caller_of(CIMultiDict({"Grpc-Timeout": text}), waited_seconds)
    assert caller.timeout_seconds == pytest.approx(seconds)


def test_a_timeout_of_nothing_is_none():
    assert caller_of(CIMultiDict({"Grpc-Timeout": "0S"}), 1.0) == ANYBODY


@pytest.mark.parametrize("text", ["xx", "5", "m", "5s", "1.5S", "", "5 S", "9" * 30 + "S"])
def test_a_timeout_that_cannot_be_read_is_refused(text):
    with pytest.raises(KvError) as caught:
        caller_of(CIMultiDict({"Grpc-Timeout": text}))
    assert caught.value == KvError(Code.INVALID_ARGUMENT, f"invalid grpc-timeout: {text}")


# --- Waiting --------------------------------------------------------------------------------------


async def test_a_reply_may_come_before_or_after_it_is_waited_for():
    early, late = Waiter(), Waiter()
    early("now")
    assert await early.wait() == "now"
    asyncio.get_running_loop().call_soon(late, "then")
    assert await late.wait() == "then"


async def test_a_reply_to_nobody_is_dropped():
    waiter = Waiter()
    task = asyncio.create_task(waiter.wait())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    waiter("late")


# --- The doorman ----------------------------------------------------------------------------------


class FakeTransport(asyncio.Transport):
    def __init__(self):
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data):
        assert not self.closed
        self.written += data

    def close(self):
        self.closed = True


class Timer:
    def __init__(self, seconds, callback):
        self.seconds = seconds
        self.callback = callback
        self.cancelled = False

    def cancel(self):
        self.cancelled = True


class House:
    def __init__(self, has_room=True):
        self.has_room = has_room
        self.inside = 0
        self.admitted = []
        self.late = 0
        self.refusals = {}
        self.timers = []

    def enter(self, doorman):
        self.inside += self.has_room
        return self.has_room

    def leave(self, doorman):
        self.inside -= 1

    def refusal(self, is_http2):
        return self.refusals.get(is_http2)

    def admit(self, doorman, transport, first):
        self.admitted.append(first)

    def count_late(self):
        self.late += 1

    def call_later(self, seconds, callback):
        self.timers.append(Timer(seconds, callback))
        return self.timers[-1]

    def knock(self):
        doorman = Doorman(self, self.call_later, 10.0)
        transport = FakeTransport()
        doorman.connection_made(transport)
        return doorman, transport


HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def test_a_whole_head_is_admitted_with_all_that_came_after_it():
    house = House()
    doorman, transport = house.knock()
    for at in range(len(HEAD) - 1):
        doorman.data_received(HEAD[at : at + 1])
    assert house.admitted == []
    doorman.data_received(HEAD[-1:] + b"next")
    assert house.admitted == [HEAD + b"next"]
    assert house.timers[0].cancelled
    assert house.inside == 1
    doorman.connection_lost(None)
    assert house.inside == 1
    assert (transport.written, transport.closed) == (b"", False)


def test_a_head_that_never_ends_is_late_and_answered():
    house = House()
    doorman, transport = house.knock()
    doorman.data_received(HEAD[:-1])
    assert house.timers[0].seconds == 10.0
    house.timers[0].callback()
    assert transport.written.startswith(b"HTTP/1.1 408 ")
    assert (transport.closed, house.late, house.inside) == (True, 1, 0)
    doorman.data_received(b"\n")
    doorman.connection_lost(None)
    assert (house.admitted, house.inside) == ([], 0)


def test_a_head_longer_than_any_is_left_to_the_parser():
    house = House()
    doorman, _ = house.knock()
    doorman.data_received(b"x" * HEAD_BYTES_MAX)
    assert house.admitted == []
    doorman.data_received(b"x")
    assert house.admitted == [b"x" * (HEAD_BYTES_MAX + 1)]


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def test_http2_is_admitted_once_its_preface_is_there():
    house = House()
    doorman, _ = house.knock()
    doorman.data_received(PREFACE[:23])
    assert house.admitted == []
    doorman.data_received(PREFACE[23:] + b"more")
    assert house.admitted == [PREFACE + b"more"]


@pytest.mark.parametrize("first", [PREFACE, HEAD])
def test_what_is_not_spoken_here_is_refused_in_words(first):
    house = House()
    house.refusals[first == PREFACE] = b"HTTP/1.1 505 No\r\n\r\n"
    doorman, transport = house.knock()
    doorman.data_received(first)
    assert transport.written == b"HTTP/1.1 505 No\r\n\r\n"
    assert (transport.closed, house.admitted, house.inside) == (True, [], 0)


def test_one_connection_too_many_is_told_so():
    house = House(has_room=False)
    doorman, transport = house.knock()
    assert transport.written.startswith(b"HTTP/1.1 503 ")
    assert transport.closed
    doorman.data_received(HEAD)
    doorman.connection_lost(None)
    assert (house.admitted, house.inside, house.timers) == ([], 0, [])


def test_a_client_that_leaves_early_is_forgotten():
    house = House()
    doorman, _ = house.knock()
    doorman.connection_lost(None)
    assert house.inside == 0
    assert house.timers[0].cancelled


def test_a_house_that_closes_sends_waiting_clients_away():
    house = House()
    doorman, transport = house.knock()
    doorman.close()
    assert transport.closed
