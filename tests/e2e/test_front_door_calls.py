"""The front door: calls that wait, streams of one request, plain paths, and who may ask."""

import asyncio
import json
import logging
import re

import pytest

from kvstore.api.access import Access
from kvstore.types import KeyValue
from tests.e2e.front_door import WAIT_SECONDS, house, on_both_loops, post, request, until

pytestmark = pytest.mark.e2e

TOO_LATE = (504, 4, "context deadline exceeded")

LOCK = post("/v3/lock/lock", b'{"name":"YQ=="}')
PUT = post("/v3/kv/put", b'{"key":"YQ==","value":"Yg=="}')

# --- Calls that wait ------------------------------------------------------------------------------


@on_both_loops
async def test_a_lock_is_answered_when_it_is_there_and_the_connection_goes_on():
    async with house() as place:
        place.service.held = []
        connection = await place.connect()
        connection.send(LOCK)
        await until(lambda: place.service.held)
        place.service.held.pop()()
        assert (await connection.answer()).json["key"] == "YS80ZA=="
        place.service.held = None
        connection.send(PUT)
        assert (await connection.answer()).status == 200
        assert place.service.left == []


@pytest.mark.parametrize("behind", [b"", PUT, PUT * 3])
@pytest.mark.parametrize("path", ["lock/lock", "election/campaign"])
@on_both_loops
async def test_who_waits_and_goes_away_lets_go(path, behind):
    async with house() as place:
        connection = await place.connect()
        connection.send(PUT)
        assert (await connection.answer()).status == 200
        place.service.held = []
        # What is pipelined behind it waits, and is never asked.
        connection.send(post(f"/v3/{path}", b'{"name":"YQ=="}') + behind)
        await until(lambda: place.service.held)
        connection.close()
        await until(lambda: place.service.left == [path.split("/")[1]])
        place.service.held[0]()
        assert len(place.service.calls) == 2
        assert place.counters.surprises == 0


@on_both_loops
async def test_who_waits_no_longer_than_so_lets_go_and_is_told():
    async with house() as place:
        place.service.held = []
        got = await place.ask(post("/v3/lock/lock", b"{}", "Grpc-Timeout: 20m"))
        assert got.error == TOO_LATE
        assert place.service.left == ["lock"]


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (post("/v3/kv/put", b'{"key":"YQ=="}', "Grpc-Timeout: 1n"), TOO_LATE),
        (post("/v3/watch", b"{}", "Grpc-Timeout: -1S"), TOO_LATE),
        (request("PUT", "/v1/kv/a", b"", "Grpc-Timeout: 1n"), TOO_LATE),
        (post("/v3/kv/put", b"{", "Grpc-Timeout: 1n"), (400, 3, "unexpected EOF")),
    ],
)
@on_both_loops
async def test_who_waits_no_more_is_told_so_and_nothing_is_done(raw, error):
    async with house() as place:
        assert (await place.ask(raw)).error == error
        assert (place.service.calls, place.service.watches) == ([], [])


@on_both_loops
async def test_a_stop_sends_those_away_who_wait():
    async with house() as place:
        place.service.held = []
        connection = await place.connect()
        connection.send(LOCK)
        await until(lambda: place.service.held)
        async with asyncio.timeout(WAIT_SECONDS):
            stopped = asyncio.create_task(place.door.stop(10.0))
            assert (await connection.answer()).error == (503, 14, "etcdserver: server stopped")
            await stopped
        assert place.service.left == ["lock"]


@pytest.mark.parametrize(
    ("version", "code"), [(b"3.5", None), (b"3.\xff", 3), ("ä".encode(), None)]
)
@on_both_loops
async def test_the_version_of_a_clients_api_is_text(version, code):
    async with house() as place:
        raw = PUT.replace(
            b"Host: ", b"Grpc-Metadata-Client-Api-Version: " + version + b"\r\nHost: "
        )
        body = (await place.ask(raw)).json
        assert body.get("code") == code
        if code is not None:
            assert body["message"] == "etcdserver: invalid client api version"


# --- Streams of one request -----------------------------------------------------------------------


@on_both_loops
async def test_observe_sends_each_leader_on_a_line_of_its_own():
    async with house() as place:
        connection = await place.connect()
        connection.send(post("/v3/election/observe", b'{"name":"ZQ=="}'))
        assert (await connection.head()).headers["transfer-encoding"] == "chunked"
        lines = [chunk async for chunk in connection.chunks()]
        assert all(line.endswith(b"}\n") for line in lines)
        assert [json.loads(line)["result"]["kv"]["value"] for line in lines] == ["b25l", "dHdv"]
        ((name, asked),) = place.service.calls
        assert (name, asked.name) == ("observe", b"e")
        connection.send(PUT)
        assert (await connection.answer()).status == 200


@on_both_loops
async def test_observe_is_over_when_its_client_hangs_up():
    async with house() as place:
        place.service.held = []
        connection = await place.connect()
        connection.send(post("/v3/election/observe", b"{}"))
        await connection.head()
        await connection.chunk()
        assert place.service.left == []
        connection.close()
        await until(lambda: place.service.left == ["observe"])


@on_both_loops
async def test_observe_needs_no_end_of_its_body():
    async with house() as place:
        connection = await place.connect()
        connection.send(
            b"POST /v3/election/observe HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            b'2\r\n{"\r\n'
        )
        await until(lambda: place.counters.requests == 1)
        connection.send(b'd\r\nname":"ZQ=="} \r\n')
        await connection.head()
        assert b"result" in await connection.chunk()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"null", "proto: unexpected token null"),
        (b"[]", "proto: unexpected token ["),
        (b'{"name":"ZQ=="', "unexpected EOF"),
        (b'{"name":5}', "proto: invalid value for bytes field name: 5"),
    ],
)
@on_both_loops
async def test_a_request_that_cannot_be_read_is_refused_before_the_stream_opens(body, words):
    async with house() as place:
        answer = await place.ask(post("/v3/election/observe", body))
        assert answer.error == (400, 3, words)
        assert place.service.calls == []


