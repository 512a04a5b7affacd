"""How many calls a second does the leader answer, over HTTP/JSON and over gRPC?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench import grpc_load, load, rounds
from bench.figures import BenchError, Section
from bench.machine import machine, measured_on
from bench.parts import Options
from bench.rounds import Case, Results

CASES: Final = (
    Case("put", 1, goal=1.8),
    Case("put", 4),
    Case("put", 16),
    Case("put", 64, goal=4),
    Case("put", 256, goal=4),
    Case("get", 1),
    Case("get", 4),
    Case("get", 16),
    Case("get", 64, goal=6),
    Case("get", 256, goal=6),
    Case("serializable", 64, goal=6),
    Case("txn", 64, goal=4),
    Case("range", 16, goal=3),
    Case("mixed", 64, goal=4),
    Case("put", 1, 1),
    Case("put", 1, 64, goal=3),
    Case("put", 64, 1, goal=2.5),
    Case("get", 1, 1),
    Case("get", 1, 64, goal=4),
    Case("get", 64, 1, goal=3),
)
_QUICK: Final = tuple(
    case
    for case in CASES
    if (case.goal is not None and case.connections < 256) or case == Case("get", 1)
)
"""Those of a quick look: no 256 connections, and two points a curve."""

TEXT: Final = """\
Three nodes each on this machine, data on the same disk, every write synced on a majority before
its answer. wrk (one thread, on the same machine) calls the leader over HTTP/JSON: values of 256
bytes, 10,000 keys; h2load (one thread) over gRPC, where all calls concern one key. A txn compares
the version of a key and puts it; a range brings 1,000 keys with their values; the mixed load is
three wrk at once, one a node, whose rates are summed and whose latency is that of the slowest.
Both systems are up all the time and take turns, and who begins alternates; {rounds} rounds of
{seconds} s. After each round the history of both is compacted.

Rates are the medians of the rounds, with the lowest and the highest beside them; the ratio is that
of these medians, and its spread that of the rounds each by itself. Latencies are the medians of the
rounds' own. With one connection calls follow one another: p50 there is the latency of a single
call. CPU is the user and kernel time of all three nodes for each answer. That writes were done, and
that reads brought their values, is counted in the store and by the bytes of the answers.
"""


def measure(options: Options, base_dir: Path, only: str = "", match: str = "") -> Section:
    """Load both systems; about two minutes a round (20 loads, two systems, 3 s and a little each).

    Args:
        options: How much of it.
        base_dir: Where the nodes keep their data meanwhile.
        only: The name of the one system to load; all if it is empty.
        match: Only loads whose title contains this.

    Raises:
        BenchError: A system does not come up, or a load does not do its work.
    """
    load.wrk()
    grpc_load.h2load()
    cases = chosen(options, match)
    systems = rounds.choose(only)
    try:
        rounds.start_all(systems, base_dir)
        results = rounds.take_turns(systems, cases, options.rounds, options.seconds)
    finally:
        for system in systems:
            system.stop()
    return section(
        results,
        [system.name for system in systems],
        measured_on(system.version for system in systems),
        options,
    )


def chosen(options: Options, match: str) -> list[Case]:
    """Which loads.

    Raises:
        BenchError: None has such a title.
    """
    cases = [case for case in (_QUICK if options.quick else CASES) if match in case.title]
    if not cases:
        titles = "\n".join(case.title for case in CASES)
        raise BenchError(f"no load's title contains {match!r}; there are:\n{titles}")
    return cases


def section(results: Results, names: Sequence[str], when: str, options: Options) -> Section:
    """The chapter of the page."""
    text = TEXT.format(rounds=options.rounds, seconds=options.seconds)
    figures = [
        rounds.against_clients(f"throughput-{call}", title, call, results)
        for call, title in (
            ("put", "Puts against connections (HTTP/JSON)"),
            ("get", "Linearizable gets against connections (HTTP/JSON)"),
        )
    ]
    return Section(
        part="throughput",
        title="Throughput",
        text="\n".join([text, *rounds.moved(results)]),
        measured_on=when,
        machine=machine(),
        tables=rounds.tables(results, names),
        figures=[figure for figure in figures if figure.series],
        goals=rounds.goals(results, names),
    )
