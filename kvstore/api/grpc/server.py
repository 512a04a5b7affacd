"""gRPC over HTTP/2: connections on asyncio's transports, and how all of it ends."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeAlias

from kvstore.api.certificates import common_name_of
from kvstore.api.grpc.call_stream import CallStream, RefusedCall
from kvstore.api.grpc.calls import Calls, Unary
from kvstore.api.grpc.header_blocks import Field
from kvstore.api.grpc.heads import Head, Heads
from kvstore.api.grpc.http2 import Http2Connection
from kvstore.api.grpc.lifecycle import Connection
from kvstore.api.grpc.long_answers import Long, LongAnswers
from kvstore.api.grpc.streaming import StreamingCall
from kvstore.api.grpc.turns import Turns
from kvstore.api.grpc.unary import UnaryStream
from kvstore.api.limits import ApiLimits, Counters
from kvstore.budget import Budget, Rota
from kvstore.errors import Code

log = logging.getLogger("kvstore.api")

TICK_SECONDS: Final = 10.0
"""How often a connection's limits on time are looked at, unless they are shorter."""
TICK_SECONDS_MIN: Final = 0.05
DRAIN_TICK_SECONDS: Final = 1.0
WRITE_BUFFER_BYTES: Final = 256 * 1024
"""Unsent bytes of a connection beyond which nothing more is written to it, nor read from it."""

GrpcHttp2: TypeAlias = Http2Connection[Head]


class Lane:
    """What calls need of the server: its limits and counters, time, and a push to write.

    Args:
        limits: what clients may use.
        counters: what is counted.
        loop: the event loop.
        budget: for reading what clients send, in one turn of the loop.
    """

    __slots__ = (
        "_connections",
        "_counters",
        "_long_answers",
        "_soon",
        "answers",
        "call_later",
        "counters",
        "is_stopping",
        "limits",
        "message_bytes_max",
        "new_future",
        "new_task",
        "now",
        "patient",
        "streaming",
        "turns",
    )

    def __init__(
        self,
        limits: ApiLimits,
        counters: Counters,
        loop: asyncio.AbstractEventLoop,
        budget: Budget,
    ) -> None:
        self.limits = limits
        self.message_bytes_max = limits.raw_body_bytes_max
        self._counters = counters
        self.counters = counters.http2
        self.answers = counters.http2.answers
        self.now = loop.time
        self.call_later = loop.call_later
        self.new_future: Callable[[], asyncio.Future[None]] = loop.create_future
        self.new_task: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]] = loop.create_task
        self.is_stopping = False
        self.patient: dict[UnaryStream, None] = {}
        self.streaming: dict[StreamingCall, None] = {}
        self._connections: dict[Connection, GrpcProtocol] = {}
        self._soon = Rota(loop.call_soon).call_soon
        self.turns = Turns(loop.call_soon, budget)
        self._long_answers: dict[Connection, LongAnswers] = {}

    def open_stream(self, connection: GrpcHttp2, stream_id: int, head: Head) -> CallStream:
        """The stream for a call."""
        call = head.call
        if head.refusal is not None:
            return RefusedCall(self, connection, stream_id, head, head.refusal)
        if isinstance(call, Unary):
            return UnaryStream(self, connection, stream_id, head, call)
        assert call is not None, "a head without a refusal has a call"
        return StreamingCall(self, connection, stream_id, head, call)

    def add(self, connection: Connection, protocol: "GrpcProtocol") -> None:
        """A connection came."""
        self._connections[connection] = protocol

    def remove(self, connection: Connection) -> None:
        """A connection is gone."""
        del self._connections[connection]
        self._long_answers.pop(connection, None)

    @property
    def protocols(self) -> "list[GrpcProtocol]":
        """All connections."""
        return list(self._connections.values())

    def wake(self, connection: Connection) -> None:
        """Have what a connection has to say written before the turn of the loop ends."""
        if connection.is_awake:
            return
        protocol = self._connections.get(connection)
        if protocol is not None:
            protocol.wake()

    def encode_long(self, call: UnaryStream, answer: Long) -> None:
        """Encode an answer that takes a while, behind those of its connection before it."""
        of_connection = self._long_answers.get(call.connection)
        if of_connection is None:
            of_connection = self._long_answers[call.connection] = LongAnswers(self._soon)
        of_connection.add(call, answer)

    def count(self, code: Code) -> None:
        """A call is answered."""
        self.answers[code] += 1

    def count_streams(self, change: int) -> None:
        """Streaming calls began or ended."""
        self._counters.streams_open += change

    def surprise(self) -> None:
        """A call failed by a mistake of ours."""
        self._counters.surprises += 1


