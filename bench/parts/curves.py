"""What does a put cost as keys, watchers, leases and connections grow? Ten minutes in all.

Every point of a curve is a node of its own, prepared once; all nodes of a curve, ours and etcd's,
run at the same time, and only one is loaded. So the points take turns within seconds of each other,
and what the machine does differently in ten minutes moves all of them alike.
"""

from __future__ import annotations

import contextlib
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from bench.figures import Figure, Goal, Section, Series, Table
from bench.filling import HOT_KEYS, fill, grant_leases, watchers
from bench.growth import FIRST_PORT, PORTS_APART, both, raise_file_limit, running, section
from bench.load import Run, cpu_seconds, run
from bench.parts import Options, say
from bench.processes import wait_quiet
from bench.systems import System

CONNECTIONS: Final = 64
WARM_SECONDS: Final = 1
FILES_MAX: Final = 12_000
"""Open files: 5,000 connections at both ends, and some for all else."""
PORTS_A_POINT: Final = 10
RATIO_MAX: Final = 1.5
QUICK_SECONDS: Final = 1

Prepare = Callable[[str, int], contextlib.AbstractContextManager[None]]
"""Given a node's URL and the size of the point, bring it there, and hold it until left."""


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that grows."""

    name: str
    title: str
    unit: str
    """What grows, as the axis says it."""
    sizes: tuple[int, ...]
    sizes_quick: tuple[int, ...]
    """None at all: a quick look leaves the curve out, for it takes too long to prepare."""
    prepare: Prepare
    start: int
    """The size that the others are held against."""
    is_load: bool = False
    """Whether the size is the number of connections of the load: one node serves all points."""


class Point(NamedTuple):
    """One point of one system's curve."""

    system: System
    size: int


class Turn(NamedTuple):
    """One turn of one point."""

    run: Run
    cpu_us: float
    """What a put cost the server, in microseconds of a core."""


Turns = dict[str, dict[int, list[Turn]]]
"""By system and size."""


@contextlib.contextmanager
def _with_keys(url: str, count: int) -> Iterator[None]:
    fill(url, range(count))
    yield


@contextlib.contextmanager
def _with_watchers(url: str, count: int) -> Iterator[None]:
    fill(url, range(HOT_KEYS))
    with watchers(url, count):
        yield


@contextlib.contextmanager
def _with_leases(url: str, count: int) -> Iterator[None]:
    fill(url, range(HOT_KEYS))
    grant_leases(url, count)
    yield


@contextlib.contextmanager
def _with_nothing(url: str, count: int) -> Iterator[None]:  # noqa: ARG001 - the load brings them
    fill(url, range(HOT_KEYS))
    yield


CURVES: Final = (
    Curve(
        name="keys",
        title="Put against the number of keys",
        unit="keys",
        sizes=(10_000, 100_000, 1_000_000),
        sizes_quick=(),
        prepare=_with_keys,
        start=10_000,
    ),
    Curve(
        name="watchers",
        title="Put against the number of watchers that it does not concern",
        unit="watchers",
        sizes=(0, 10_000, 100_000),
        sizes_quick=(0, 1_000),
        prepare=_with_watchers,
        start=0,
    ),
    Curve(
        name="leases",
        title="Put against the number of leases",
        unit="leases",
        sizes=(0, 100_000),
        sizes_quick=(),
        prepare=_with_leases,
        start=0,
    ),
    Curve(
        name="connections",
        title="Put against the number of connections",
        unit="connections",
        sizes=(1, 64, 512, 2_000, 5_000),
        sizes_quick=(64, 512),
        prepare=_with_nothing,
        start=64,
        is_load=True,
    ),
)

TEXT: Final = """\
One node a point, all on this machine, each prepared once; the nodes of a curve, ours and etcd's,
run together and are loaded one at a time: wrk puts 256-byte values to 10,000 keys through
{connections} connections over HTTP/JSON, {rounds} rounds of {seconds} s, who begins alternates.
Costs are the time that the server's process spends on cores (user and kernel, its work in the
background included) over the puts that succeeded; medians of the rounds, with the lowest and the
highest. A curve's growth is its dearest point over its start.

Keys: the store holds so many, of 32 bytes with values of 128, beside the 10,000 of wrk, which lie
evenly between them; for the other curves it holds 10,000 of them.
Watchers: of what nobody writes, half of one key each, half of a range each, over gRPC on one
connection, 10,000 a stream. Leases: of two hours, nothing attached. Connections: of the load; with
one of them a put cannot share its sync with another, so that the curve is held against 64, and the
whole of it is shown."""


def measure(options: Options, base_dir: Path) -> Section:
    """Draw each curve for both systems.

    Raises:
        BenchError: A node does not do its work; grpcio is not installed.
    """
    raise_file_limit(FILES_MAX)
    rounds = 1 if options.quick else options.rounds
    seconds = QUICK_SECONDS if options.quick else options.seconds
    tables: list[Table] = []
    figures: list[Figure] = []
    goals: list[Goal] = []
    for curve in CURVES:
        sizes = curve.sizes_quick if options.quick else curve.sizes
        if not sizes:
            continue
        turns = _draw(curve, sizes, base_dir, rounds, seconds, warm=not options.quick)
        start = curve.start if curve.is_load else sizes[0]
        tables.append(_table(curve, turns, start))
        figures += _figures(curve, turns)
        goals.append(_goal(curve, turns["kvstore"], start))
    text = TEXT.format(connections=CONNECTIONS, rounds=rounds, seconds=seconds)
    return section("curves", "Curves", text, both(), tables, figures, goals)


