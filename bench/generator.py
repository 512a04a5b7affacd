"""What do a fixed rate, a thousand watchers, ten thousand leases do? Runs of our own generator.

wrk sends the next call when the last one is answered, so a server that stands still is asked less
meanwhile, and its latency is flattered. The generator (``bench/generator``, in Go, because it
shares the processors with what it measures) makes calls at times that are fixed beforehand.
"""

from __future__ import annotations

import functools
import shutil
import statistics
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from bench.figures import BenchError, Series
from bench.growth import post
from bench.load import cpu_seconds

SOURCES: Final = Path(__file__).with_name("generator")
PROGRAM: Final = Path(__file__).parent / ".run" / "generator"
BUILD_SECONDS_MAX: Final = 300.0
SETUP_SECONDS_MAX: Final = 90.0
"""For what comes before and after the load: leases, watchers, the last answers."""
PUTS_OUTSTANDING: Final = 10_000
"""Puts that may be under way or wait: five seconds of them at 2,000/s."""
WATCH_OUTSTANDING: Final = 256
"""Puts that may wait while watchers are served: what is sent after the time was up is no load."""
CALL_SECONDS_MAX: Final = 10.0


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution in microseconds, known to less than 1 %."""

    count: int
    max_us: int
    percents: list[float]
    """Rising: 1 to 99, and some beyond."""
    values_us: list[int]
    """What so many percent of all did not exceed."""

    def at(self, percent: float) -> int:
        """One percentile in microseconds.

        Raises:
            BenchError: It is none of those that are kept, or nothing was measured.
        """
        if not self.count:
            raise BenchError("nothing was measured, so there is no percentile")
        try:
            return self.values_us[self.percents.index(percent)]
        except ValueError:
            raise BenchError(f"the {percent}th percentile is not kept") from None


def distribution(name: str, latencies: Sequence[Latency]) -> Series:
    """A line of a picture: milliseconds against the reciprocal of the share that takes longer.

    Percentiles that so few calls cannot have are left out: each would be the longest again.
    """
    count = min(latency.count for latency in latencies)
    percents = [percent for percent in latencies[0].percents if 100 / (100 - percent) <= count]
    each = [[latency.at(percent) / 1e3 for latency in latencies] for percent in percents]
    return Series(
        name=name,
        x=[100 / (100 - percent) for percent in percents],
        y=[statistics.median(values) for values in each],
        y_low=[min(values) for values in each],
        y_high=[max(values) for values in each],
    )


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How the calls of a load ended."""

    due: int
    """How many there were to be."""
    sent: int
    """All but those that overflowed."""
    done: int
    """Answered with status 200."""
    refused: int
    """Answered with another status."""
    broken: int
    """Their connection ended before the answer."""
    unanswered: int
    """Still under way when the time was over, and after ten seconds more at a fixed rate."""
    overflowed: int
    """Due and never sent: too many were waiting already."""

    @property
    def errors(self) -> int:
        """Everything that was due and no success."""
        return self.refused + self.broken + self.unanswered + self.overflowed


class Puts(Outcome, frozen=True, kw_only=True):
    """Puts at a fixed rate; the latency counts from when each was due."""

    elapsed_us: int
    latency: Latency
    late: Latency
    """From when a put was due to when the generator noticed: a part of the latency, and no fault of
    the server but for the processors that it kept busy."""
    own_cpu_us: int
    """What the generator itself spent."""
    cpu_us: list[int] = []
    """What the nodes spent meanwhile, in their order."""

    @property
    def rate(self) -> float:
        """Successful answers a second."""
        return self.done * 1e6 / self.elapsed_us


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """Events to the watchers of one prefix, while it is written at a fixed rate."""

    puts: Outcome
    watchers: int
    events: int
    """Delivered in all, each counted once."""
    missing: int
    """Of puts that were acknowledged: not delivered ten seconds after the last of them."""
    duplicates: int
    strange: int
    """Events whose value is that of no put."""
    ended: int
    """Watchers that the server ended."""
    elapsed_us: int
    """From the first put to the last event, and no less than the puts were to take."""
    delay: Latency
    """From sending a put to the arrival of its event."""
    own_cpu_us: int
    cpu_us: list[int] = []

    @property
    def rate(self) -> float:
        """Events delivered a second, to all watchers together."""
        return self.events * 1e6 / self.elapsed_us


class Leases(Outcome, frozen=True, kw_only=True):
    """Keep-alives as fast as they are answered. Those under way in the end are no error."""

    leases: int
    wrong: int
    """Answered with status 200, but not with the lease's time to live."""
    first_bad: str
    """The first answer that was wrong or refused."""
    elapsed_us: int
    latency: Latency
    own_cpu_us: int
    cpu_us: list[int] = []

    @property
    def rate(self) -> float:
        """Renewals a second."""
        return self.done * 1e6 / self.elapsed_us

    @property
    def errors(self) -> int:
        """Everything that was answered and no success."""
        return self.refused + self.broken + self.wrong


_Result = TypeVar("_Result", Puts, Watch, Leases)


