"""Websockets over real sockets, asked by aiohttp's client: streams, calls, tokens, and ends."""

import asyncio
import contextlib
import json

import aiohttp
import pytest

from kvstore.errors import ErrorKind
from kvstore.types import Event, EventType, KeyValue, WatchResponse
from tests.e2e.front_door import KIB, WAIT_SECONDS, house, on_both_loops, request, until

pytestmark = pytest.mark.e2e

CREATE = '{"create_request":{"key":"YQ=="}}'
HANDSHAKE = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="


@contextlib.asynccontextmanager
async def socket(place, path, **options):
    async with (
        aiohttp.ClientSession(cookies=options.pop("cookies", None)) as session,
        session.ws_connect(f"http://127.0.0.1:{place.port}{path}", **options) as ws,
    ):
        yield ws


async def answer(ws):
    return json.loads(await ws.receive_str(timeout=WAIT_SECONDS))


async def ended(ws):
    """Whether the connection is closed, and no close frame came before that."""
    message = await ws.receive(timeout=WAIT_SECONDS)
    return message.type is aiohttp.WSMsgType.CLOSED and ws.close_code == 1006


@on_both_loops
async def test_a_watch_takes_requests_while_it_answers():
    async with house() as place, socket(place, "/v3/watch") as ws:
        await ws.send_str(CREATE)
        created = await answer(ws)
        assert created["result"]["created"] is True
        (watch,) = place.service.watches
        watch.event(b"a", b"1", 5)
        assert (await answer(ws))["result"]["events"][0]["kv"]["mod_revision"] == "5"
        # Further watchers on the same stream, two requests in one message among them.
        await ws.send_str('{"create_request":{"watch_id":"3"}}{"create_request":{"watch_id":4}}')
        assert [(await answer(ws))["result"]["watch_id"] for _ in range(2)] == ["3", "4"]
        await ws.send_str('{"cancelRequest":{"watchId":3}}')
        await until(lambda: len(watch.requests) == 4)
        await ws.ping()
        assert place.counters.streams_open == 1
        await ws.close()
        await until(lambda: watch.closed)


@on_both_loops
async def test_a_client_that_vanishes_takes_its_watch_with_it():
    async with house() as place:
        async with socket(place, "/v3/watch") as ws:
            await ws.send_str(CREATE)
            await answer(ws)
            ws._response.connection.transport.abort()
        await until(lambda: place.service.watches[0].closed)
        await until(lambda: place.counters.connections_open == 0)


@on_both_loops
async def test_a_unary_call_is_a_message_and_its_answer_one():
    async with house() as place:
        async with socket(place, "/v3/kv/put") as ws:
            await ws.send_str('{"key":"YQ==","value":"Yg=="}')
            assert (await answer(ws))["header"]["revision"] == "2"
            assert await ended(ws)
        async with socket(place, "/v3/kv/put") as ws:
            await ws.send_bytes(b"{}")
            assert await answer(ws) == {
                "error": "etcdserver: key is not provided",
                "message": "etcdserver: key is not provided",
                "code": 3,
            }
            assert await ended(ws)
        async with socket(place, "/v3beta/kv/range") as ws:
            await ws.send_str('{"key":')
            assert (await answer(ws))["message"] == "unexpected EOF"


@on_both_loops
async def test_a_big_answer_is_one_message():
    async with house() as place:
        place.service.items = {
            b"%06d" % n: KeyValue(b"%06d" % n, n + 1, n + 1, 1, b"v") for n in range(3000)
        }
        async with socket(place, "/v3/kv/range") as ws:
            await ws.send_str('{"key":"AA==","range_end":"AA=="}')
            assert len((await answer(ws))["kvs"]) == 3000


@on_both_loops
async def test_a_response_with_many_events_is_one_message():
    async with house() as place, socket(place, "/v3/watch") as ws:
        await ws.send_str(CREATE)
        await answer(ws)
        items = [KeyValue(b"%d" % n, 5, 5, 1, b"v") for n in range(1000)]
        events = [Event(EventType.PUT, item) for item in items]
        place.service.watches[0].push(WatchResponse(place.service.header(), events=events))
        assert len((await answer(ws))["result"]["events"]) == 1000


@on_both_loops
async def test_a_path_that_is_none_says_so_in_a_message():
    async with house() as place, socket(place, "/v3/kv/nothing") as ws:
        assert (await answer(ws))["code"] == 5
        assert await ended(ws)


@pytest.mark.parametrize(
    ("options", "token"),
    [
        ({"protocols": ("Bearer", "t1")}, "t1"),
        ({"cookies": {"token": "t2"}}, "t2"),
        ({"protocols": ("Bearer", "t1"), "cookies": {"token": "t2"}}, "t2"),
        ({"headers": {"Authorization": "Bearer t3"}}, "t3"),
        ({}, None),
    ],
)
@on_both_loops
async def test_a_browser_brings_its_token_as_protocol_or_cookie(options, token):
    async with house() as place, socket(place, "/v3/kv/put", **dict(options)) as ws:
        assert ws.protocol == ("Bearer" if "protocols" in options else None)
        await ws.send_str('{"key":"YQ=="}')
        await answer(ws)
        assert place.service.callers[0].token == token