def _draw(
    curve: Curve, sizes: Sequence[int], base_dir: Path, rounds: int, seconds: int, *, warm: bool
) -> Turns:
    """Prepare all points, then load them in turns."""
    turns: Turns = defaultdict(lambda: defaultdict(list))
    with contextlib.ExitStack() as stack:
        points = _prepare(stack, curve, sizes, base_dir)
        if warm:
            _warm(points)
        for number in range(rounds):
            for point in points if number % 2 == 0 else points[::-1]:
                connections = point.size if curve.is_load else CONNECTIONS
                turn = _load(point.system, connections, seconds, number)
                turns[point.system.name][point.size].append(turn)
                errors = f", {turn.run.errors} errors" if turn.run.errors else ""
                say(
                    f"curves: round {number + 1}: {point.system.name}: {point.size:,} "
                    f"{curve.unit}: {turn.cpu_us:.0f} µs a put, {turn.run.rate:,.0f}/s{errors}"
                )
    return turns


def _prepare(
    stack: contextlib.ExitStack, curve: Curve, sizes: Sequence[int], base_dir: Path
) -> list[Point]:
    points: list[Point] = []
    held = [max(sizes)] if curve.is_load else sizes
    for number, size in enumerate(held):
        directory = base_dir / f"{curve.name}-{size}"
        for system in both(FIRST_PORT + number * PORTS_A_POINT, apart=PORTS_APART):
            stack.enter_context(running(system, directory))
            say(f"curves: {system.name}: preparing {size:,} {curve.unit}")
            stack.enter_context(curve.prepare(system.urls[0], size))
            served = sizes if curve.is_load else [size]
            points += [Point(system, each) for each in served]
    # Neighbours in the order of turns are the systems at the same size.
    points.sort(key=lambda point: (point.size, point.system.name != "kvstore"))
    return points


def _warm(points: Sequence[Point]) -> None:
    """Let each node meet the load once, and end what is left in the background."""
    systems = list(dict.fromkeys(point.system for point in points))
    for system in systems:
        run(system.urls, "put", CONNECTIONS, WARM_SECONDS, seed=0)
    if not wait_quiet([system.pids[0] for system in systems]):
        say("curves: a node is still busy with what was put before")


def _load(system: System, connections: int, seconds: int, seed: int) -> Turn:
    before = cpu_seconds(system.pids)
    found = run(system.urls, "put", connections, seconds, seed)
    used = cpu_seconds(system.pids) - before
    return Turn(found, used / found.succeeded * 1e6)


def _table(curve: Curve, turns: Turns, start: int) -> Table:
    header = [curve.unit]
    for name in turns:
        header += [f"{name}, µs a put", "spread", "of the start", "puts/s", "errors"]
    rows = []
    for size in next(iter(turns.values())):
        row = [f"{size:,}"]
        for by_size in turns.values():
            costs = _costs(by_size[size])
            of_start = statistics.median(costs) / statistics.median(_costs(by_size[start]))
            row += [
                f"{statistics.median(costs):.0f}",
                f"{min(costs):.0f} to {max(costs):.0f}",
                f"{of_start:.2f}",
                f"{statistics.median(turn.run.rate for turn in by_size[size]):,.0f}",
                str(sum(turn.run.errors for turn in by_size[size])),
            ]
        rows.append(row)
    return Table(header=header, rows=rows, caption=curve.title)


def _figures(curve: Curve, turns: Turns) -> list[Figure]:
    # On a logarithmic axis there is no nought: where a curve begins there, the axis is linear.
    x_log = min(next(iter(turns.values()))) > 0
    return [
        Figure(
            name=f"curve-{curve.name}",
            title=curve.title,
            x_label=curve.unit,
            y_label="CPU of the server, µs a put",
            series=[_series(name, by_size, _costs) for name, by_size in turns.items()],
            x_log=x_log,
        ),
        Figure(
            name=f"curve-{curve.name}-rate",
            title=curve.title,
            x_label=curve.unit,
            y_label="puts/s",
            series=[_series(name, by_size, _rates) for name, by_size in turns.items()],
            x_log=x_log,
        ),
    ]


def _series(
    name: str,
    by_size: dict[int, list[Turn]],
    values: Callable[[Sequence[Turn]], list[float]],
) -> Series:
    seen = [values(turns) for turns in by_size.values()]
    return Series(
        name=name,
        x=[float(size) for size in by_size],
        y=[statistics.median(each) for each in seen],
        y_low=[min(each) for each in seen],
        y_high=[max(each) for each in seen],
    )


def _costs(turns: Sequence[Turn]) -> list[float]:
    return [turn.cpu_us for turn in turns]


def _rates(turns: Sequence[Turn]) -> list[float]:
    return [turn.run.rate for turn in turns]


def _goal(curve: Curve, by_size: dict[int, list[Turn]], start: int) -> Goal:
    """The dearest point beyond the start, over the start."""
    base = statistics.median(_costs(by_size[start]))
    beyond = [size for size in by_size if size > start]
    worst = max(beyond, key=lambda size: statistics.median(_costs(by_size[size])))
    growth = statistics.median(_costs(by_size[worst])) / base
    found = f"{growth:.2f} times with {worst:,}"
    below = [size for size in by_size if size < start]
    if below:
        least = statistics.median(_costs(by_size[below[0]])) / base
        found += f"; with {below[0]:,} {least:.2f} times"
    return Goal(
        what=f"CPU time a put, {start:,} to {max(by_size):,} {curve.unit}",
        wanted="within 1.5 times of its start",
        found=found,
        met=growth <= RATIO_MAX,
    )
