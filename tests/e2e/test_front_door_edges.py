"""The front door where HTTP itself is odd: old versions, broken framing, closed sockets."""

import asyncio
import json

import pytest

from tests.e2e.front_door import house, on_both_loops, post, request, until

pytestmark = pytest.mark.e2e

CHUNKED = b"Host: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@on_both_loops
async def test_a_body_whose_chunks_are_broken_is_refused_and_nothing_is_done():
    async with house(linger_seconds=0.05) as place:
        connection = await place.connect()
        connection.send(b"PUT /v1/kv/a HTTP/1.1\r\n" + CHUNKED + b"5\r\nhel")
        await until(lambda: place.counters.requests == 1)
        connection.send(b"lo\r\nnot a size\r\n")
        answer = await connection.answer()
        assert answer.status == 400
        assert "malformed" in answer.json["message"]
        assert await connection.is_closed()
        assert place.service.calls == []


@on_both_loops
async def test_http10_streams_end_with_their_connection():
    async with house() as place:
        raw = post("/v3/lease/keepalive", b'{"ID":"5"}{"ID":"6"}').replace(b"/1.1", b"/1.0")
        answer = await place.ask(raw)
        assert "transfer-encoding" not in answer.headers
        assert answer.headers["connection"] == "close"
        lines = [json.loads(line)["result"]["ID"] for line in answer.body.splitlines()]
        assert lines == ["5", "6"]


@on_both_loops
async def test_a_stream_asks_for_the_body_that_is_held_back():
    async with house() as place:
        connection = await place.connect()
        body = b'{"ID":"5"}'
        raw = post("/v3/lease/keepalive", body, "Expect: 100-continue")
        connection.send(raw.removesuffix(body))
        assert (await connection.head()).status == 100
        connection.send(body)
        answer = await connection.answer()
        assert json.loads(answer.body)["result"]["ID"] == "5"


@on_both_loops
async def test_a_keep_alive_whose_body_breaks_off_ends_and_leaves_nothing_behind():
    async with house() as place:
        connection = await place.connect()
        connection.send(b"POST /v3/lease/keepalive HTTP/1.1\r\n" + CHUNKED)
        connection.send(b'a\r\n{"ID":"5"}\r\n')
        await connection.head()
        assert json.loads(await connection.chunk())["result"]["ID"] == "5"
        connection.send(b"zz\r\n")
        await until(lambda: place.counters.streams_open == 0)


@on_both_loops
async def test_no_stream_begins_while_the_server_stops():
    async with house() as place:
        place.service.held = []
        connection = await place.connect()
        put = post("/v3/kv/put", b'{"key":"YQ=="}')
        connection.send(put)
        await until(lambda: place.service.held)
        late = await place.connect()
        late.send(put)
        await until(lambda: len(place.service.held) == 2)
        # Both requests are under way; the second connection has a stream waiting behind it.
        late.send(post("/v3/watch", b"{}"))
        stopped = asyncio.create_task(place.door.stop(2.0))
        await asyncio.sleep(0)
        for give in place.service.held:
            give()
        for asked in (connection, late):
            answer = await asked.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert await asked.is_closed()
        await stopped
        assert place.service.watches == []


@on_both_loops
async def test_a_connection_asked_to_end_ends():
    async with house() as place:
        connection = await place.connect()
        connection.send(request("GET", "/version", None, "Connection: close"))
        answer = await connection.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await connection.is_closed()


@on_both_loops
async def test_many_clients_at_once_get_their_own_answers():
    async with house() as place:

        async def one(number):
            connection = await place.connect()
            for turn in range(5):
                value = b"%d of %d" % (turn, number)
                connection.send(request("PUT", f"/v1/kv/k{number}", value))
                assert (await connection.answer()).status in (200, 201)
                connection.send(request("GET", f"/v1/kv/k{number}"))
                assert (await connection.answer()).body == value

        await asyncio.gather(*[one(number) for number in range(40)])
        assert place.counters.connections_open == 40
