"""How does a store get full, fast? Keys, leases and watchers by the hundred thousand.

Over HTTP/JSON through a few connections, each of which has one call under way: the same bytes for
both systems. Watchers go over gRPC, where one connection carries many; that needs grpcio, which the
development environment has.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import httptools

from bench.figures import BenchError
from bench.systems import TXN_OPS
from kvstore.api.grpc.decode import decode
from kvstore.api.grpc.encode import encode
from kvstore.types import WatchCreateRequest, WatchRequest, WatchResponse

KEY_BYTES: Final = 32
VALUE_BYTES: Final = 128
HOT_KEYS: Final = 10_000
"""wrk puts so many; the keys of a fill lie evenly between them."""
FILL_CONNECTIONS: Final = 4
LEASE_CONNECTIONS: Final = 64
LEASE_TTL_SECONDS: Final = 7_200
"""Longer than any run: none expires meanwhile."""
STEADY_CONNECTIONS: Final = 64
CALL_SECONDS_MAX: Final = 30.0
WATCHERS_PER_STREAM: Final = 10_000
WATCH_SECONDS_MAX: Final = 120.0
_VALUE: Final = base64.b64encode(b"v" * VALUE_BYTES)


class Answered(NamedTuple):
    """One put of a steady load."""

    due_at: float
    """When it was to be sent, monotonic seconds."""
    took_seconds: float
    """From then until its answer: waiting for a free connection counts."""


class _Caller(asyncio.Protocol):
    """One connection, one call at a time."""

    def __init__(self, head: bytes) -> None:
        self._head = head
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._waiting: asyncio.Future[tuple[int, bytes]] | None = None
        self._body = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(BenchError(f"the connection was lost: {exc}"))

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        waiting = self._waiting
        if waiting is not None and not waiting.done():
            waiting.set_result((self._parser.get_status_code(), bytes(self._body)))

    async def call(self, body: bytes) -> None:
        """Send one body and wait for the answer.

        Raises:
            BenchError: It is no success, or does not come.
        """
        assert self._transport is not None, "a connection is used once it is made"
        self._parser = httptools.HttpResponseParser(self)
        self._body.clear()
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(b"%sContent-Length: %d\r\n\r\n%s" % (self._head, len(body), body))
        try:
            async with asyncio.timeout(CALL_SECONDS_MAX):
                status, answer = await self._waiting
        except TimeoutError:
            raise BenchError(f"no answer within {CALL_SECONDS_MAX:.0f} s") from None
        if status != 200:
            raise BenchError(
                f"a call was refused: {status} {answer[:200].decode(errors='replace')}"
            )

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def key_of(number: int) -> bytes:
    """The 32 bytes of one key: the first 10,000 lie each behind a key of wrk's, then again."""
    return b"key-%05d/%022d" % (number % HOT_KEYS, number // HOT_KEYS)


def transactions(numbers: Iterable[int]) -> Iterator[bytes]:
    """Bodies of transactions that put these keys, a hundred at a time."""
    puts: list[bytes] = []
    for number in numbers:
        key = base64.b64encode(key_of(number))
        puts.append(b'{"request_put":{"key":"%s","value":"%s"}}' % (key, _VALUE))
        if len(puts) == TXN_OPS:
            yield b'{"success":[%s]}' % b",".join(puts)
            puts.clear()
    if puts:
        yield b'{"success":[%s]}' % b",".join(puts)


def fill(url: str, numbers: Iterable[int], connections: int = FILL_CONNECTIONS) -> int:
    """Put these keys; returns how many transactions that took.

    Raises:
        BenchError: One of them was refused.
    """
    return send_all(url, "/v3/kv/txn", transactions(numbers), connections)


def grant_leases(url: str, count: int) -> None:
    """Grant so many leases of two hours, with nothing attached.

    Raises:
        BenchError: One of them was refused.
    """
    bodies = (b'{"TTL":%d,"ID":%d}' % (LEASE_TTL_SECONDS, number + 1) for number in range(count))
    send_all(url, "/v3/lease/grant", bodies, LEASE_CONNECTIONS)


def send_all(url: str, path: str, bodies: Iterable[bytes], connections: int) -> int:
    """Post all bodies, each once; returns how many there were.

    Raises:
        BenchError: One of them was refused, or not answered.
    """
    return asyncio.run(_send_all(url, path, iter(bodies), connections))


async def _send_all(url: str, path: str, bodies: Iterator[bytes], connections: int) -> int:
    callers = await _connect(url, path, connections)
    sent = 0

    async def work(caller: _Caller) -> None:
        nonlocal sent
        for body in bodies:
            await caller.call(body)
            sent += 1

    try:
        async with asyncio.TaskGroup() as group:
            for caller in callers:
                group.create_task(work(caller))
    except* BenchError as errors:
        raise errors.exceptions[0] from None
    finally:
        for caller in callers:
            caller.close()
    return sent


def steady_puts(url: str, rate: int, seconds: float) -> list[Answered]:
    """Put so many times a second, on time, however late the answers are (an open loop).

    Raises:
        BenchError: A put was refused, or not answered.
    """
    return asyncio.run(_steady_puts(url, rate, seconds))


async def _steady_puts(url: str, rate: int, seconds: float) -> list[Answered]:
    callers = await _connect(url, "/v3/kv/put", STEADY_CONNECTIONS)
    free: asyncio.Queue[_Caller] = asyncio.Queue()
    for caller in callers:
        free.put_nowait(caller)
    answered: list[Answered] = []

    async def put(number: int, due_at: float) -> None:
        key = base64.b64encode(key_of(number % HOT_KEYS))
        caller = await free.get()
        await caller.call(b'{"key":"%s","value":"%s"}' % (key, _VALUE))
        answered.append(Answered(due_at, time.monotonic() - due_at))
        free.put_nowait(caller)

    start = time.monotonic()
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(int(rate * seconds)):
                due_at = start + number / rate
                await asyncio.sleep(max(due_at - time.monotonic(), 0))
                group.create_task(put(number, due_at))
    except* BenchError as errors:
        raise errors.exceptions[0] from None
    finally:
        for caller in callers:
            caller.close()
    return answered


async def _connect(url: str, path: str, connections: int) -> list[_Caller]:
    address = urlsplit(url)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
    ).encode()
    loop = asyncio.get_running_loop()
    callers = []
    for _ in range(connections):
        try:
            _, caller = await loop.create_connection(
                lambda: _Caller(head), address.hostname or "", address.port or 80
            )
        except OSError as error:
            raise BenchError(f"{url} takes no connection: {error}") from error
        callers.append(caller)
    return callers


