"""How long does a server's loop stand still? A light call every millisecond, timed from outside.

kvstore counts stalls by itself (``kvstore_loop_stalls_total``), but only those of more than two
ticks, a fifth of a second. So both systems are asked ``GET /version`` over one connection, which
costs them next to nothing and needs neither disk nor agreement: what it takes beyond its usual
fraction of a millisecond is waiting for the loop, or for a core.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from bench.figures import BenchError

PROBE_SECONDS: Final = 0.001
LOOK_SECONDS: Final = 0.02
"""How often the directory of the snapshots is looked at."""
MARGIN_SECONDS: Final = 0.5
"""Before and after each change that is seen there: a snapshot is under way."""
ANSWER_SECONDS_MAX: Final = 10.0


class Probe(NamedTuple):
    """One call."""

    sent_at: float
    """Monotonic seconds."""
    took_seconds: float


class Window(NamedTuple):
    """A stretch of monotonic time."""

    start: float
    end: float


class Seen(NamedTuple):
    """What the prober saw."""

    probes: list[Probe]
    changes: list[float]
    """When the files of snapshots changed, monotonic seconds."""


def watch(url: str, data_dir: Path, seconds: float, on_first_change: Callable[[], object]) -> Seen:
    """Probe a server for so long, and note when its snapshots change on the disk.

    Args:
        url: The server.
        data_dir: Its data; the files of snapshots are ``*.snap`` there, and ``*.snap.*`` while
            they are written.
        seconds: How long.
        on_first_change: Called once, when the first snapshot begins, or at half time if none has.

    Raises:
        BenchError: The server does not answer.
    """
    address = urlsplit(url)
    request = f"GET /version HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode()
    probes: list[Probe] = []
    changes: list[float] = []
    known = _snapshots(data_dir)
    waiting = True
    start = looked = time.monotonic()
    try:
        with socket.create_connection(
            (address.hostname or "", address.port or 80), ANSWER_SECONDS_MAX
        ) as connection:
            while (now := time.monotonic()) < start + seconds:
                _ask(connection, request)
                probes.append(Probe(now, time.monotonic() - now))
                if now - looked >= LOOK_SECONDS:
                    looked = now
                    found = _snapshots(data_dir)
                    if found != known:
                        known = found
                        changes.append(now)
                if waiting and (changes or now > start + seconds / 2):
                    waiting = False
                    on_first_change()
                time.sleep(PROBE_SECONDS)
    except OSError as error:
        raise BenchError(f"{url} did not answer a probe: {error}") from error
    return Seen(probes, changes)


def windows(changes: Iterable[float], more: Iterable[Window]) -> list[Window]:
    """The stretches in which something was under way: around the changes, and ``more``, joined."""
    around = [Window(at - MARGIN_SECONDS, at + MARGIN_SECONDS) for at in changes]
    joined: list[Window] = []
    for window in sorted([*around, *more]):
        if joined and window.start <= joined[-1].end:
            joined[-1] = Window(joined[-1].start, max(joined[-1].end, window.end))
        else:
            joined.append(window)
    return joined


def split(calls: Iterable[tuple[float, float]], busy: Sequence[Window]) -> tuple[list[float], ...]:
    """How long the calls took (beginning, seconds): those outside of all windows, the others."""
    outside: list[float] = []
    inside: list[float] = []
    for start, took in calls:
        overlaps = any(start < window.end and start + took > window.start for window in busy)
        (inside if overlaps else outside).append(took)
    return outside, inside


def _ask(connection: socket.socket, request: bytes) -> None:
    connection.sendall(request)
    answer = b""
    # The body is one JSON object, and the head holds no brace.
    while not answer.rstrip().endswith(b"}"):
        data = connection.recv(65536)
        if not data:
            raise ConnectionError("it closed the connection")
        answer += data
    if not answer.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(f"it answered {answer[:40]!r}")


def _snapshots(data_dir: Path) -> frozenset[tuple[str, int]]:
    """Names and lengths of the files of snapshots."""
    found = set()
    for path in data_dir.rglob("*.snap*"):
        try:
            found.add((path.name, path.stat().st_size))
        except FileNotFoundError:
            continue  # Renamed while we look.
    return frozenset(found)
