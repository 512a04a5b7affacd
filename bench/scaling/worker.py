"""What does a front worker do? All of a call but the call: connections, parsing, both encodings.

``python -m bench.scaling.worker SOCKET PORT``. It listens on the port together with other workers
(``SO_REUSEPORT``: the kernel deals out the connections), serves ``/v3/kv/range`` and ``/v3/kv/put``
with the product's own lean lane, the same two calls over gRPC with its own HTTP/2, and asks the
replica for everything that came in during one turn of its loop as one batch.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from typing import Any, Final

import msgspec
import uvloop
from aiohttp import web

from bench.figures import BenchError
from bench.scaling.wire import (
    Call,
    Failure,
    Frames,
    Hello,
    PutCall,
    RangeCall,
    decode_answers,
    decode_hello,
    frame,
)
from kvstore.api.answer import Reply
from kvstore.api.front_door import Doorway
from kvstore.api.grpc import fast as grpc_fast
from kvstore.api.grpc.calls import Unary
from kvstore.api.grpc.prepared import Prepared as GrpcPrepared
from kvstore.api.grpc.server import GrpcServer
from kvstore.api.grpc.unary_calls import UnaryCall as GrpcCall
from kvstore.api.http1 import Clock
from kvstore.api.http1_server import HttpServer
from kvstore.api.lean.server import LeanServer
from kvstore.api.limits import ApiLimits, Counters
from kvstore.api.v3_json import fast as json_fast
from kvstore.api.v3_json.prepared import Prepared as JsonPrepared
from kvstore.api.v3_json.unary import UnaryCall as JsonCall
from kvstore.errors import ErrorKind
from kvstore.run import GRACE_SECONDS, YOUNG_OBJECTS_MAX
from kvstore.server.pacing import READING_SECONDS, ClockBudget
from kvstore.service.caller import ANYBODY, Caller
from kvstore.types import PutRequest, RangeRequest

log = logging.getLogger("bench.worker")

HOST: Final = "127.0.0.1"
CALLS_MAX: Final = 20_000
"""So many calls may be at the replica at a time; more are refused, to be tried again."""
BACKLOG: Final = 1024

_UNREADABLE: Final = (BenchError, msgspec.DecodeError)


class Replica(asyncio.Protocol):
    """The replica as the lean lane sees a service: range and put, which are asked for elsewhere."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._frames = Frames()
        self._calls: list[Call] = []
        self._waiting: dict[int, Reply] = {}
        self._number = 0
        self._transport: asyncio.Transport | None = None
        self.hello: asyncio.Future[Hello] = loop.create_future()
        self.lost = asyncio.Event()

    def range(self, request: RangeRequest, caller: Caller, reply: Reply) -> None:
        number = self._number = self._number + 1
        self._ask(RangeCall(number, request, None if caller is ANYBODY else caller), reply)

    def put(self, request: PutRequest, caller: Caller, reply: Reply) -> None:
        number = self._number = self._number + 1
        self._ask(PutCall(number, request, None if caller is ANYBODY else caller), reply)

    def _ask(self, call: Call, reply: Reply) -> None:
        waiting = self._waiting
        if len(waiting) >= CALLS_MAX or self._transport is None:
            reply(ErrorKind.TOO_MANY_REQUESTS.error())
            return
        waiting[call.number] = reply
        if not self._calls:
            self._loop.call_soon(self._flush)
        self._calls.append(call)

    def _flush(self) -> None:
        calls, self._calls = self._calls, []
        if self._transport is not None:
            self._transport.write(frame(calls))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The event loop promises a stream here, and uvloop's is no subclass that could be checked.
        stream: asyncio.Transport = transport  # type: ignore[assignment]
        self._transport = stream

    def data_received(self, data: bytes) -> None:
        """Pass on each answer of each batch."""
        waiting = self._waiting
        try:
            payloads = self._frames.take(data)
            if payloads and not self.hello.done():
                self.hello.set_result(decode_hello(payloads.pop(0)))
            for payload in payloads:
                for answer in decode_answers(payload):
                    reply = waiting.pop(answer.number)
                    reply(answer.error() if isinstance(answer, Failure) else answer.response)
        except _UNREADABLE:
            log.exception("the replica sent what is no batch")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Nobody knows what became of what was asked: puts among it may have been done."""
        self._transport = None
        waiting, self._waiting = self._waiting, {}
        for reply in waiting.values():
            reply(ErrorKind.TIMEOUT_CONNECTION_LOST.unknown_outcome())
        self.lost.set()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Door:
    """The worker's own front door: the lean lane and HTTP/2, for two calls each."""

    def __init__(self, replica: Replica, hello: Hello, loop: asyncio.AbstractEventLoop) -> None:
        limits, self._counters = ApiLimits(), Counters()
        others = HttpServer(_not_here, limits, self._counters, self._count_lost)
        json = JsonPrepared(hello.cluster_id, hello.member_id)
        json_calls = {
            "/v3/kv/range": JsonCall(replica.range, json_fast.decode_range, json.range),
            "/v3/kv/put": JsonCall(replica.put, json_fast.decode_put, json.put),
        }
        self._lean = LeanServer(
            json_calls, limits, self._counters, loop, Clock(loop), others, self._count_lost
        )
        grpc = GrpcPrepared(hello.cluster_id, hello.member_id)
        get = GrpcCall(replica.range, grpc_fast.decode_range, None)
        put = GrpcCall(replica.put, grpc_fast.decode_put, None)
        self._grpc = GrpcServer(
            {
                "/etcdserverpb.KV/Range": Unary(get.begin, grpc.range),
                "/etcdserverpb.KV/Put": Unary(put.begin, grpc.put),
            },
            limits,
            self._counters,
            loop,
            self._count_lost,
            ClockBudget(loop.time, READING_SECONDS),
        )
        self.doorway = Doorway(self._lean, self._grpc, limits, self._counters, loop)

    def _count_lost(self) -> None:
        self._counters.connections_open -= 1

    async def stop(self) -> None:
        """Finish what is under way."""
        self.doorway.close()
        self._lean.drain()
        await asyncio.gather(self._lean.close(GRACE_SECONDS), self._grpc.close(GRACE_SECONDS))


async def _not_here(request: web.BaseRequest) -> web.StreamResponse:
    """All other calls: a worker of the product would serve them, or pass the connection on."""
    return web.Response(status=501, text=f"{request.path} is not served by this prototype\n")


async def serve(socket_path: str, port: int) -> int:
    """Serve until told to stop, or until the replica is gone."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    _, replica = await loop.create_unix_connection(lambda: Replica(loop), socket_path)
    door = Door(replica, await replica.hello, loop)
    listener = await loop.create_server(
        door.doorway.doorman, HOST, port, reuse_port=True, backlog=BACKLOG
    )
    _settle_collector()
    ends: list[asyncio.Future[Any]] = [
        asyncio.ensure_future(event.wait()) for event in (stop, replica.lost)
    ]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    listener.close()
    await door.stop()
    replica.close()
    return 0 if stop.is_set() else 1


def _settle_collector() -> None:
    """As a node does: what was loaded is looked at no more, and young objects seldom."""
    import gc

    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS_MAX, 20, 1_000_000)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(serve(sys.argv[1], int(sys.argv[2]))))
