"""The front door over real sockets: right answers, right errors, bounds, and a quiet end."""

import asyncio
import base64
import json
import logging

import pytest

from kvstore.api.limits import ApiLimits
from kvstore.errors import ErrorKind
from kvstore.types import KeyValue
from tests.e2e.front_door import KIB, WAIT_SECONDS, house, on_both_loops, post, request, until

pytestmark = pytest.mark.e2e

# --- Answers --------------------------------------------------------------------------------------

PUT = post("/v3/kv/put", b'{"key":"YQ==","value":"Yg=="}')
GET = post("/v3/kv/range", b'{"key":"YQ=="}')


@on_both_loops
async def test_calls_follow_each_other_on_one_connection():
    async with house() as place:
        connection = await place.connect()
        connection.send(PUT)
        answer = await connection.answer()
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["grpc-metadata-content-type"] == "application/grpc"
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["date"].endswith(" GMT")
        assert "connection" not in answer.headers
        # Pipelined, and cut at odd places.
        for at in range(0, len(GET * 3), 7):
            connection.send((GET * 3)[at : at + 7])
        for _ in range(3):
            assert (await connection.answer()).json["kvs"][0]["value"] == "Yg=="
        assert place.counters.connections_accepted == 1
        assert place.counters.answers == {200: 4}


@pytest.mark.parametrize(
    ("raw", "status", "code", "message"),
    [
        (request("GET", "/v3/kv/put"), 501, 12, "Method Not Allowed"),
        (request("GET", "/v3/watch"), 501, 12, "Method Not Allowed"),
        (post("/v3/kv/nothing", b"{}"), 404, 5, "Not Found"),
        (post("/v3/kv/put/", b"{}"), 404, 5, "Not Found"),
        (post("/v3/kv/put", b'{"key":"YQ=='), 400, 3, "unexpected EOF"),
        (post("/v3/kv/put", b"{}"), 400, 3, "etcdserver: key is not provided"),
        (post("/v3/kv/put", b"{}", "Grpc-Timeout: xx"), 400, 3, "invalid grpc-timeout: xx"),
        (request("POST", "/v1/kv/a", b""), 405, 12, "a key knows GET, HEAD, PUT, DELETE, OPTIONS"),
        (request("GET", "/v1/kv/a"), 404, 5, "there is no such key"),
        (
            request("GET", "/v1/kv"),
            404,
            5,
            "Not Found: keys are at /v1/kv/, all at /v1/kv/?prefix",
        ),
    ],
)
@on_both_loops
async def test_errors_have_etcds_status_code_and_words(raw, status, code, message):
    async with house() as place:
        assert (await place.ask(raw)).error == (status, code, message)


@pytest.mark.parametrize(
    ("raw", "status", "body"),
    [
        (request("GET", "/health"), 200, b'{"health":"true","reason":""}'),
        (request("GET", "/health?exclude=NOSPACE"), 200, b'{"health":"true","reason":""}'),
        (request("GET", "/metrics"), 200, b"# HELP up\nup 1\n"),
        (request("PUT", "/health", b""), 405, b"Method Not Allowed\n"),
        (request("GET", "/nothing"), 404, b"404 page not found\n"),
        (request("GET", "http://localhost/metrics"), 200, b"# HELP up\nup 1\n"),
        (request("OPTIONS", "/anything"), 200, b""),
        (request("OPTIONS", "/v1/kv/a"), 200, b""),
    ],
)
@on_both_loops
async def test_other_paths(raw, status, body):
    async with house() as place:
        answer = await place.ask(raw)
        assert (answer.status, answer.body) == (status, body)
        assert "access-control-allow-methods" in answer.headers


@on_both_loops
async def test_a_head_tells_the_length_and_sends_no_body():
    async with house() as place:
        connection = await place.connect()
        connection.send(request("PUT", "/v1/kv/a", b"value"))
        assert (await connection.answer()).status == 201
        connection.send(request("HEAD", "/v1/kv/a"))
        answer = await connection.answer("HEAD")
        assert (answer.status, answer.headers["content-length"]) == (200, "5")
        etag = answer.headers["etag"]
        connection.send(request("GET", "/v1/kv/a", None, f"If-None-Match: {etag}"))
        assert (await connection.answer()).status == 304
        connection.send(request("DELETE", "/v1/kv/a"))
        answer = await connection.answer()
        assert answer.status == 204
        assert "content-length" not in answer.headers
        connection.send(request("HEAD", "/v1/kv/a"))
        assert (await connection.answer("HEAD")).status == 404


