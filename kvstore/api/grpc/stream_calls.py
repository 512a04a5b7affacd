"""The streaming calls: watch, keep-alive, snapshot, observe and the range in pieces.

As in etcd: a client that has said all ends a keep-alive stream after its last answer, but not a
watch, which ends with the call.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeVar

from kvstore.api.answer import Outcome, Reply
from kvstore.api.backend import Service, WatchFeed
from kvstore.api.grpc.calls import Exchange, Streaming
from kvstore.api.grpc.decode import Malformed, decode
from kvstore.api.grpc.encode import encode, encode_sliced, is_big
from kvstore.api.grpc.events import encode_event, encode_head
from kvstore.api.grpc.fast import decode_keep_alive
from kvstore.api.grpc.prepared import Prepared
from kvstore.api.grpc.table import RPCS
from kvstore.api.shared_events import SharedEvents
from kvstore.api.v3_json.table import Row, Shape
from kvstore.budget import Budget
from kvstore.errors import Code, KvError
from kvstore.service.caller import Caller
from kvstore.types import RangeStreamResponse, Record, WatchRequest, WatchResponse

R = TypeVar("R", bound=Record)

EVENTS_AT_ONCE: Final = 256
"""Events, or responses without any, encoded before others get a turn."""

WATCH_REQUESTS_AT_ONCE: Final = 32
"""Requests of a watch stream that are taken before others get a turn; a window holds thousands."""

KEEP_ALIVES_MAX: Final = 256
"""Keep-alives of one stream that are under way; no more are read from it meanwhile."""

ANSWER_BYTES: Final = 64 * 1024
"""What is kept free for an answer that is not of many records."""

_Failure = KvError | ConnectionError


class Streams:
    """The streaming calls of one service.

    Args:
        service: what is asked.
        prepared: encodes for this member.
        watch_bytes_max: bytes of events that a stream encodes at a time.
        new_budget: makes the budget of a slice of work.
    """

    def __init__(
        self,
        service: Service,
        prepared: Prepared,
        watch_bytes_max: int,
        new_budget: Callable[[], Budget],
    ) -> None:
        self._service = service
        self._prepared = prepared
        self._watch_bytes_max = watch_bytes_max
        self._new_budget = new_budget
        self._shared = SharedEvents(encode_event)

    def by_path(self) -> dict[str, Streaming]:
        """All streaming calls."""
        both_ways: dict[str, Streaming] = {
            "open_watch": self.watch,
            "lease_keep_alive": self.keep_alive,
        }
        calls: dict[str, Streaming] = {}
        for path, row in RPCS.items():
            if row.shape is Shape.BOTH_WAYS:
                calls[path] = both_ways[row.method]
            elif row.shape is Shape.SERVER_STREAM:
                calls[path] = partial(self._answers, row)
        return calls

    # --- watch ------------------------------------------------------------------------------------

    async def watch(self, exchange: Exchange, caller: Caller) -> None:
        """Carry requests to a watch stream and its responses back, until the call ends."""
        ready = asyncio.Event()
        feed = self._service.open_watch(caller, ready.set)
        reader = asyncio.create_task(_read_watch_requests(exchange, feed, ready))
        reader.add_done_callback(lambda _: ready.set())
        try:
            budget = self._new_budget()
            while True:
                # What the client cannot take yet stays in the feed, which shares it with others.
                size = await exchange.claim(self._watch_bytes_max)
                ready.clear()
                budget.renew()
                responses = feed.take(budget, size)
                if responses:
                    exchange.write(await self._messages(responses))
                    responses.clear()
                    # A client that reads as fast as we write must not keep the loop to itself.
                    await asyncio.sleep(0)
                elif reader.done() and (failure := reader.result()) is not None:
                    raise failure
                else:
                    exchange.waive()
                    await ready.wait()
        finally:
            feed.close()
            await _end(reader)

    async def _messages(self, responses: list[WatchResponse]) -> list[bytes]:
        messages: list[bytes] = []
        encode_shared = self._shared.encode
        encoded = 0
        for response in responses:
            parts = [encode_head(self._prepared, response)]
            events = response.events
            for start in range(0, max(len(events), 1), EVENTS_AT_ONCE):
                batch = events[start : start + EVENTS_AT_ONCE]
                parts += [encode_shared(event) for event in batch]
                encoded += max(len(batch), 1)
                if encoded >= EVENTS_AT_ONCE:
                    encoded = 0
                    await asyncio.sleep(0)
            messages.append(b"".join(parts))
        return messages

    # --- keep-alive -------------------------------------------------------------------------------

    async def keep_alive(self, exchange: Exchange, caller: Caller) -> None:
        """Answer each LeaseKeepAliveRequest, in order, until the client has said all.

        None waits for the one before it, except with its answer.
        """
        await self._led(caller, self._keep_alive(exchange, caller))

    async def _keep_alive(self, exchange: Exchange, caller: Caller) -> None:
        line = _Line(KEEP_ALIVES_MAX)
        reader = asyncio.create_task(self._read_keep_alives(exchange, caller, line))
        reader.add_done_callback(lambda _: line.stirred.set())
        try:
            while True:
                line.stirred.clear()
                outcomes = line.take()
                if outcomes:
                    await self._send_keep_alives(exchange, outcomes)
                elif reader.done() and line.is_empty:
                    if (failure := reader.result()) is not None:
                        raise failure
                    return
                else:
                    await line.stirred.wait()
        finally:
            await _end(reader)

    async def _read_keep_alives(
        self, exchange: Exchange, caller: Caller, line: "_Line"
    ) -> _Failure | None:
        """Ask for each as it comes; returns when there are no more, or why it reads no more."""
        try:
            while (data := await exchange.receive()) is not None:
                request = decode_keep_alive(data)
                await line.room()
                self._service.lease_keep_alive(request, caller, line.place())
        except Malformed as error:
            return _as_received(error)
        except (KvError, ConnectionError) as error:
            return error
        return None

    async def _send_keep_alives(self, exchange: Exchange, outcomes: list[Outcome]) -> None:
        messages: list[bytes] = []
        failure: KvError | None = None
        for outcome in outcomes:
            if isinstance(outcome, KvError):
                failure = outcome
                break
            messages.append(self._prepared.keep_alive(outcome))
        if messages:
            await exchange.send(messages)
        if failure is not None:
            raise failure

    # --- one request, many answers ----------------------------------------------------------------

    async def _answers(self, row: Row, exchange: Exchange, caller: Caller) -> None:
        await self._led(caller, self._send_answers(row, exchange, caller))

    async def _send_answers(self, row: Row, exchange: Exchange, caller: Caller) -> None:
        """Send all that the service says to one request."""
        request = await only_request(row.request, exchange)
        answers: AsyncGenerator[Record, None] = getattr(self._service, row.method)(request, caller)
        async with contextlib.aclosing(answers):
            while True:
                # The next one may be long in coming: nothing is kept for it until it is there.
                await exchange.claim(ANSWER_BYTES)
                exchange.waive()
                answer = await anext(answers, None)
                if answer is None:
                    return
                size = _size_of(answer)
                await exchange.claim(size, size)
                exchange.write([await self._encoded(answer)])
                # Whoever has much to say, to a client that takes it all, must let others in.
                await asyncio.sleep(0)

    async def _encoded(self, answer: Record) -> bytes:
        if not is_big(answer):
            return encode(answer)
        budget = self._new_budget()
        work = encode_sliced(answer, budget)
        while True:
            budget.renew()
            try:
                next(work)
            except StopIteration as stop:
                encoded: bytes = stop.value
                return encoded
            await asyncio.sleep(0)

    async def _led(self, caller: Caller, conversation: Coroutine[Any, Any, None]) -> None:
        """Hold a conversation, as long as there is a leader if its caller wants one.

        Raises:
            KvError: NO_LEADER: there has been none for too long; or what ends the conversation.
        """
        if not caller.has_leader:
            await conversation
            return
        lost: asyncio.Future[KvError] = asyncio.get_running_loop().create_future()

        def lose(error: KvError) -> None:
            if not lost.done():
                lost.set_result(error)

        task: asyncio.Future[Any] = asyncio.ensure_future(conversation)
        leave = self._service.when_leaderless(lose)
        try:
            await asyncio.wait({task, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise lost.result()
            task.result()
        finally:
            leave()
            await _end(task)


async def only_request(message: type[R], exchange: Exchange) -> R:
    """The request of a call that has one.

    Raises:
        KvError: it is no such message, or there is none.
    """
    data = await exchange.receive()
    if data is None:
        raise KvError(Code.INTERNAL, "kvstore: the call ended without its request")
    try:
        return decode(message, data)
    except Malformed as error:
        raise _as_received(error) from None


def _size_of(answer: Record) -> int:
    """About how long an answer is going to be; bytes."""
    ranged = answer.range_response if isinstance(answer, RangeStreamResponse) else None
    records = [] if ranged is None else ranged.kvs
    return ANSWER_BYTES + sum([len(record.key) + len(record.value) for record in records])


def _as_received(error: Malformed) -> KvError:
    """How gRPC's servers say of a stream that a message is none."""
    return KvError(Code.INTERNAL, f"grpc: failed to unmarshal the received message: {error.words}")


