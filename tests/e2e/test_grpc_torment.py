"""Thousands of streams at a time, tiny windows, calls taken back in the middle, on real nodes."""

from __future__ import annotations

import asyncio
import re
import shutil
import struct
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from kvstore.api.grpc.encode import encode
from kvstore.types import PutRequest, RangeRequest, Record, WatchCreateRequest, WatchRequest
from tests.e2e.cluster import Cluster
from tests.e2e.processes import wait_for

pytestmark = pytest.mark.e2e

H2LOAD = shutil.which("h2load")
CALLS = 12_000
STREAMS = 3_000
VALUE_BYTES = 3_000
CANCELLED = 400
END_SECONDS = 20.0


def framed(path: Path, request: Record) -> Path:
    message = encode(request)
    path.write_bytes(struct.pack(">BI", 0, len(message)) + message)
    return path


@pytest.mark.skipif(H2LOAD is None, reason="h2load is not installed (nghttp2-client)")
@pytest.mark.parametrize("window_bits", [10, 16, 30])
def test_h2load_with_thousands_of_streams(
    calm_cluster: Cluster, tmp_path: Path, window_bits: int
) -> None:
    """A stream's window of a kilobyte lets an answer of three out in three parts."""
    assert H2LOAD is not None
    member = calm_cluster.members[1]
    with member.client() as client:
        client.put(b"torment/large", bytes(VALUE_BYTES))
    body = framed(tmp_path / "body", RangeRequest(b"torment/large"))
    refused = member.metrics()["kvstore_http2_broken_connections_total"]
    said = subprocess.run(
        [
            *(H2LOAD, f"-n{CALLS}", "-c2", f"-m{STREAMS}", f"-w{window_bits}", f"-W{window_bits}"),
            *(f"-d{body}", "-Hcontent-type: application/grpc", "-Hte: trailers"),
            f"{member.client_url}/etcdserverpb.KV/Range",
        ],
        capture_output=True,
        text=True,
        timeout=120.0,
        check=True,
    ).stdout
    assert re.search(rf"{CALLS} done, {CALLS} succeeded, 0 failed, 0 errored, 0 timeout", said), (
        said
    )
    after = member.metrics()
    assert after["kvstore_http2_broken_connections_total"] == refused
    assert after['kvstore_grpc_answers_total{code="0"}'] >= CALLS


async def test_calls_that_are_taken_back_disturb_no_others(calm_cluster: Cluster) -> None:
    """Puts that are cancelled happen, or not; watches beside them on the connection go on."""
    member = calm_cluster.members[2]
    broken = member.metrics()["kvstore_http2_broken_connections_total"]
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{member.node.client_port}")
    told: list[bytes] = []

    async def requests() -> AsyncIterator[bytes]:
        create = WatchCreateRequest(key=b"torment/last")
        yield encode(WatchRequest(create_request=create))
        await asyncio.Event().wait()

    async def listen() -> None:
        async for answer in channel.stream_stream("/etcdserverpb.Watch/Watch")(requests()):
            told.append(answer)  # noqa: PERF401 - whoever waits looks at it meanwhile

    put = channel.unary_unary("/etcdserverpb.KV/Put")
    async with asyncio.timeout(60.0):
        listening = asyncio.create_task(listen())
        calls = []
        for number in range(CANCELLED):
            calls.append(put(encode(PutRequest(b"torment/%d" % number, bytes(VALUE_BYTES)))))
            if number % 3 == 0:
                await asyncio.sleep(0)
            calls[number // 2].cancel()
        for call in calls:
            call.cancel()
        await put(encode(PutRequest(b"torment/last", b"there")))
        while not any(b"torment/last" in answer for answer in told):
            assert not listening.done(), listening.exception()
            await asyncio.sleep(0.02)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await channel.close()
    streams = "kvstore_http_streams_open"
    await asyncio.to_thread(
        wait_for, "no stream is left", lambda: not member.metrics()[streams], END_SECONDS
    )
    assert member.metrics()["kvstore_http2_broken_connections_total"] == broken