@on_both_loops
async def test_http10_gets_its_answers_without_chunks():
    async with house() as place:
        fill(place.service, 2000)
        body = b'{"key":"AA==","range_end":"AA=="}'
        raw = post("/v3/kv/range", body).replace(b"HTTP/1.1", b"HTTP/1.0")
        answer = await place.ask(raw)
        assert "transfer-encoding" not in answer.headers
        assert len(answer.json["kvs"]) == 2000
        connection = await place.connect()
        for _ in range(2):
            connection.send(
                request("GET", "/version", None, "Connection: keep-alive").replace(b"1.1", b"1.0")
            )
            assert (await connection.answer()).headers["connection"] == "keep-alive"


@on_both_loops
async def test_the_caller_is_read_from_the_headers():
    async with house() as place:
        await place.ask(post("/v3/kv/put", b"{}", "Authorization: Bearer t", "Grpc-Timeout: 2S"))
        (caller,) = place.service.callers
        assert caller.token == "t"
        assert 0.0 < caller.timeout_seconds <= 2.0


@on_both_loops
async def test_a_mistake_of_our_own_is_an_internal_error_and_not_the_end(caplog):
    async with house() as place:
        place.service.items = None
        connection = await place.connect()
        with caplog.at_level(logging.CRITICAL, "kvstore.api"):
            connection.send(PUT)
            assert (await connection.answer()).error == (500, 13, "kvstore: internal error")
        place.service.items = {}
        connection.send(PUT)
        assert (await connection.answer()).status == 200
        assert place.counters.surprises == 1


@on_both_loops
async def test_a_mistake_of_our_own_ends_a_stream_with_an_error(caplog):
    async with house() as place:
        connection, watch = await open_watch(place)
        with caplog.at_level(logging.CRITICAL, "kvstore.api"):
            watch.push(None)
            error = json.loads(await connection.chunk())["error"]
        assert (error["code"], error["message"]) == (13, "kvstore: internal error")
        assert await connection.chunk() == b""
        assert (watch.closed, place.counters.surprises) == (True, 1)


# --- Bounds ---------------------------------------------------------------------------------------


@on_both_loops
async def test_a_body_may_be_so_long_and_no_longer():
    async with house(max_request_bytes=64 * KIB) as place:
        bytes_max = ApiLimits(max_request_bytes=64 * KIB).raw_body_bytes_max
        answer = await place.ask(request("PUT", "/v1/kv/a", bytes(bytes_max)))
        assert answer.status == 201
        answer = await place.ask(request("PUT", "/v1/kv/a", bytes(bytes_max + 1)))
        assert answer.error == (400, 3, "etcdserver: request is too large")
        assert answer.headers["connection"] == "close"
        # The largest value fits through the JSON door as well.
        value = base64.b64encode(bytes(64 * KIB)).decode()
        body = json.dumps({"key": "YQ==", "value": value}).encode()
        assert (await place.ask(post("/v3/kv/put", body))).status == 200


