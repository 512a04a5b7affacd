"""What if the nodes were apart? A relay that hands on every byte, each of them later.

``python -m bench.relay 12530:12480 12630:12580 --delay-ms 2`` listens on the first port of each
pair (loopback only) and connects to the second. Bytes go on in their order, in both directions,
each ``delay-ms`` after it came; so does the end of a direction. There is no limit of bandwidth
below what the processor can carry; what is on its way is bounded, and a sender waits when it is
more than that. Connections themselves are made at once. SIGTERM ends it.

Standard output says ``ready`` when all ports listen.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
import signal
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import click

HOST: Final = "127.0.0.1"
HELD_BYTES_MAX: Final = 8 << 20
"""On its way in one direction of a connection: 2 ms at 4 GB/s, which no node here sends."""
CONNECTIONS_MAX: Final = 400
"""select() cannot watch more than 1,024 sockets, and each connection has two."""
BACKLOG: Final = 128


class Timers(Protocol):
    """What of an event loop a lane needs."""

    def time(self) -> float:
        """Seconds on a clock that never goes back."""
        ...

    def call_at(self, when: float, callback: Callable[[], object], /) -> object:
        """Call it then."""
        ...


class Lane:
    """One direction of a connection: takes from ``source``, gives to ``target`` later."""

    def __init__(
        self,
        timers: Timers,
        delay_seconds: float,
        source: asyncio.Transport,
        target: asyncio.Transport,
    ) -> None:
        self._timers = timers
        self._delay_seconds = delay_seconds
        self._source = source
        self._target = target
        self._held: deque[tuple[float, bytes]] = deque()
        self._held_bytes = 0
        self._end_at: float | None = None
        self._blocked = False
        self._source_paused = False
        self._timer_set = False
        self.ended = False
        """Everything has been handed on, the end as well."""
        self.on_end: Callable[[], None] = _nothing
        """Called once when it has ended."""

    def take(self, data: bytes) -> None:
        """These bytes came in now."""
        if self.ended:
            return  # Both sockets are about to be closed: the other end is gone.
        self._held.append((self._timers.time() + self._delay_seconds, data))
        self._held_bytes += len(data)
        if self._held_bytes > HELD_BYTES_MAX and not self._source_paused:
            self._source_paused = True
            self._source.pause_reading()
        self._set_timer()

    def take_end(self) -> None:
        """No more will come."""
        if self._end_at is None:
            self._end_at = self._timers.time() + self._delay_seconds
            self._set_timer()

    def block(self) -> None:
        """The target takes no more for now."""
        self._blocked = True

    def unblock(self) -> None:
        """The target takes again."""
        self._blocked = False
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer_set or self._blocked or self.ended:
            return
        when = self._held[0][0] if self._held else self._end_at
        if when is not None:
            self._timer_set = True
            self._timers.call_at(when, self._hand_on)

    def _hand_on(self) -> None:
        """Give on whatever is due, in one piece."""
        self._timer_set = False
        now = self._timers.time()
        due: list[bytes] = []
        while self._held and self._held[0][0] <= now:
            due.append(self._held.popleft()[1])
        if due:
            data = due[0] if len(due) == 1 else b"".join(due)
            self._held_bytes -= len(data)
            if not self._target.is_closing():
                self._target.write(data)  # May call block().
        if self._source_paused and self._held_bytes <= HELD_BYTES_MAX // 2:
            self._source_paused = False
            self._source.resume_reading()
        if not self._held and self._end_at is not None and self._end_at <= now:
            self.ended = True
            if not self._target.is_closing():
                self._target.write_eof()
            self.on_end()
        self._set_timer()


def _nothing() -> None:
    """Nobody wants to know."""


class End(asyncio.Protocol):
    """One of the two sockets of a connection: what it reads goes to ``out``."""

    def __init__(self) -> None:
        self.out: Lane | None = None
        self.back: Lane | None = None

    def join(self, out: Lane, back: Lane) -> None:
        """Both lanes are there now."""
        self.out, self.back = out, back

    def data_received(self, data: bytes) -> None:
        assert self.out is not None, "it does not read before it is joined"
        self.out.take(data)

    def eof_received(self) -> bool:
        if self.out is not None:
            self.out.take_end()
        return True  # The other direction goes on.

    def connection_lost(self, exc: Exception | None) -> None:
        # Whoever is gone neither says more nor hears more.
        del exc
        for lane in (self.out, self.back):
            if lane is not None:
                lane.take_end()
                lane.unblock()

    def pause_writing(self) -> None:
        if self.back is not None:
            self.back.block()

    def resume_writing(self) -> None:
        if self.back is not None:
            self.back.unblock()


class Door(End):
    """A connection that came in: connects to the target before it reads."""

    def __init__(self, target_port: int, delay_seconds: float, open_doors: set[Door]) -> None:
        super().__init__()
        self._target_port = target_port
        self._delay_seconds = delay_seconds
        self._open_doors = open_doors
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if len(self._open_doors) >= CONNECTIONS_MAX:
            transport.abort()
            return
        self._open_doors.add(self)
        transport.pause_reading()
        self._connecting = asyncio.get_running_loop().create_task(self._connect(transport))

    def connection_lost(self, exc: Exception | None) -> None:
        self._open_doors.discard(self)
        super().connection_lost(exc)

    async def _connect(self, near: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        try:
            far, other = await loop.create_connection(End, HOST, self._target_port)
        except OSError:
            near.abort()  # As if nobody listened here either.
            return
        join(loop, self._delay_seconds, (near, self), (far, other))
        if near.is_closing():
            far.abort()
            return
        near.resume_reading()


def join(
    timers: Timers,
    delay_seconds: float,
    near: tuple[asyncio.Transport, End],
    far: tuple[asyncio.Transport, End],
) -> None:
    """Make two sockets one connection; both are closed when both directions have ended."""
    there = Lane(timers, delay_seconds, near[0], far[0])
    back = Lane(timers, delay_seconds, far[0], near[0])

    def close() -> None:
        if there.ended and back.ended:
            near[0].close()
            far[0].close()

    there.on_end = back.on_end = close
    near[1].join(there, back)
    far[1].join(back, there)


async def relay(pairs: Sequence[tuple[int, int]], delay_seconds: float) -> None:
    """Relay between these pairs of ports until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    doors: set[Door] = set()
    servers = [
        await loop.create_server(
            functools.partial(Door, target, delay_seconds, doors),
            HOST,
            listen,
            backlog=BACKLOG,
        )
        for listen, target in pairs
    ]
    print("ready", flush=True)
    await stop.wait()
    for server in servers:
        server.close()


def parse_pair(text: str) -> tuple[int, int]:
    """``12530:12480`` as two ports.

    Raises:
        click.BadParameter: It is something else.
    """
    listen, _, target = text.partition(":")
    if not (listen.isdigit() and target.isdigit()):
        raise click.BadParameter(f"{text!r} is not LISTEN:TARGET, two ports")
    return int(listen), int(target)


def _exact_loop() -> asyncio.AbstractEventLoop:
    """A loop whose timers are exact to the microsecond.

    epoll's timeouts are whole milliseconds, and so are uvloop's timers: 2 ms would be up to 3.
    select() knows microseconds, and with so few sockets it costs no more.
    """
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


@click.command()
@click.argument("pairs", nargs=-1, required=True, metavar="LISTEN:TARGET...")
@click.option("--delay-ms", type=click.FloatRange(0, 10_000), default=2.0, show_default=True)
def main(pairs: tuple[str, ...], delay_ms: float) -> None:
    """Hand on what comes to each LISTEN port of this machine to TARGET, so much later."""
    parsed = [parse_pair(text) for text in pairs]
    with asyncio.Runner(loop_factory=_exact_loop) as runner:
        runner.run(relay(parsed, delay_ms / 1000))


if __name__ == "__main__":
    main()
