"""The lean lane answers as aiohttp's lane does, and is as hard to wear down."""

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.api.access import Access
from kvstore.api.lean.connection import AHEAD_BYTES_MAX, BURST_REQUESTS_MAX
from kvstore.types import KeyValue
from tests.e2e.front_door import KIB, house, on_both_loops, post, request, until

NO_LEAN_LANE = Access(hosts="localhost")
"""Where it matters who asks, aiohttp serves everybody."""

PUT = post("/v3/kv/put", b'{"key":"YQ==","value":"Yg=="}')
GET = post("/v3/kv/range", b'{"key":"YQ=="}')
REQUESTS = [
    PUT,
    GET,
    post("/v3/kv/range", b'{"key":"AA==","range_end":"AA=="}', "Accept: */*"),
    post("/v3beta/kv/put", b'{"key":"Yg==","value":"' + b"YWJj" * 8000 + b'"}'),
    post("/v3/kv/deleterange", b'{"key":"YQ==","prev_kv":true}', "Authorization: t"),
    post("/v3/kv/txn", b'{"success":[{"request_put":{"key":"Yw==","value":"Yw=="}}]}'),
    post("/v3/kv/range", b"{"),
    post("/v3/kv/put", b""),
    post("/v3/kv/put", b'{"key":"YQ=="}', "Grpc-Timeout: 5S"),
    post("/v3/lease/keepalive", b'{"ID":"7"}'),
    post("/v3/lease/keepalive", b'{"ID":7}'),
    post("/v3/lease/keepalive", b'{"ID":"7"}{"ID":8}'),
    post("/v3/lease/keepalive", b'{"ID":"07"}'),
    post("/v3/lease/keepalive", b'{"ID":"7","ID":"8"}'),
    post("/v3/lease/keepalive", b'{"ID":-7}'),
    post("/v3/lease/keepalive", b"{}"),
    post("/v3/lease/timetolive", b'{"ID":7}', "X-Unheard-Of: 1"),
    request("GET", "/v1/kv/a"),
    request("PUT", "/v1/kv/a", b"value"),
    request("GET", "/version"),
    request("POST", "/v3/kv/nothing", b"{}"),
]
LEAN_ONLY_DIFFERS_IN = {"date", "content-length", "transfer-encoding"}
"""A single keep-alive's answer is whole there, where a stream's comes in chunks."""


async def conversation(access, pieces, count):
    async with house(access) as place:
        connection = await place.connect()
        for piece in pieces:
            connection.send(piece)
            await connection.writer.drain()
            await asyncio.sleep(0)
        answers = []
        for _ in range(count):
            answer = await connection.answer()
            headers = {
                name: text
                for name, text in answer.headers.items()
                if name not in LEAN_ONLY_DIFFERS_IN
            }
            answers.append((answer.status, headers, answer.body))
        assert place.counters.surprises == 0
        return answers, place.service.calls, place.service.callers


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=6),
    st.lists(st.integers(1, 400), max_size=12),
)
def test_it_answers_as_the_other_lane_however_the_requests_come_in(asked, cuts):
    raw = b"".join(asked)
    pieces = []
    for cut in cuts:
        pieces.append(raw[:cut])
        raw = raw[cut:]
    pieces = [piece for piece in [*pieces, raw] if piece]
    found = asyncio.run(conversation(Access(), pieces, len(asked)))
    expected = asyncio.run(conversation(NO_LEAN_LANE, pieces, len(asked)))
    assert found[0] == expected[0]
    assert found[1] == expected[1]
    # What remains of a deadline depends on when it is looked at.
    assert [caller.token for caller in found[2]] == [caller.token for caller in expected[2]]


@on_both_loops
async def test_requests_sent_ahead_are_answered_in_order_and_others_get_their_turn_between():
    async with house() as place:
        crowd = 10 * BURST_REQUESTS_MAX
        greedy = await place.connect()
        modest = await place.connect()
        puts = [b'{"key":"%b"}' % json.dumps(f"{n:04}").encode()[1:-1] for n in range(crowd)]
        greedy.send(b"".join(post("/v3/kv/put", body) for body in puts))
        modest.send(PUT)
        for _ in range(crowd):
            assert (await greedy.answer()).status == 200
        assert (await modest.answer()).status == 200
        revisions = [call[1].key for call in place.service.calls if call[1].key != b"a"]
        assert revisions == sorted(revisions)
        assert len(revisions) == crowd


@on_both_loops
async def test_who_sends_ahead_of_a_call_that_takes_long_is_read_no_further():
    async with house() as place:
        place.service.held = []
        connection = await place.connect()
        connection.send(PUT)
        await until(lambda: place.service.held)
        give = place.service.held.pop()
        place.service.held = None
        body = b'{"key":"YQ==","value":"%b"}' % (b"YWJj" * 10_000)
        ahead = 400 * AHEAD_BYTES_MAX // len(body)
        connection.send(post("/v3/kv/put", body) * ahead)
        with pytest.raises(TimeoutError):
            # The kernel's buffers take some of it, and then no more.
            async with asyncio.timeout(0.3):
                await connection.writer.drain()
        give()
        for _ in range(ahead + 1):
            assert (await connection.answer()).status == 200


@on_both_loops
async def test_a_long_answer_waits_for_its_client_and_what_was_asked_after_it_too():
    async with house() as place:
        for number in range(2000):
            place.service.items[b"%04d" % number] = record(b"%04d" % number, 4 * KIB)
        connection = await place.connect()
        connection.send(post("/v3/kv/range", b'{"key":"AA==","range_end":"AA=="}') + GET)
        await until(lambda: place.service.calls)
        await asyncio.sleep(0.05)
        # Nothing of eight megabytes was taken: the next call has not begun.
        assert [name for name, _ in place.service.calls] == ["range"]
        assert len((await connection.answer()).json["kvs"]) == 2000
        assert "kvs" not in (await connection.answer()).json


@on_both_loops
async def test_who_takes_nothing_of_a_long_answer_is_cut_off():
    async with house(stall_seconds=0.2) as place:
        for number in range(4000):
            place.service.items[b"%04d" % number] = record(b"%04d" % number, 4 * KIB)
        connection = await place.connect()
        connection.send(post("/v3/kv/range", b'{"key":"AA==","range_end":"AA=="}'))
        await until(lambda: place.counters.connections_open == 0)
        assert place.counters.surprises == 0


@on_both_loops
async def test_a_mistake_of_our_own_is_an_internal_error_here_too(caplog):
    async with house() as place:
        connection = await place.connect()
        place.service.items = None
        connection.send(GET)
        assert (await connection.answer()).status == 500
        place.service.items = {}
        connection.send(GET)
        assert (await connection.answer()).status == 200
        assert place.counters.surprises == 1
    assert "mistake" in caplog.text


@on_both_loops
async def test_the_metrics_count_lean_calls_as_any_other():
    async with house() as place:
        connection = await place.connect()
        connection.send(PUT + post("/v3/kv/range", b"{"))
        for _ in range(2):
            await connection.answer()
        assert place.counters.requests == 2
        assert place.counters.answers == {200: 1, 400: 1}


def record(key, size):
    return KeyValue(key, 1, 1, 1, bytes(size))