@on_both_loops
async def test_a_body_that_is_announced_too_long_is_refused_unread():
    async with house() as place:
        connection = await place.connect()
        connection.send(
            b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{"
        )
        words = (await connection.answer()).error[2]
        assert words.startswith("grpc: received message larger than max (99999999999 vs. ")


@on_both_loops
async def test_a_chunked_body_is_refused_once_it_is_too_long():
    async with house(max_request_bytes=1 * KIB) as place:
        connection = await place.connect()
        connection.send(b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        for _ in range(20):
            connection.send(chunk)
        assert (await connection.answer()).error[2] == "etcdserver: request is too large"
        small = b"5\r\nhello\r\n0\r\n\r\n"
        raw = b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + small
        assert (await place.ask(raw)).status == 201
        assert place.service.items[b"a"].value == b"hello"


@on_both_loops
async def test_a_body_that_is_held_back_is_asked_for_only_when_it_fits():
    async with house(max_request_bytes=1 * KIB) as place:
        connection = await place.connect()
        head = (
            "PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n"
        )
        connection.send(head.format(5).encode())
        assert (await connection.head()).status == 100
        connection.send(b"hello")
        assert (await connection.answer()).status == 201
        connection.send(head.format(10_000_000).encode())
        assert (await connection.answer()).status == 400


@on_both_loops
async def test_a_client_that_never_finishes_its_head_is_sent_away_and_others_notice_nothing():
    async with house(head_seconds=0.15) as place:
        slow = await place.connect()
        slow.send(b"POST /v3/kv/put HTTP/1.1\r\nHost: ")
        for _ in range(5):
            slow.send(b"x")
            assert (await place.ask(PUT)).status == 200
        assert (await slow.answer()).error[0] == 408
        assert await slow.is_closed()
        assert place.counters.late_heads == 1


@on_both_loops
async def test_a_client_that_never_finishes_its_body_is_sent_away():
    async with house(body_seconds=0.1, linger_seconds=0.05) as place:
        slow = await place.connect()
        slow.send(b'POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{"key":')
        assert (await slow.answer()).error[:2] == (408, 4)
        assert await slow.is_closed()
        assert place.service.calls == []


@on_both_loops
async def test_an_idle_connection_is_closed():
    async with house(idle_seconds=0.1) as place:
        connection = await place.connect()
        connection.send(PUT)
        assert (await connection.answer()).status == 200
        connection.send(b"POST /v3/kv/p")
        assert await connection.is_closed()


@on_both_loops
async def test_a_client_that_leaves_in_the_middle_of_its_body_asks_nothing():
    async with house() as place:
        connection = await place.connect()
        connection.send(b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{}")
        await until(lambda: place.counters.connections_accepted == 1)
        connection.close()
        await until(lambda: place.counters.connections_open == 0)
        assert place.service.calls == []


@on_both_loops
async def test_a_reply_for_a_client_that_left_is_dropped():
    async with house() as place:
        place.service.held = []
        connection = await place.connect()
        connection.send(PUT)
        await until(lambda: place.service.held)
        connection.close()
        await until(lambda: place.counters.connections_open == 0)
        place.service.held[0]()
        assert place.counters.surprises == 0


@on_both_loops
async def test_one_connection_too_many_is_refused_and_there_is_room_again_later():
    async with house(max_connections=2) as place:
        first, second = await place.connect(), await place.connect()
        first.send(PUT)
        assert (await first.answer()).status == 200
        await until(lambda: place.counters.connections_open == 2)
        third = await place.connect()
        assert (await third.answer()).error == (503, 14, "too many connections")
        assert await third.is_closed()
        first.close()
        second.close()
        await until(lambda: place.counters.connections_open == 0)
        assert (await place.ask(PUT)).status == 200
        assert place.counters.connections_refused == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
        b"NOT HTTP AT ALL\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 40_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(500)) + b"\r\n",
    ],
)
@on_both_loops
async def test_what_is_not_http_is_400_and_no_noise(raw, caplog):
    async with house() as place:
        assert (await place.ask(raw)).status == 400
        assert place.counters.malformed == 1
        assert [record for record in caplog.records if record.levelno > logging.INFO] == []


@on_both_loops
async def test_http2_is_refused_in_words():
    async with house() as place:
        answer = await place.ask(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        assert answer.status == 505
        assert "HTTP/2" in answer.json["message"]


def fill(service, count, value=b"v"):
    service.items = {
        b"%06d" % n: KeyValue(b"%06d" % n, n + 1, n + 1, 1, value) for n in range(count)
    }


ALL = post("/v3/kv/range", b'{"key":"AA==","range_end":"AA=="}')


@on_both_loops
async def test_a_big_answer_is_streamed_and_the_connection_goes_on():
    async with house() as place:
        fill(place.service, 3000)
        connection = await place.connect()
        connection.send(ALL + GET)
        answer = await connection.answer()
        assert answer.headers["transfer-encoding"] == "chunked"
        assert len(answer.json["kvs"]) == 3000
        assert (await connection.answer()).status == 200
        connection.send(request("GET", "/v1/kv/0000?prefix"))
        assert (await connection.answer()).json["count"] == 100


@on_both_loops
async def test_a_client_that_takes_nothing_of_its_answer_is_dropped_and_others_notice_nothing():
    async with house(stall_seconds=0.2) as place:
        fill(place.service, 300, bytes(256 * KIB))
        stuck = await place.connect()
        stuck.writer.transport.pause_reading()
        stuck.send(ALL)
        await until(lambda: place.counters.requests == 1)
        assert (await place.ask(PUT)).status == 200
        await until(lambda: place.counters.connections_open == 0)
        stuck.writer.transport.resume_reading()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await stuck.answer()
        stuck.close()


# --- Streams --------------------------------------------------------------------------------------

WATCH = b'{"create_request":{"key":"YQ=="}}'


async def open_watch(place, raw=None):
    connection = await place.connect()
    connection.send(raw or post("/v3/watch", WATCH))
    head = await connection.head()
    assert (head.status, head.headers["transfer-encoding"]) == (200, "chunked")
    created = json.loads(await connection.chunk())["result"]
    assert created["created"] is True
    return connection, place.service.watches[-1]


@on_both_loops
async def test_each_watch_message_is_a_line_and_a_chunk_of_its_own():
    async with house() as place:
        connection, watch = await open_watch(place)
        for revision in range(5, 30):
            watch.event(b"a", b"x", revision)
        for revision in range(5, 30):
            line = await connection.chunk()
            assert line.endswith(b"}\n")
            (event,) = json.loads(line)["result"]["events"]
            assert event["kv"]["mod_revision"] == str(revision)
        assert place.counters.streams_open == 1
        connection.close()
        await until(lambda: watch.closed)


@on_both_loops
async def test_a_watch_takes_requests_while_its_body_is_open():
    async with house() as place:
        raw = b"POST /v3beta/watch HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection, watch = await open_watch(place, raw + b"%x\r\n%b\r\n" % (len(WATCH), WATCH))
        connection.send(b'1a\r\n{"create_request":{"watch_\r\n')
        connection.send(b'9\r\nid":"7"}}\r\n')
        assert json.loads(await connection.chunk())["result"]["watch_id"] == "7"
        connection.close()
        await until(lambda: watch.closed)


@on_both_loops
async def test_a_watch_without_requests_is_silent():
    async with house() as place:
        connection = await place.connect()
        connection.send(post("/v3/watch", b""))
        await until(lambda: place.service.watches)
        connection.close()
        await until(lambda: place.service.watches[0].closed)


@on_both_loops
async def test_a_slow_watcher_is_owed_its_events_and_nothing_is_queued_for_it():
    async with house() as place:
        connection, watch = await open_watch(place)
        connection.writer.transport.pause_reading()
        watch.at_once = 1
        for revision in range(400):
            watch.event(b"a", bytes(64 * KIB), revision + 5)
        await asyncio.sleep(0.2)
        assert len(watch.waiting) > 100
        assert (await place.ask(PUT)).status == 200
        connection.writer.transport.resume_reading()
        for revision in range(400):
            (event,) = json.loads(await connection.chunk())["result"]["events"]
            assert event["kv"]["mod_revision"] == str(revision + 5)
        connection.close()


@on_both_loops
async def test_an_error_before_the_first_message_has_a_status_and_one_after_it_a_line():
    async with house() as place:
        place.service.fails_with = ErrorKind.NO_LEADER.error()
        answer = await place.ask(post("/v3/watch", WATCH))
        assert (answer.status, answer.json["error"]["grpc_code"]) == (503, 14)
        answer = await place.ask(post("/v3/lease/keepalive", b'{"ID":"5"}'))
        assert (answer.status, answer.json["error"]["message"]) == (503, "etcdserver: no leader")
        place.service.fails_with = None
        connection, watch = await open_watch(place, post("/v3/watch", WATCH, "Grpc-Timeout: 100m"))
        error = json.loads(await connection.chunk())["error"]
        assert (error["grpc_code"], error["message"]) == (4, "context deadline exceeded")
        assert await connection.chunk() == b""
        assert watch.closed


@on_both_loops
async def test_keep_alive_answers_line_by_line_and_ends_with_its_body():
    async with house() as place:
        connection = await place.connect()
        connection.send(post("/v3/lease/keepalive", b'{"ID":"5"} {"ID":6}'))
        await connection.head()
        lines = [json.loads(chunk)["result"]["ID"] async for chunk in connection.chunks()]
        assert lines == ["5", "6"]
        connection.send(post("/v3/lease/keepalive", b""))
        answer = await connection.answer()
        assert (answer.status, answer.body) == (200, b"")


# --- The end --------------------------------------------------------------------------------------


@on_both_loops
async def test_a_stop_finishes_what_is_under_way_and_takes_nothing_new():
    async with house() as place:
        idle, busy, waiting = [await place.connect() for _ in range(3)]
        idle.send(PUT)
        await idle.answer()
        waiting.send(b"POST /v3")
        place.service.held = []
        busy.send(PUT)
        watching, watch = await open_watch(place)
        await until(lambda: place.service.held)
        stopped = asyncio.create_task(place.door.stop(2.0))
        assert await waiting.is_closed()
        error = json.loads(await watching.chunk())["error"]
        assert error["message"] == "etcdserver: server stopped"
        assert watch.closed
        with pytest.raises(OSError, match="Connect"):
            await place.connect()
        place.service.held[0]()
        answer = await busy.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        await stopped
        assert await idle.is_closed()
        assert await busy.is_closed()


@on_both_loops
async def test_a_stop_does_not_wait_longer_than_its_grace():
    async with house() as place:
        place.service.held = []
        connection = await place.connect()
        connection.send(PUT)
        await until(lambda: place.service.held)
        async with asyncio.timeout(WAIT_SECONDS):
            await place.door.stop(0.0)
        assert await connection.is_closed()
