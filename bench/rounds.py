"""Who answers more calls of a kind? Systems that are up at the same time, loaded in turns."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench import grpc_load, load
from bench.figures import BenchError, Figure, Goal, Series, Table
from bench.load import Run, cpu_seconds
from bench.parts import say
from bench.systems import System, etcd, ours

NONE: Final = "–"
WARM_SECONDS: Final = 1
WARM_CONNECTIONS: Final = 16
_NAMES: Final = {
    "put": "put",
    "get": "linearizable get",
    "serializable": "serializable get",
    "txn": "txn (compare + put)",
    "range": "range of 1,000 keys",
    "mixed": "80 % get, 20 % put on all nodes",
}


class Case(msgspec.Struct, frozen=True):
    """One kind of load."""

    call: str
    connections: int
    streams: int = 0
    """How many calls each connection makes at a time over gRPC; 0: it is HTTP/JSON."""
    goal: float | None = None
    """How many times as many as the other system it is to be; None: nobody said."""

    @property
    def title(self) -> str:
        """As the table names it."""
        name = f"gRPC {_NAMES[self.call]}" if self.streams else _NAMES[self.call]
        title = f"{name}, {self.connections} connection{'s' if self.connections > 1 else ''}"
        return f"{title} × {self.streams} streams" if self.streams > 1 else title


Results = Mapping[Case, Mapping[str, Sequence[Run]]]
"""The runs of each case by the name of the system, in the order of the rounds."""


def choose(only: str) -> list[System]:
    """The systems to compare: both, or the one of this name.

    Raises:
        BenchError: It is not installed.
    """
    systems = [ours()] if only != "etcd" else []
    if only != "kvstore":
        other = etcd()
        if other is not None:
            systems.append(other)
        elif only:
            raise BenchError("etcd is not installed: apt-get install etcd-server")
        else:
            say("etcd is not installed (apt-get install etcd-server): kvstore alone")
    return systems


def warm(system: System) -> None:
    """Write every key, and let it meet each path once before its time is taken."""
    say(f"filling {system.version}")
    system.fill()
    load.run([system.leader_url()], "mixed", WARM_CONNECTIONS, WARM_SECONDS, seed=0)


def take_turns(
    systems: Sequence[System],
    cases: Sequence[Case],
    rounds: int,
    seconds: int,
    relay_pids: Mapping[str, int] | None = None,
) -> Results:
    """Load each system with each case, ``rounds`` times over.

    Args:
        systems: Running and filled.
        cases: In this order.
        rounds: Who begins alternates, so that neither always finds the disk as the other left it.
        seconds: How long each turn lasts.
        relay_pids: The process that stands before the peers of the system of this name.

    Raises:
        BenchError: A node has ended, or a load did not do its work.
    """
    pids = relay_pids or {}
    results: dict[Case, dict[str, list[Run]]] = {
        case: {system.name: [] for system in systems} for case in cases
    }
    for number in range(rounds):
        order = systems if number % 2 == 0 else list(reversed(systems))
        for case in cases:
            for system in order:
                relays = [pids[system.name]] if system.name in pids else []
                found = _turn(system, case, seconds, number, relays)
                results[case][system.name].append(found)
                say(f"round {number + 1}: {system.name}: {case.title}: {_in_words(found)}")
        for system in order:
            system.compact()
    return results


def _turn(system: System, case: Case, seconds: int, seed: int, relays: Sequence[int]) -> Run:
    leader = system.leader_url()
    before, before_relay = cpu_seconds(system.pids), cpu_seconds(relays)
    if case.streams:
        found = grpc_load.run(leader, case.call, case.connections, case.streams, seconds)
    else:
        urls = system.urls if case.call == "mixed" else [leader]
        found = load.run(urls, case.call, case.connections, seconds, seed)
    return msgspec.structs.replace(
        found,
        cpu_us=round((cpu_seconds(system.pids) - before) * 1e6),
        relay_cpu_us=round((cpu_seconds(relays) - before_relay) * 1e6),
        leader_moved=system.leader_url() != leader,
    )


def _in_words(run: Run) -> str:
    words = f"{run.rate:,.0f}/s, p50 {run.p50_us / 1000:.2f} ms, p99 {run.p99_us / 1000:.2f} ms"
    words += f", {run.errors} errors" if run.errors else ""
    return words + (", the leader moved" if run.leader_moved else "")


def tables(results: Results, names: Sequence[str]) -> list[Table]:
    """Two: how many a second and the ratio; and latency, CPU and errors."""
    return [_rates(results, names), _costs(results, names)]


def _rates(results: Results, names: Sequence[str]) -> Table:
    header = ["load", *(cell for name in names for cell in (f"{name}/s", "spread"))]
    rows = []
    for case, by_name in results.items():
        row = [case.title]
        for name in names:
            rates = [run.rate for run in by_name[name]]
            row += [f"{statistics.median(rates):,.0f}", f"{min(rates):,.0f} to {max(rates):,.0f}"]
        if len(names) == 2:
            each = ratios(by_name, names)
            row += [
                f"**{ratio(by_name, names):.2f}**",
                f"{min(each):.2f} to {max(each):.2f}",
                NONE if case.goal is None else f"{case.goal:g}",
            ]
        rows.append(row)
    if len(names) == 2:
        header += [f"{names[0]} / {names[1]}", "spread of ratio", "goal"]
    return Table(header=header, rows=rows, caption="Successful answers a second.")


def _costs(results: Results, names: Sequence[str]) -> Table:
    columns = ("p50 ms", "p99 ms", "CPU µs", "errors")
    header = ["load", *(f"{name} {column}" for name in names for column in columns)]
    rows = []
    for case, by_name in results.items():
        row = [case.title]
        for name in names:
            runs = by_name[name]
            row += [
                f"{statistics.median(run.p50_us for run in runs) / 1000:.2f}",
                f"{statistics.median(run.p99_us for run in runs) / 1000:.2f}",
                f"{statistics.median(run.cpu_us / run.requests for run in runs):,.0f}",
                str(sum(run.errors for run in runs)),
            ]
        rows.append(row)
    return Table(
        header=header,
        rows=rows,
        caption="Latency, CPU of all nodes together for each answer, and errors of all rounds.",
    )


def ratio(by_name: Mapping[str, Sequence[Run]], names: Sequence[str]) -> float:
    """How many times as much the first does as the second: that of the medians of the rounds."""
    ours_rate, theirs = (statistics.median(run.rate for run in by_name[name]) for name in names)
    return ours_rate / theirs


def ratios(by_name: Mapping[str, Sequence[Run]], names: Sequence[str]) -> list[float]:
    """The same of each round by itself."""
    ours_runs, theirs = (by_name[name] for name in names)
    return [mine.rate / other.rate for mine, other in zip(ours_runs, theirs, strict=True)]


def goals(results: Results, names: Sequence[str], where: str = "") -> list[Goal]:
    """What was to be reached by these cases, and was it; nothing if one system was measured alone.

    Args:
        results: As measured.
        names: Ours, theirs.
        where: What to say before each title.
    """
    if len(names) != 2:
        return []
    found = []
    for case, by_name in results.items():
        if case.goal is not None:
            reached = ratio(by_name, names)
            found.append(
                Goal(
                    what=where + case.title,
                    wanted=f"at least {case.goal:g} times {names[1]}",
                    found=f"{reached:.2f} times",
                    met=reached >= case.goal,
                )
            )
    return found


def moved(results: Results) -> list[str]:
    """One sentence a case in which a leader moved while it was loaded."""
    return [
        f"The leader of {name} moved in round {number} of {case.title}: "
        "a part of these calls went to a follower."
        for case, by_name in results.items()
        for name, runs in by_name.items()
        for number, run in enumerate(runs, start=1)
        if run.leader_moved
    ]


def against_clients(name: str, title: str, call: str, results: Results) -> Figure:
    """The picture of one call over HTTP/JSON: how much at how many connections."""
    cases = sorted(
        (case for case in results if case.call == call and not case.streams),
        key=lambda case: case.connections,
    )
    series = []
    for system in results[cases[0]] if cases else []:
        rates = [[run.rate for run in results[case][system]] for case in cases]
        series.append(
            Series(
                name=system,
                x=[float(case.connections) for case in cases],
                y=[statistics.median(each) for each in rates],
                y_low=[min(each) for each in rates],
                y_high=[max(each) for each in rates],
            )
        )
    return Figure(
        name=name,
        title=title,
        x_label="connections",
        y_label=f"{_NAMES[call]}s/s",
        series=series,
        x_log=True,
    )


def start_all(systems: Sequence[System], base_dir: Path) -> None:
    """Start and fill all of them.

    Raises:
        BenchError: One does not come up.
    """
    for system in systems:
        say(f"starting {system.version}, three nodes")
        system.start(base_dir)
        warm(system)