@on_both_loops
async def test_a_lock_whose_socket_is_closed_is_let_go_of():
    async with house() as place:
        place.service.held = []
        async with socket(place, "/v3/lock/lock") as ws:
            await ws.send_str('{"name":"YQ=="}')
            await until(lambda: place.service.held)
            await ws.ping()
            # What comes after the request is nothing that anybody asked for.
            for _ in range(100):
                await ws.send_str("{}")
            assert place.service.left == []
            await ws.close()
        await until(lambda: place.service.left == ["lock"])
        place.service.held[0]()


@on_both_loops
async def test_a_stream_of_one_request_ends_by_itself_or_with_its_socket():
    async with house() as place:
        async with socket(place, "/v3/election/observe") as ws:
            await ws.send_str('{"name":"ZQ=="}')
            values = [(await answer(ws))["result"]["kv"]["value"] for _ in range(2)]
            assert values == ["b25l", "dHdv"]
            assert await ended(ws)
        place.service.held = []
        async with socket(place, "/v3/election/observe") as ws:
            await ws.send_str("{}")
            await answer(ws)
            assert place.service.left == ["observe"]
        await until(lambda: place.service.left == ["observe", "observe"])


@on_both_loops
async def test_errors_of_streams_are_messages_too():
    async with house() as place:
        async with socket(place, "/v3/election/observe") as ws:
            await ws.send_str('{"name":5}')
            assert (await answer(ws))["code"] == 3
            assert await ended(ws)
        place.service.fails_with = ErrorKind.NO_LEADER.error()
        async with socket(place, "/v3/watch") as ws:
            assert (await answer(ws))["error"]["grpc_code"] == 14
            assert await ended(ws)


@on_both_loops
async def test_a_timeout_ends_a_socket_with_an_error():
    async with house() as place:
        async with socket(place, "/v3/watch", headers={"Grpc-Timeout": "30m"}) as ws:
            assert (await answer(ws))["error"]["code"] == 4
        place.service.held = []
        async with socket(place, "/v3/lock/lock", headers={"Grpc-Timeout": "30m"}) as ws:
            await ws.send_str("{}")
            assert (await answer(ws))["code"] == 4
            assert place.service.left == ["lock"]
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError, match="400"):
                await session.ws_connect(
                    f"http://127.0.0.1:{place.port}/v3/watch", headers={"Grpc-Timeout": "x"}
                )


@on_both_loops
async def test_a_message_may_be_so_long_and_no_longer():
    async with house(max_request_bytes=1 * KIB, linger_seconds=0.05) as place:
        async with socket(place, "/v3/kv/put") as ws:
            await ws.send_str('{"key":"YQ==","value":"' + "A" * 4096 + '"}')
            assert (await answer(ws))["header"]["revision"] == "2"
        async with socket(place, "/v3/kv/put") as ws:
            await ws.send_str('{"key":"YQ==","value":"' + "A" * 1024 * KIB + '"}')
            message = await ws.receive(timeout=WAIT_SECONDS)
            assert (message.type, ws.close_code) == (aiohttp.WSMsgType.CLOSE, 1009)
        assert len(place.service.calls) == 1


@on_both_loops
async def test_nothing_is_taken_for_a_socket_that_does_not_read():
    async with house() as place, socket(place, "/v3/watch") as ws:
        await ws.send_str(CREATE)
        await answer(ws)
        (watch,) = place.service.watches
        watch.at_once = 1
        ws._response.connection.transport.pause_reading()
        for revision in range(200):
            watch.event(b"a", bytes(128 * KIB), revision + 5)
        left = -1
        async with asyncio.timeout(WAIT_SECONDS):
            while left != len(watch.waiting):
                left = len(watch.waiting)
                await asyncio.sleep(0.05)
        assert left > 100
        ws._response.connection.transport.resume_reading()
        for _ in range(200):
            await answer(ws)
        assert watch.waiting == []


@on_both_loops
async def test_a_write_that_is_under_way_is_answered_before_the_stop():
    async with house() as place, socket(place, "/v3/kv/put") as ws:
        place.service.held = []
        await ws.send_str('{"key":"YQ=="}')
        await until(lambda: place.service.held)
        stopped = asyncio.create_task(place.door.stop(2.0))
        await asyncio.sleep(0.05)
        # Nobody is told that a write did not happen which may yet happen.
        place.service.held[0]()
        assert (await answer(ws))["header"]["revision"] == "2"
        await stopped


@pytest.mark.parametrize("missing", [0, 1, 2, 3])
@on_both_loops
async def test_a_handshake_that_lacks_something_opens_nothing(missing):
    async with house() as place:
        lines = [line for number, line in enumerate((*HANDSHAKE, KEY)) if number != missing]
        got = await place.ask(request("GET", "/v3/watch", None, *lines))
        assert got.status == (501 if missing == 0 else 400)
        assert place.service.watches == []


@on_both_loops
async def test_a_stop_is_told_and_ends_all_sockets():
    async with house() as place:
        place.service.held = []
        async with (
            socket(place, "/v3/watch") as watching,
            socket(place, "/v3/lock/lock") as locking,
        ):
            await watching.send_str(CREATE)
            await answer(watching)
            await locking.send_str("{}")
            await until(lambda: place.service.held)
            stopped = asyncio.create_task(place.door.stop(2.0))
            assert (await answer(watching))["error"]["message"] == "etcdserver: server stopped"
            assert (await answer(locking))["message"] == "etcdserver: server stopped"
            assert await ended(watching)
            assert await ended(locking)
            await stopped
        assert place.service.left == ["lock"]