class GrpcServer:
    """Serves gRPC on connections that others accept.

    Args:
        calls: what there is to call.
        limits: what clients may use.
        counters: what is counted.
        loop: the event loop.
        on_lost: called when a connection is gone.
        budget: for reading what clients send, in one turn of the loop.
    """

    def __init__(
        self,
        calls: Calls,
        limits: ApiLimits,
        counters: Counters,
        loop: asyncio.AbstractEventLoop,
        on_lost: Callable[[], None],
        budget: Budget,
    ) -> None:
        self._heads = Heads(calls)
        self._loop = loop
        self._on_lost = on_lost
        self._emptied = asyncio.Event()
        self.lane = Lane(limits, counters, loop, budget)

    def __call__(self) -> "GrpcProtocol":
        """A new connection."""
        return GrpcProtocol(self.lane, self._heads, self._loop, self._lost)

    def _lost(self) -> None:
        self._on_lost()
        if not self.lane.protocols:
            self._emptied.set()

    def end_streams(self) -> None:
        """Take nothing more that lasts, and tell what does that the server stops."""
        lane = self.lane
        lane.is_stopping = True
        for protocol in lane.protocols:
            protocol.drain()
        lasting: list[StreamingCall | UnaryStream] = [*lane.streaming, *lane.patient]
        for call in lasting:
            call.stop()

    async def close(self, grace_seconds: float) -> None:
        """End streams, let what is under way end, and close.

        Args:
            grace_seconds: how long calls that are under way may go on.
        """
        self.end_streams()
        if self.lane.protocols:
            self._emptied.clear()
            try:
                async with asyncio.timeout(grace_seconds):
                    await self._emptied.wait()
            except TimeoutError:
                log.info("%d gRPC connections are cut off", len(self.lane.protocols))
        for protocol in self.lane.protocols:
            protocol.abort()


