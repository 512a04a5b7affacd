"""What the lean lane takes for a head that it knows in full, and what it leaves to aiohttp."""

import pytest

from kvstore.api.lean.heads import BODY_BYTES_MAX, HEAD_BYTES_MAX, Heads
from kvstore.service.caller import ANYBODY


class Call:
    def begin(self, body, caller, reply):
        raise AssertionError("a head begins nothing")

    def finish(self, outcome):
        raise AssertionError("a head ends nothing")


PUT = Call()
BARE = "POST /v3/kv/put HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n"


def heads():
    return Heads({"/v3/kv/put": PUT})


def head(*lines, start=BARE):
    return (start + "".join(f"{line}\r\n" for line in lines) + "\r\n").encode("latin-1")


def test_a_lean_head_says_what_is_called_how_long_its_body_is_and_by_whom():
    found = heads().read(head())
    assert (found.call, found.body_bytes, found.caller) == (PUT, 5, ANYBODY)
    found = heads().read(head("AUTHORIZATION: Bearer t", "accept: */*", "Connection: Keep-Alive"))
    assert (found.call, found.caller.token, found.caller.timeout_seconds) == (PUT, "t", None)


@pytest.mark.parametrize(
    "line",
    [
        "Expect: 100-continue",
        "Upgrade: websocket",
        "Transfer-Encoding: chunked",
        "Content-Length: 5",
        "Host: other",
        "Connection: close",
        "Connection: keep-alive, upgrade",
        "Grpc-Timeout: 1S",
        "Grpc-Metadata-Hasleader: true",
        "Grpc-Metadata-Client-Api-Version: 3.5",
        "X-Unheard-Of: 1",
        "X-Forwarded-For: é",
        "Accept: a\r\n folded",
        "Accept: a\nAccept-Language: b",
        "Accept : a",
        "no colon",
    ],
)
def test_what_a_header_may_mean_is_left_to_who_knows(line):
    assert heads().read(head(line)) is None


@pytest.mark.parametrize(
    "start",
    [
        "GET /v3/kv/put HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n",
        "POST /v3/kv/put HTTP/1.0\r\nHost: h\r\nContent-Length: 5\r\n",
        "POST /v3/kv/put HTTP/1.1\r\nHost: h\r\n",
        "POST /v3/kv/put HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n",
        "POST /v3/kv/put HTTP/1.1\r\nHost: h\r\nContent-Length: 05\r\n",
        f"POST /v3/kv/put HTTP/1.1\r\nHost: h\r\nContent-Length: {BODY_BYTES_MAX + 1}\r\n",
        "POST /v3/kv/put?a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n",
        "POST /v3/kv/range HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n",
        "POST http://h/v3/kv/put HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n",
        "\r\nPOST /v3/kv/put HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n",
        "PRI * HTTP/2.0\r\n",
        "",
    ],
)
def test_another_request_is_left_to_who_knows(start):
    assert heads().read(head(start=start)) is None


def test_the_longest_body_and_the_longest_head_are_lean_and_one_byte_more_is_not():
    longest = BARE.replace("5", str(BODY_BYTES_MAX))
    assert heads().read(head(start=longest)).body_bytes == BODY_BYTES_MAX
    filling = HEAD_BYTES_MAX - len(head("Accept: "))
    assert heads().read(head("Accept: " + "a" * filling)) is not None
    assert heads().read(head("Accept: " + "a" * (filling + 1))) is None


def test_a_head_is_known_by_its_bytes_once_it_was_read():
    room = heads()
    assert room.known(head()) is None
    found = room.read(head())
    assert room.known(head()) is found
    assert room.known(head("Accept: a")) is None


def test_what_is_remembered_is_bounded_in_number_and_size():
    room = heads()
    for number in range(5000):
        room.read(head(f"X-Request-Id: {number}"))
    known = [n for n in range(5000) if room.known(head(f"X-Request-Id: {n}"))]
    assert 0 < len(known) <= 1024
    assert known[-1] == 4999
    long = head("Accept: " + "a" * 2000)
    assert room.read(long) is not None
    assert room.known(long) is None