@on_both_loops
async def test_a_snapshot_is_a_line_a_chunk():
    async with house() as place:
        for body in (b"", b"{}"):
            answer = await place.ask(post("/v3/maintenance/snapshot", body))
            lines = [json.loads(line)["result"] for line in answer.body.splitlines()]
            assert [line.get("remaining_bytes") for line in lines] == ["2", "1", None]
            assert [line["blob"] for line in lines] == ["Ag==", "AQ==", "AA=="]
            assert answer.status == 200


# --- Plain paths ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "status", "body"),
    [
        (request("GET", "/livez"), 200, b"ok\n"),
        (request("GET", "/readyz"), 200, b"ok\n"),
        (request("GET", "/livez?verbose"), 200, b"[+]serializable_read ok\nok\n"),
        (request("GET", "/readyz/non_learner?verbose"), 200, b"[+]non_learner ok\nok\n"),
        (request("GET", "/readyz/nothing"), 404, b"404 page not found\n"),
        (request("GET", "/readyz/"), 404, b"404 page not found\n"),
        (request("GET", "/livez/non_learner"), 404, b"404 page not found\n"),
        (request("POST", "/livez", b""), 405, b"Method Not Allowed\n"),
        (request("GET", "/debug/vars"), 200, b'{"version":"3.7.1","metrics":{"up":1.0}}'),
        (request("PUT", "/debug/vars", b""), 405, b"Method Not Allowed\n"),
    ],
)
@on_both_loops
async def test_plain_paths(raw, status, body):
    async with house() as place:
        answer = await place.ask(raw)
        assert (answer.status, answer.body) == (status, body)


@pytest.mark.parametrize("path", ["/health", "/version", "/livez", "/readyz/non_learner"])
@on_both_loops
async def test_a_head_is_not_a_get_where_etcd_says_so(path):
    async with house() as place:
        connection = await place.connect()
        connection.send(request("HEAD", path))
        answer = await connection.answer("HEAD")
        assert (answer.status, answer.headers["allow"]) == (405, "GET")
        connection.send(request("HEAD", "/metrics"))
        assert (await connection.answer("HEAD")).status == 200


@on_both_loops
async def test_the_document_of_the_api_is_served():
    async with house() as place:
        answer = await place.ask(request("GET", "/openapi.json"))
        assert answer.headers["content-type"] == "application/json"
        assert answer.json["openapi"].startswith("3.1")
        assert answer.json["info"]["version"] == "3.7.1"


@on_both_loops
async def test_the_urls_of_metrics_serve_those_and_health_and_nothing_else():
    async with house() as place:
        await place.door.start([], ["http://localhost:0"])
        place.port = place.door.addresses[1][1]
        for path in ("/metrics", "/health", "/livez", "/readyz", "/readyz/data_corruption"):
            assert (await place.ask(request("GET", path))).status == 200
        for raw in (PUT, request("GET", "/version"), request("GET", "/openapi.json")):
            assert (await place.ask(raw)).status == 404
        assert place.service.calls == []


@on_both_loops
async def test_a_mistake_of_our_own_is_counted_at_the_urls_of_metrics_too(caplog):
    async with house() as place:
        await place.door.start([], ["http://localhost:0"])
        place.port = place.door.addresses[1][1]
        place.service.failing = None
        with caplog.at_level(logging.CRITICAL, "kvstore.api"):
            got = await place.ask(request("GET", "/livez"))
        assert got.error == (500, 13, "kvstore: internal error")
        assert place.counters.surprises == 1
        assert (await place.ask(request("GET", "/metrics"))).status == 200


# --- Who may ask ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("db.local", 200),
        ("DB.local:2379", 200),
        ("[::1]:2379", 200),
        ("evil.example", 421),
        ("[::2", 421),
        ("", 421),
    ],
)
@on_both_loops
async def test_only_names_on_the_list_are_answered(host, status):
    async with house(Access(hosts="db.local, ::1")) as place:
        raw = re.sub(rb"Host: \S*", f"Host: {host}".encode(), PUT)
        answer = await place.ask(raw)
        assert answer.status == status
        if status == 421:
            assert b"--host-whitelist" in answer.body
            assert place.service.calls == []


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [("http://a.example", "http://a.example"), ("http://b.example", None), (None, None)],
)
@on_both_loops
async def test_only_pages_on_the_list_may_read(origin, allowed):
    async with house(Access(origins="http://a.example,http://c.example")) as place:
        place.service.items = {b"%d" % n: KeyValue(b"%d" % n, 1, 1, 1, b"v") for n in range(1000)}
        lines = () if origin is None else (f"Origin: {origin}",)
        body = b'{"key":"AA==","range_end":"AA=="}'
        for raw in (
            post("/v3/kv/put", b"{}", *lines),
            post("/v3/kv/range", body, *lines),
            post("/v3/election/observe", b"{}", *lines),
            request("GET", "/version", None, *lines),
            request("OPTIONS", "/v3/kv/put", None, *lines),
        ):
            answer = await place.ask(raw)
            assert answer.headers.get("access-control-allow-origin") == allowed
            assert ("access-control-allow-methods" in answer.headers) is (allowed is not None)
