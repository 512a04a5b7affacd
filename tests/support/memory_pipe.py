"""One direction of one connection in memory, and the weather in it.

As on TCP frames arrive in their order, unless there is ``Weather``: then single frames are lost,
repeated, late and overtaken on a connection that lives. Raft asks for no better network.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import msgspec

from kvstore.server.network.framed import FRAME_BYTES_MAX, UNSENT_BYTES_MAX

if TYPE_CHECKING:
    import asyncio

    from tests.support.memory_network import Wire


class Weather(msgspec.Struct, frozen=True):
    """What becomes of each frame in one direction, by chance.

    Attributes:
        rng: Decides.
        lost: The share that never arrives.
        repeated: The share that arrives twice.
        overtaken: The share that arrives late, behind others that were sent after it.
        late_seconds_max: How late that is, at most; also the second of two copies.
    """

    rng: random.Random
    lost: float = 0.0
    repeated: float = 0.0
    overtaken: float = 0.0
    late_seconds_max: float = 0.0

    def arrivals(self, due: float) -> list[float]:
        """When the copies of a frame arrive that would arrive at ``due``."""
        rng = self.rng
        if rng.random() < self.lost:
            return []
        if rng.random() < self.overtaken:
            due += rng.uniform(0.0, self.late_seconds_max)
        if rng.random() < self.repeated:
            return [due, due + rng.uniform(0.0, self.late_seconds_max)]
        return [due]


class Pipe:
    """One direction of one connection."""

    def __init__(self, wire: Wire, sender: int, receiver: int, on_frame: Callable[[bytes], None]):
        self._wire = wire
        self._sender = sender
        self._receiver = receiver
        self._on_frame = on_frame
        self._frames: list[tuple[float, int, bytes]] = []
        self._sent_total = 0
        self._last_due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.unsent_bytes = 0

    def send(self, frame: bytes) -> bool:
        if self.unsent_bytes > UNSENT_BYTES_MAX or len(frame) > FRAME_BYTES_MAX:
            return False
        wire = self._wire
        self._last_due = max(self._last_due, wire.arrival(self._sender, self._receiver))
        weather = wire.weather.get((self._sender, self._receiver))
        if weather is None:
            self._put(self._last_due, frame)
        else:
            arrivals = weather.arrivals(self._last_due)
            wire.count_weather(arrivals)
            for due in arrivals:
                self._put(due, frame)
        self.pump()
        return True

    def _put(self, due: float, frame: bytes) -> None:
        self.unsent_bytes += len(frame)
        self._sent_total += 1
        heappush(self._frames, (due, self._sent_total, frame))
        if self._timer is not None and self._frames[0][1] == self._sent_total:
            # It overtakes what was to arrive next.
            self._timer.cancel()
            self._timer = None

    def pump(self) -> None:
        """See to it that the oldest frame arrives in its time, unless the way is cut."""
        if (
            self._timer is None
            and self._frames
            and self._wire.is_open(self._sender, self._receiver)
        ):
            self._timer = self._wire.call_at(self._frames[0][0], self._arrive)

    def _arrive(self) -> None:
        self._timer = None
        now = self._wire.loop.now
        frames = self._frames
        while frames and frames[0][0] <= now and self._wire.is_open(self._sender, self._receiver):
            frame = heappop(frames)[2]
            self.unsent_bytes -= len(frame)
            self._wire.frames_total += 1
            self._on_frame(frame)
        self.pump()

    def close(self) -> None:
        self._frames.clear()
        if self._timer is not None:
            self._timer.cancel()