async def _read_watch_requests(
    exchange: Exchange, feed: WatchFeed, ready: asyncio.Event
) -> _Failure | None:
    """Hand requests over until there are no more, or one is refused: that ends the stream."""
    taken = 0
    try:
        while (data := await exchange.receive()) is not None:
            feed.request(decode(WatchRequest, data))
            ready.set()
            taken += 1
            if not taken % WATCH_REQUESTS_AT_ONCE:
                await asyncio.sleep(0)
    except Malformed as error:
        return _as_received(error)
    except (KvError, ConnectionError) as error:
        return error
    return None


async def _end(task: "asyncio.Future[Any]") -> None:
    """End a task of ours, and whatever it was doing."""
    if not task.done():
        task.cancel()
        await asyncio.wait([task])


class _Line:
    """Answers in the order of their questions, whichever order they come in.

    Args:
        places_max: questions that may be open, or answered and not taken.
    """

    __slots__ = ("_places", "_places_max", "_roomy", "stirred")

    def __init__(self, places_max: int) -> None:
        self._places: deque[list[Outcome]] = deque()
        self._places_max = places_max
        self._roomy = asyncio.Event()
        self.stirred = asyncio.Event()
        """Set when the first in the line is answered."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is open, and nothing is to be taken."""
        return not self._places

    async def room(self) -> None:
        """Wait until there is a place."""
        while len(self._places) >= self._places_max:
            self._roomy.clear()
            await self._roomy.wait()

    def place(self) -> Reply:
        """The next place: call it with the answer."""
        place: list[Outcome] = []
        self._places.append(place)

        def reply(outcome: Outcome) -> None:
            place.append(outcome)
            if self._places and self._places[0] is place:
                self.stirred.set()

        return reply

    def take(self) -> list[Outcome]:
        """The answers whose turn it is."""
        taken: list[Outcome] = []
        places = self._places
        while places and places[0]:
            taken += places.popleft()
        if taken:
            self._roomy.set()
        return taken