@contextlib.contextmanager
def watchers(url: str, count: int) -> Iterator[None]:
    """Hold so many watchers of what nobody writes: half of one key each, half of a range each.

    They share one connection, 10,000 on a stream.

    Raises:
        BenchError: grpcio is not installed, or they could not all be created.
    """
    if count == 0:
        yield
        return
    try:
        import grpc
    except ImportError:
        raise BenchError(
            "watchers by the thousand need grpcio: run this in the development environment"
        ) from None
    created = threading.Semaphore(0)
    leaving = threading.Event()
    with grpc.insecure_channel(urlsplit(url).netloc) as channel:
        ask = channel.stream_stream("/etcdserverpb.Watch/Watch")
        threads = [
            threading.Thread(target=_hold, args=(ask, numbers, created, leaving), daemon=True)
            for numbers in _parts(count)
        ]
        for thread in threads:
            thread.start()
        try:
            deadline = time.monotonic() + WATCH_SECONDS_MAX
            for _ in range(count):
                if not created.acquire(timeout=max(deadline - time.monotonic(), 0)):
                    raise BenchError(f"{url} did not create {count:,} watchers in time")
            yield
        finally:
            leaving.set()
    for thread in threads:
        thread.join(CALL_SECONDS_MAX)


def _parts(count: int) -> list[range]:
    starts = range(0, count, WATCHERS_PER_STREAM)
    return [range(start, min(start + WATCHERS_PER_STREAM, count)) for start in starts]


def _hold(ask: Any, numbers: range, created: threading.Semaphore, leaving: threading.Event) -> None:
    """One stream: create its watchers, count them as they are confirmed, stay until the end."""

    def requests() -> Iterator[bytes]:
        for number in numbers:
            key = b"watched/%09d" % number
            range_end = key + b"~" if number % 2 else b""
            create = WatchCreateRequest(key=key, range_end=range_end)
            yield encode(WatchRequest(create_request=create))
        leaving.wait()

    # The channel is closed at the end, which ends the stream with an error that says so.
    with contextlib.suppress(Exception):
        for data in ask(requests()):
            answer = decode(WatchResponse, data)
            if answer.created and not answer.canceled:
                created.release()