class GrpcProtocol(asyncio.Protocol):
    """One connection on a transport.

    Args:
        lane: what it shares with all others.
        heads: reads the heads of calls.
        loop: the event loop.
        on_lost: called when it is gone.
    """

    __slots__ = (
        "_common_name",
        "_connection",
        "_heads",
        "_is_ending",
        "_is_in_line",
        "_lane",
        "_lingering_size",
        "_loop",
        "_now",
        "_on_lost",
        "_paused_size",
        "_progress_at",
        "_timer",
        "_transport",
    )

    def __init__(
        self,
        lane: Lane,
        heads: Heads,
        loop: asyncio.AbstractEventLoop,
        on_lost: Callable[[], None],
    ) -> None:
        self._lane = lane
        self._heads = heads
        self._loop = loop
        self._now = loop.time
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._common_name: str | None = None
        self._is_ending = False
        """Whether all was said that ever will be."""
        self._is_in_line = False
        """Whether its turn to read on will come."""
        self._lingering_size = 0
        """What was unsent when somebody last looked, after all was said; bytes."""
        self._paused_size: int | None = None
        self._progress_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._connection: GrpcHttp2 = Http2Connection(
            self._read_head,
            lane.open_stream,
            lane.limits,
            lane.counters,
            lane.turns.is_spent,
            loop.time(),
        )

    # --- asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        # The event loop promises a stream here, and uvloop's is no subclass that could be checked.
        stream: asyncio.Transport = transport  # type: ignore[assignment]
        self._transport = stream
        self._common_name = common_name_of(transport)
        stream.set_write_buffer_limits(WRITE_BUFFER_BYTES)
        self._lane.add(self._connection, self)
        self._lane.counters.connections_open += 1
        self._flush()
        self._schedule_tick()
        if self._lane.is_stopping:
            self.drain()

    def data_received(self, data: bytes) -> None:
        """Read frames, and write what they were answered with at once."""
        connection = self._connection
        connection.is_awake = True
        connection.receive(data, self._now())
        if connection.is_behind:
            self._get_in_line()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """It is gone: whoever is asked something for it may forget it."""
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self._connection.lose()
        self._lane.remove(self._connection)
        self._lane.counters.connections_open -= 1
        self._on_lost()

    def pause_writing(self) -> None:
        """The client does not keep up: nothing more is said, and nothing more heard."""
        transport = self._transport
        now = self._now()
        self._connection.set_writable(now, is_writable=False)
        if transport is not None:
            self._paused_size = transport.get_write_buffer_size()
            self._progress_at = now
            transport.pause_reading()

    def resume_writing(self) -> None:
        """It caught up."""
        self._paused_size = None
        self._connection.set_writable(self._now(), is_writable=True)
        self._read_on()
        self.wake()

    def _read_on(self) -> None:
        """Read what is kept, or from the socket if nothing is."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._connection.is_behind:
            self._get_in_line()
        else:
            transport.resume_reading()

    def _get_in_line(self) -> None:
        """Read on when it is our turn, and nothing from the socket until then."""
        transport = self._transport
        if self._is_in_line or transport is None or transport.is_closing():
            return
        self._is_in_line = True
        transport.pause_reading()
        self._lane.turns.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._is_in_line = False
        connection = self._connection
        if self._transport is None or not connection.outbox.is_writable:
            # It is gone, or goes on once the client takes what it is told.
            return
        connection.is_awake = True
        connection.go_on(self._now())
        self._flush()
        if connection.outbox.is_writable:
            self._read_on()

    def _read_head(self, fields: list[Field]) -> Head:
        return self._heads.read(fields, self._common_name)

    # --- Out --------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Write what is to be written, when the present turn of the loop ends."""
        if not self._connection.is_awake:
            self._connection.is_awake = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        connection = self._connection
        connection.is_awake = False
        transport = self._transport
        if transport is None:
            return
        data = connection.take(self._now())
        if self._is_ending or transport.is_closing():
            return
        if data:
            transport.write(data)
        if connection.has_more:
            self.wake()
        elif connection.is_over:
            self._close()

    def _close(self) -> None:
        """All is said. The client gets time to read it: an abrupt end may take it back.

        That begins anew while it reads. When the server stops, the grace is all that there is.
        """
        transport = self._transport
        if transport is None:
            return
        self._is_ending = True
        if self._timer is not None:
            self._timer.cancel()
        self._lingering_size = transport.get_write_buffer_size()
        self._progress_at = self._now()
        self._timer = self._loop.call_later(self._lane.limits.linger_seconds, self._linger)
        if transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()

    def _linger(self) -> None:
        """Look whether the client has read on since all was said, and end it if not."""
        transport = self._transport
        if transport is None:
            return
        limits = self._lane.limits
        before, size = self._lingering_size, transport.get_write_buffer_size()
        now = self._now()
        if size < before:
            self._lingering_size = size
            self._progress_at = now
        elif (
            not size
            or self._connection.fault is not None
            or now >= self._progress_at + limits.stall_seconds
        ):
            # Who broke a rule is not waited for; nor is one who could have had all.
            self.abort()
            return
        self._timer = self._loop.call_later(limits.linger_seconds, self._linger)

    def drain(self) -> None:
        """Have the client take its next calls elsewhere."""
        self._connection.drain(self._now())
        self.wake()
        if not self._is_ending:
            self._schedule_tick(DRAIN_TICK_SECONDS)

    def abort(self) -> None:
        """End it now."""
        if self._transport is not None:
            self._transport.abort()

    # --- Time -------------------------------------------------------------------------------------

    def _schedule_tick(self, seconds: float = TICK_SECONDS) -> None:
        if self._timer is not None:
            self._timer.cancel()
        limits = self._lane.limits
        shortest = min(
            seconds,
            limits.head_seconds,
            limits.body_seconds,
            limits.stall_seconds,
            limits.idle_connection_seconds,
            limits.keepalive_interval_seconds,
            limits.keepalive_timeout_seconds,
        )
        self._timer = self._loop.call_later(max(shortest, TICK_SECONDS_MIN), self._tick)

    def _tick(self) -> None:
        now = self._now()
        if self._has_stalled(now):
            self._lane.counters.untaken += 1
            self.abort()
            return
        connection = self._connection
        connection.tick(now)
        self._schedule_tick(DRAIN_TICK_SECONDS if connection.is_draining else TICK_SECONDS)
        if not self._connection.is_awake:
            self._flush()

    def _has_stalled(self, now: float) -> bool:
        """Whether the client has taken nothing of what was written for too long."""
        before = self._paused_size
        transport = self._transport
        if before is None or transport is None:
            return False
        size = transport.get_write_buffer_size()
        if size < before:
            self._paused_size = size
            self._progress_at = now
            return False
        return now >= self._progress_at + self._lane.limits.stall_seconds
