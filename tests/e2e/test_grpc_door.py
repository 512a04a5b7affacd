"""gRPC on a real port, beside HTTP/1, asked by the clients of others."""

import asyncio
import contextlib
import re
import shutil

import grpc
import pytest

from kvstore.api.grpc.frames import PREFACE, SETTINGS, frame
from kvstore.service.caller import Caller
from tests.e2e.front_door import house, on_both_loops, post, until
from tests.kvstore.api.grpc.peers import Table, prefixed

pytestmark = pytest.mark.e2e

SECONDS = 10.0


def needs(program):
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


async def run(*command):
    """What a program says; it must end well."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(60.0):
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


@contextlib.asynccontextmanager
async def served(**limits):
    """A house that serves a table of calls over gRPC."""
    table = Table()
    async with house(grpc=table, **limits) as place:
        yield place, table


class Stub:
    """grpcio's client: blocking calls, each in a thread, so that the server's loop is free."""

    def __init__(self, port, **options):
        pairs = [("grpc.enable_retries", 0), *options.items()]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", pairs)

    async def unary(self, path, message, **arguments):
        call = self.channel.unary_unary(path)
        return await asyncio.to_thread(call, message, timeout=SECONDS, **arguments)

    async def stream(self, path, messages, **arguments):
        call = self.channel.stream_stream(path)
        arguments.setdefault("timeout", SECONDS)
        return await asyncio.to_thread(lambda: list(call(iter(messages), **arguments)))

    async def error(self, work):
        with pytest.raises(grpc.RpcError) as raised:
            await work
        return raised.value.code(), raised.value.details()


@contextlib.asynccontextmanager
async def stub(place, **options):
    client = Stub(place.port, **options)
    try:
        yield client
    finally:
        await asyncio.to_thread(client.channel.close)


@on_both_loops
async def test_both_kinds_of_http_on_one_port():
    async with served() as (place, _), stub(place) as client:
        assert (await place.ask(post("/v3/kv/range", b'{"key":"YQ=="}'))).status == 200
        assert await client.unary("/a.B/Echo", b"hello") == b"hello"
        assert place.counters.connections_open >= 1
        assert place.counters.http2.connections_open == 1


@on_both_loops
async def test_grpcios_client_makes_calls_of_every_kind():
    async with served() as (place, table), stub(place) as client:
        assert await client.unary("/a.B/Echo", b"") == b""
        messages = [b"%d" % number for number in range(200)]
        assert await client.stream("/a.B/Chat", messages) == messages
        counted = await client.stream("/a.B/Count", [b"500"])
        assert counted[::2] == [b"%d" % number for number in range(500)]
        assert await client.stream("/a.B/Collect", messages) == [b"".join(messages)]
        metadata = [("token", "secret"), ("hasleader", "true")]
        await client.unary("/a.B/Echo", b"x", metadata=metadata)
        caller = table.callers[-1]
        assert caller == Caller("secret", caller.timeout_seconds, has_leader=True)
        assert 0 < caller.timeout_seconds < SECONDS + 1


@on_both_loops
async def test_grpcios_client_understands_errors():
    async with served() as (place, _), stub(place) as client:
        words = "größer als 100 %\n"
        assert await client.error(client.unary("/a.B/Fail", words.encode())) == (
            grpc.StatusCode.NOT_FOUND,
            words,
        )
        assert await client.error(client.unary("/a.B/None", b"")) == (
            grpc.StatusCode.UNIMPLEMENTED,
            "unknown method None for service a.B",
        )
        refused = grpc.StatusCode.PERMISSION_DENIED, "not for you"
        assert await client.error(client.stream("/a.B/Refuse", [])) == refused
        assert await client.error(client.stream("/a.B/Refuse", [b"x"])) == refused


@on_both_loops
async def test_large_messages_both_ways():
    options = {"grpc.max_receive_message_length": -1}
    async with served(max_request_bytes=8 * 2**20) as (place, _), stub(place, **options) as client:
        large = bytes(range(256)) * 32 * 1024
        answers = await asyncio.gather(*(client.unary("/a.B/Echo", large) for _ in range(4)))
        assert [answer == large for answer in answers] == [True] * 4
        assert await client.stream("/a.B/Collect", [large, b"x", large]) == [large + b"x" + large]
        code, words = await client.error(client.unary("/a.B/Echo", bytes(9 * 2**20)))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert words.startswith("grpc: received message larger than max (9437184 vs. ")


@on_both_loops
async def test_gzip_from_grpcio():
    async with served() as (place, _), stub(place) as client:
        message = b"compressible" * 1000
        compression = grpc.Compression.Gzip
        assert await client.unary("/a.B/Echo", message, compression=compression) == message
        deflated = client.unary("/a.B/Echo", message, compression=grpc.Compression.Deflate)
        code, words = await client.error(deflated)
        assert code is grpc.StatusCode.UNIMPLEMENTED
        assert "deflate" in words


@on_both_loops
async def test_small_windows_hold_nobody_up():
    options = {"grpc.http2.lookahead_bytes": 1024, "grpc.http2.bdp_probe": 0}
    async with served() as (place, _), stub(place, **options) as client:
        assert await client.unary("/a.B/Big", b"3000000") == bytes(3_000_000)
        counted = await client.stream("/a.B/Count", [b"3000"])
        assert len(counted) == 6000


@on_both_loops
async def test_a_call_that_is_cancelled_is_left():
    async with served() as (place, table), stub(place) as client:
        future = client.channel.unary_unary("/a.B/Later").future(b"mine")
        await until(lambda: table.replies)
        future.cancel()
        await until(lambda: table.left == [b"mine"])
        call = client.channel.stream_stream("/a.B/Hang")(iter([b"x"]))
        await until(lambda: place.counters.streams_open == 1)
        call.cancel()
        await until(lambda: table.ended == ["CancelledError"])
        assert place.counters.http2.client_resets == 2


@on_both_loops
async def test_a_deadline_that_passes():
    async with served() as (place, table), stub(place) as client:
        code, _ = await client.error(client.stream("/a.B/Hang", [b"x"], timeout=0.2))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: table.ended == ["CancelledError"])


@on_both_loops
async def test_a_server_that_stops_says_so():
    async with served() as (place, _), stub(place) as client:
        hanging = asyncio.ensure_future(client.error(client.stream("/a.B/Hang", [b"x"])))
        await until(lambda: place.counters.streams_open == 1)
        await place.door.stop(2.0)
        stopped = grpc.StatusCode.UNAVAILABLE, "etcdserver: server stopped"
        assert await hanging == stopped
        await until(lambda: place.counters.connections_open == 0)


@on_both_loops
async def test_pings_too_often_are_told_off():
    async with served(keepalive_min_seconds=5.0) as (place, _):
        connection = await place.connect()
        connection.send(PREFACE + frame(SETTINGS, 0, 0) + frame(6, 0, 0, bytes(8)) * 4)
        raw = await connection.reader.read()
        assert b"too_many_pings" in raw
        assert place.counters.http2.floods == 1


@on_both_loops
async def test_urls_for_http_alone_leave_the_others_to_grpc():
    async with served() as (place, _):
        await place.door.start(["http://localhost:0"], (), ["http://localhost:0"])
        (_, both), (_, grpc_port), (_, http_port) = place.door.addresses
        place.port = grpc_port
        async with stub(place) as client:
            assert await client.unary("/a.B/Echo", b"hello") == b"hello"
        refused = await place.ask(post("/v3/kv/range", b"{}"))
        assert refused.status == 421
        assert "--listen-client-http-urls" in refused.json["message"]
        place.port = http_port
        assert (await place.ask(post("/v3/kv/range", b'{"key":"YQ=="}'))).status == 200
        assert (await place.ask(PREFACE)).status == 505
        assert both


@on_both_loops
async def test_connections_of_both_kinds_count_together():
    async with served(max_connections=1) as (place, _):
        first = await place.connect()
        first.send(PREFACE + frame(SETTINGS, 0, 0))
        await until(lambda: place.counters.http2.connections_open == 1)
        assert (await place.ask(post("/v3/kv/range", b"{}"))).status == 503
        first.close()
        await until(lambda: place.counters.connections_open == 0)
        assert (await place.ask(post("/v3/kv/range", b'{"key":"YQ=="}'))).status == 200


@needs("nghttp")
@on_both_loops
async def test_nghttp_reads_an_answer(tmp_path):
    body = tmp_path / "body"
    body.write_bytes(prefixed(b"hello"))
    async with served() as (place, _):
        said = await run(
            "nghttp",
            "-v",
            "--data",
            str(body),
            "-H",
            "content-type: application/grpc",
            f"http://127.0.0.1:{place.port}/a.B/Echo",
        )
        assert ":status: 200" in said
        assert "grpc-status: 0" in said
        assert "recv GOAWAY" not in said


@needs("h2load")
@on_both_loops
async def test_h2load_is_served_on_many_streams(tmp_path):
    body = tmp_path / "body"
    body.write_bytes(prefixed(b"hello"))
    async with served() as (place, _):
        said = await run(
            *("h2load", "-n", "4000", "-c", "4", "-m", "100", "-d", str(body)),
            *("-H", "content-type: application/grpc"),
            f"http://127.0.0.1:{place.port}/a.B/Echo",
        )
        assert re.search(r"4000 succeeded, 0 failed, 0 errored, 0 timeout", said)
        await until(lambda: place.counters.http2.connections_open == 0)
        assert place.counters.http2.answers[0] == 4000
        assert place.counters.http2.broken_connections == 0
