"""The streaming calls: watch, keep-alive, snapshot and observe, one JSON object a line.

As etcd's gateway has them: the end of the body ends a keep-alive stream after its last answer, but
not a watch, which ends with the connection. A body that is not a sequence of requests is read no
further; what it asked for until there goes on.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from kvstore.api.backend import Service, WatchFeed
from kvstore.api.exchange import Exchange
from kvstore.api.shared_events import SharedEvents
from kvstore.api.v3_json.decode import decode
from kvstore.api.v3_json.encode import encode, encode_header, encode_key_value, encode_slices
from kvstore.api.v3_json.sequence import JsonSequence
from kvstore.api.v3_json.table import PREFIXES, STREAMS, Row, Shape
from kvstore.api.wait import Waiter
from kvstore.budget import Budget
from kvstore.errors import KvError
from kvstore.service.caller import Caller
from kvstore.types import (
    Event,
    EventType,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    Record,
    ResponseHeader,
    WatchRequest,
    WatchResponse,
)

R = TypeVar("R", bound=Record)

Stream: TypeAlias = Callable[[Exchange, Caller], Coroutine[Any, Any, None]]
"""Carries one conversation until it ends; raises KvError to end it with an error."""

EVENTS_AT_ONCE: Final = 256
"""A response with more events than this leaves in parts."""


class StreamLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one stream may hold on to."""

    request_bytes_max: int
    """Bytes of one request object."""
    watch_bytes_max: int
    """Bytes of events encoded at a time."""


def encode_event(event: Event) -> bytes:
    """An event's JSON."""
    item = event.kv
    if item is None or event.prev_kv is not None:
        return encode(event)
    if event.type is EventType.PUT:
        return b'{"kv":%b}' % encode_key_value(item)
    return b'{"type":"DELETE","kv":%b}' % encode_key_value(item)


def encode_line(response: WatchResponse, shared: SharedEvents) -> bytes:
    """A watch response as one line of the stream."""
    events = response.events
    if not events or response.canceled or response.created or response.fragment:
        return b'{"result":%b}\n' % encode(response)
    watch_id = b'"watch_id":"%d",' % response.watch_id if response.watch_id else b""
    return b'{"result":{"header":%b,%b"events":[%b]}}\n' % (
        encode_header(response.header or ResponseHeader()),
        watch_id,
        b",".join([shared.encode(event) for event in events]),
    )


class Streams:
    """The streaming calls of one service.

    Args:
        service: what is asked.
        limits: of each stream.
        new_budget: makes the budget of a slice of work.
    """

    def __init__(
        self, service: Service, limits: StreamLimits, new_budget: Callable[[], Budget]
    ) -> None:
        self._service = service
        self._limits = limits
        self._new_budget = new_budget
        self._shared = SharedEvents(encode_event)

    def by_path(self) -> dict[str, Stream]:
        """All streaming paths."""
        streams: dict[str, Stream] = {"/watch": self.watch, "/lease/keepalive": self.keep_alive}
        for row in STREAMS:
            if row.shape is Shape.SERVER_STREAM:
                streams[row.path] = partial(self._answers, row)
        return {prefix + path: stream for prefix in PREFIXES for path, stream in streams.items()}

    async def keep_alive(self, exchange: Exchange, caller: Caller) -> None:
        """Answer each LeaseKeepAliveRequest in turn, until the body ends."""
        requests = self._requests(LeaseKeepAliveRequest, exchange)
        async with contextlib.aclosing(requests):
            async for request in requests:
                waiter = Waiter()
                self._service.lease_keep_alive(request, caller, waiter)
                outcome: LeaseKeepAliveResponse | KvError = await waiter.wait()
                if isinstance(outcome, KvError):
                    raise outcome
                await exchange.send([b'{"result":%b}\n' % encode(outcome)])

    async def watch(self, exchange: Exchange, caller: Caller) -> None:
        """Carry requests to a watch stream and its responses back, until the connection ends."""
        ready = asyncio.Event()
        feed = self._service.open_watch(caller, ready.set)
        reader = asyncio.create_task(self._read_watch_requests(exchange, feed, ready))
        reader.add_done_callback(lambda _: ready.set())
        try:
            budget = self._new_budget()
            while True:
                ready.clear()
                budget.renew()
                responses = feed.take(budget, self._limits.watch_bytes_max)
                if responses:
                    await self._send(exchange, responses)
                    # A client that reads as fast as we write must not keep the loop to itself.
                    await asyncio.sleep(0)
                elif reader.done() and (refusal := reader.result()) is not None:
                    raise refusal
                else:
                    await ready.wait()
        finally:
            feed.close()
            reader.cancel()
            await asyncio.wait([reader])

    async def _answers(self, row: Row, exchange: Exchange, caller: Caller) -> None:
        """Send all that the service says to one request."""
        request = await self._only_request(row.request, exchange)
        answers: AsyncGenerator[Record, None] = getattr(self._service, row.method)(request, caller)
        async with contextlib.aclosing(answers):
            async for answer in answers:
                await exchange.send([b'{"result":%b}\n' % encode(answer)])
                # Whoever has much to say, to a client that takes it all, must let others in.
                await asyncio.sleep(0)

    async def _only_request(self, message: type[R], exchange: Exchange) -> R:
        """The first request in a body, which need not have ended; an empty body is one as well.

        Raises:
            Malformed: it is not this message.
        """
        sequence = JsonSequence(self._limits.request_bytes_max)
        body = b""
        while not sequence.is_broken and (piece := await exchange.receive()):
            body += piece
            if texts := sequence.feed(piece):
                return decode(message, texts[0])
        return decode(message, body)

    async def _read_watch_requests(
        self, exchange: Exchange, feed: WatchFeed, ready: asyncio.Event
    ) -> KvError | None:
        """Hand requests over until there are no more, or one is refused: that ends the stream."""
        requests = self._requests(WatchRequest, exchange)
        with contextlib.suppress(ConnectionError):
            async with contextlib.aclosing(requests):
                async for request in requests:
                    try:
                        feed.request(request)
                    except KvError as refusal:
                        return refusal
                    ready.set()
        return None

    async def _requests(self, message: type[R], exchange: Exchange) -> AsyncGenerator[R, None]:
        """The requests in a body, until it ends or is not a sequence of requests any more."""
        sequence = JsonSequence(self._limits.request_bytes_max)
        while not sequence.is_broken and (piece := await exchange.receive()):
            for text in sequence.feed(piece):
                try:
                    request = decode(message, text)
                except KvError:
                    return
                yield request

    async def _send(self, exchange: Exchange, responses: list[WatchResponse]) -> None:
        lines: list[bytes] = []
        for response in responses:
            if len(response.events) <= EVENTS_AT_ONCE:
                lines.append(encode_line(response, self._shared))
                continue
            if lines:
                await exchange.send(lines)
                lines = []
            await exchange.send_part(b'{"result":', last=False)
            for part in encode_slices(response):
                await exchange.send_part(part, last=False)
                await asyncio.sleep(0)
            await exchange.send_part(b"}\n", last=True)
        if lines:
            await exchange.send(lines)