def puts(url: str, rate: int, seconds: int, connections: int, pids: Sequence[int] = ()) -> Puts:
    """Put 256-byte values at a fixed rate.

    Args:
        url: The node to load.
        rate: Puts a second, evenly spaced.
        seconds: How long.
        connections: How many calls are under way at most.
        pids: Processes whose CPU is measured meanwhile.

    Raises:
        BenchError: The generator failed, or fewer puts were done than were acknowledged.
    """
    before = _revision(url)
    mode = [
        *("puts", f"-rate={rate}"),
        *(f"-connections={connections}", f"-outstanding={PUTS_OUTSTANDING}"),
    ]
    found = _run(Puts, mode, url, seconds, pids)
    written = _revision(url) - before
    if written < found.done:
        raise BenchError(f"{url}: {found.done} puts were acknowledged, {written} were done")
    return found


def watch(
    url: str, rate: int, seconds: int, connections: int, watchers: int, pids: Sequence[int] = ()
) -> Watch:
    """Watch a prefix and put below it.

    Args:
        url: The node that is watched and written.
        rate: Puts a second, evenly spaced.
        seconds: How long.
        connections: How many puts are under way at most.
        watchers: How many watchers of the whole prefix, each over a connection of its own.
        pids: Processes whose CPU is measured from the first put to the last event.

    Raises:
        BenchError: The generator failed.
    """
    mode = [
        *("watch", f"-rate={rate}", f"-connections={connections}"),
        *(f"-watchers={watchers}", f"-outstanding={WATCH_OUTSTANDING}"),
    ]
    return _run(Watch, mode, url, seconds, pids)


def leases(
    url: str, count: int, seconds: int, connections: int, pids: Sequence[int] = ()
) -> Leases:
    """Grant leases, if they are not there yet, and renew them in turn.

    Args:
        url: The node to load.
        count: How many leases.
        seconds: How long they are renewed.
        connections: How many calls are under way.
        pids: Processes whose CPU is measured meanwhile.

    Raises:
        BenchError: The generator failed.
    """
    mode = ["leases", f"-leases={count}", f"-connections={connections}"]
    return _run(Leases, mode, url, seconds, pids)


@functools.cache
def build() -> Path:
    """Build the generator, once a process; returns the program.

    Raises:
        BenchError: There is no Go, or it does not build.
    """
    go = shutil.which("go")
    if go is None:
        raise BenchError(
            "Go is not installed, and the generator needs it: apt-get install golang-go"
        )
    PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    try:
        answer = subprocess.run(
            [go, "build", "-o", str(PROGRAM), "."],
            cwd=SOURCES,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"go build has not ended after {BUILD_SECONDS_MAX:.0f} s") from error
    if answer.returncode != 0:
        raise BenchError(f"the generator does not build: {answer.stderr.strip()}")
    return PROGRAM


def parse(text: str, kind: type[_Result]) -> _Result:
    """Read what the generator prints after START.

    Raises:
        BenchError: It is not a result of this kind.
    """
    for line in text.splitlines():
        if line.startswith("RESULT "):
            try:
                return msgspec.json.decode(line.removeprefix("RESULT "), type=kind)
            except msgspec.DecodeError as error:
                raise BenchError(f"the generator printed something else: {error}") from error
    raise BenchError(f"the generator printed no result: {text[:200]!r}")


def _run(
    kind: type[_Result], mode: Sequence[str], url: str, seconds: int, pids: Sequence[int]
) -> _Result:
    command = [str(build()), *mode, f"-address={urlsplit(url).netloc}", f"-seconds={seconds}"]
    spent = Spent(pids)
    text = _talk(command, seconds + SETUP_SECONDS_MAX, spent.begin, spent.end)
    return msgspec.structs.replace(parse(text, kind), cpu_us=spent.each_us)


class Spent:
    """What each of some processes spends between two moments."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = list(pids)
        self._before: list[float] = []
        self.each_us: list[int] = []

    def begin(self) -> None:
        self._before = self._now()

    def end(self) -> None:
        pairs = zip(self._now(), self._before, strict=True)
        self.each_us = [round((after - before) * 1e6) for after, before in pairs]

    def _now(self) -> list[float]:
        return [cpu_seconds([pid]) for pid in self._pids]


def _talk(
    command: Sequence[str],
    seconds_max: float,
    on_start: Callable[[], None],
    on_end: Callable[[], None],
) -> str:
    """Run the generator; tell when its load begins and when it has ended. Returns its result."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    timer = threading.Timer(seconds_max, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        if process.stdout.readline() == "START\n":
            on_start()
            result = process.stdout.readline()
            if result:
                on_end()
                return result
        words = process.stderr.read().strip() or f"it ended within {seconds_max:.0f} s"
        raise BenchError(f"the generator ({command[1]}) failed: {words}")
    finally:
        timer.cancel()
        process.kill()
        process.communicate()


def _revision(url: str) -> int:
    answer = post(url, "/v3/kv/range", b'{"key":"a2V5LTAwMDAw"}', CALL_SECONDS_MAX)
    return int(answer["header"]["revision"])
