"""What do the parts about growth, fail-over and start share? Pairs of systems, arithmetic."""

from __future__ import annotations

import contextlib
import http.client
import json
import resource
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from bench.figures import BenchError, Figure, Goal, Section, Table
from bench.machine import machine, measured_on
from bench.parts import say
from bench.processes import kill_own
from bench.systems import System, etcd, ours

FIRST_PORT: Final = 15_000
PORTS_APART: Final = 500
"""Between our nodes and etcd's, where one of each runs."""
RETRY_SECONDS: Final = 0.005


def both(
    first_port: int = FIRST_PORT,
    *,
    nodes: int = 1,
    extra: Sequence[str] = (),
    apart: int = PORTS_APART,
) -> list[System]:
    """kvstore, and etcd if it is installed, with the same flags."""
    systems = [ours(first_port, nodes=nodes, extra=extra)]
    other = etcd(first_port + apart, nodes=nodes, extra=extra)
    if other is None:
        say("etcd is not installed (apt-get install etcd-server): kvstore alone")
        return systems
    return [*systems, other]


@contextlib.contextmanager
def running(system: System, base_dir: Path) -> Iterator[System]:
    """Start it on empty data, and in the end kill it and delete its data.

    Raises:
        BenchError: It does not come up.
    """
    try:
        system.start(base_dir)
        yield system
    finally:
        # Asked to end, a leader first hands on its leadership, to nodes that end as well: etcd
        # takes seven seconds for that.
        for pid in system.pids:
            kill_own(pid)
        system.stop()
        shutil.rmtree(base_dir / system.name, ignore_errors=True)


def post(url: str, path: str, body: bytes, seconds: float) -> dict[str, Any]:
    """One call over a connection of its own.

    Raises:
        OSError: No connection, or no answer within ``seconds`` (a TimeoutError).
        BenchError: The answer is an error; the message holds it.
    """
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.netloc, timeout=seconds)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
    except http.client.HTTPException as error:
        raise ConnectionError(f"{url} broke off: {error!r}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise BenchError(f"{url}{path}: {answer.status} {text[:200].decode(errors='replace')}")
    found: dict[str, Any] = json.loads(text)
    return found


def wait_answered(
    system: System, path: str, body: bytes, seconds_max: float = 120.0
) -> dict[str, Any]:
    """Call a single node again and again until it answers without an error.

    Raises:
        BenchError: The node has ended, or does not answer in time.
    """
    deadline = time.monotonic() + seconds_max
    while time.monotonic() < deadline:
        try:
            return post(system.urls[0], path, body, seconds_max)
        except (OSError, BenchError):
            system.check_alive()
            time.sleep(RETRY_SECONDS)
    raise BenchError(f"{system.name} has not answered within {seconds_max:.0f} s")


def raise_file_limit(needed: int) -> None:
    """Let this process and its children open so many files.

    Raises:
        BenchError: The machine does not allow it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise BenchError(f"{needed} open files are needed, {hard} allowed: raise `ulimit -Hn`")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0 to 1) of them lie: one that was seen, never between two.

    Raises:
        BenchError: There are none.
    """
    if not values:
        raise BenchError("nothing was measured, so there is no percentile")
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def growth_of_last_third(x: Sequence[float], y: Sequence[float]) -> float:
    """How much ``y`` grows over the last third of ``x``, as a share of its mean there.

    By the straight line of least squares, so that one high sample at the end is no growth.

    Raises:
        BenchError: There are fewer than two samples in the last third.
    """
    start = x[0] + (x[-1] - x[0]) * 2 / 3 if x else 0.0
    points = [(a, b) for a, b in zip(x, y, strict=True) if a >= start]
    if len(points) < 2 or points[0][0] == points[-1][0]:
        raise BenchError("too few samples for a slope: let it run longer")
    x_mean = sum(a for a, _ in points) / len(points)
    y_mean = sum(b for _, b in points) / len(points)
    slope = sum((a - x_mean) * (b - y_mean) for a, b in points) / sum(
        (a - x_mean) ** 2 for a, _ in points
    )
    return slope * (points[-1][0] - points[0][0]) / y_mean


def times(ours_value: float, theirs: float | None) -> str:
    """A ratio in words; without etcd there is none."""
    return f"{ours_value / theirs:.2f} times" if theirs else "no etcd to compare with"


def goal_of_ratio(
    what: str, wanted: str, ours_value: float, theirs: float | None, most: float
) -> Goal:
    """A goal that is a ratio to etcd of at most ``most``; not met where there is no etcd."""
    met = theirs is not None and ours_value <= most * theirs
    return Goal(what=what, wanted=wanted, found=times(ours_value, theirs), met=met)


def section(
    part: str,
    title: str,
    text: str,
    systems: Sequence[System],
    tables: list[Table],
    figures: list[Figure],
    goals: list[Goal],
) -> Section:
    """A chapter with today's date, the versions and the machine."""
    return Section(
        part=part,
        title=title,
        text=text,
        measured_on=measured_on(system.version for system in systems),
        machine=machine(),
        tables=tables,
        figures=figures,
        goals=goals,
    )
