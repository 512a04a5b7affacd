"""How many leases a second does the leader renew, of ten thousand? A minute and a half in all."""

from __future__ import annotations

import contextlib
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bench import generator
from bench.figures import Goal, Section, Table
from bench.generator import Leases
from bench.growth import both, running, section, times
from bench.parts import Options, say

LEASES: Final = 10_000
CONNECTIONS: Final = 64
GOAL_RATIO: Final = 3.0

TEXT: Final = """\
Three nodes each on this machine, with {leases:,} leases of 600 s. A generator of our own
(`bench/generator`) renews them in turn, as fast as that is answered, over {connections} keep-alive
connections to the leader: `POST /v3/lease/keepalive` with one request in the body, one call at a
time a connection. Both systems answer that with one line and keep the connection. An answer counts
if it has the whole time to live; with any other, with an error or with a broken connection it is an
error.

The leader of etcd 3.4 renews a lease in its memory alone. Ours answers after a round with a
majority that began after the renewal came in, shared by all that wait: without it, a leader that
has been deposed could confirm leases that its successor lets expire.

Both are up all the time and take turns, and who begins alternates: {rounds} rounds of {seconds} s;
medians of the rounds."""


def measure(options: Options, base_dir: Path) -> Section:
    """Renew leases of both, in turns.

    Raises:
        BenchError: A system does not come up, does not grant the leases, or renews none.
    """
    generator.build()
    systems = both(nodes=3)
    results: dict[str, list[Leases]] = defaultdict(list)
    moved: list[str] = []
    with contextlib.ExitStack() as stack:
        for system in systems:
            stack.enter_context(running(system, base_dir))
        for number in range(options.rounds):
            for system in systems if number % 2 == 0 else systems[::-1]:
                url = system.leader_url()
                run = generator.leases(url, LEASES, options.seconds, CONNECTIONS, system.pids)
                results[system.name].append(run)
                say(f"leases: round {number + 1}: {system.name}: {_in_words(run)}")
                if system.leader_url() != url:
                    moved.append(f"{system.name} in round {number + 1}")
    text = TEXT.format(
        leases=LEASES,
        connections=CONNECTIONS,
        rounds=options.rounds,
        seconds=options.seconds,
    )
    if moved:
        text += f"\n\nA leader moved ({'; '.join(moved)}): a part of those went to a follower."
    return section("leases", "Leases", text, systems, [table(results)], [], [goal(results)])


def _in_words(run: Leases) -> str:
    words = f"{run.rate:,.0f} renewals/s, p99 {run.latency.at(99.0) / 1e3:.2f} ms"
    return words + (f", {run.errors} errors: {run.first_bad}" if run.errors else "")


def _rate(runs: Sequence[Leases]) -> float:
    return statistics.median(run.rate for run in runs)


def table(results: Mapping[str, Sequence[Leases]]) -> Table:
    """One column a system."""
    runs = list(results.values())
    rows = [
        ["renewals/s", *(f"{_rate(each):,.0f}" for each in runs)],
        ["lowest and highest round", *(_spread(each) for each in runs)],
        ["p50, ms", *(_percentile(each, 50.0) for each in runs)],
        ["p99, ms", *(_percentile(each, 99.0) for each in runs)],
        ["refused", *(str(sum(run.refused for run in each)) for each in runs)],
        [
            "answered without the time to live",
            *(str(sum(run.wrong for run in each)) for each in runs),
        ],
        ["connections broken", *(str(sum(run.broken for run in each)) for each in runs)],
        ["CPU of the three nodes a renewal, µs", *(_cpu(each) for each in runs)],
        ["generator's share of one processor, %", *(_own(each) for each in runs)],
    ]
    caption = f"{LEASES:,} leases, {CONNECTIONS} connections."
    return Table(header=["", *results], rows=rows, caption=caption)


def _spread(runs: Sequence[Leases]) -> str:
    rates = [run.rate for run in runs]
    return f"{min(rates):,.0f} to {max(rates):,.0f}"


def _percentile(runs: Sequence[Leases], percent: float) -> str:
    return f"{statistics.median(run.latency.at(percent) for run in runs) / 1e3:.2f}"


def _cpu(runs: Sequence[Leases]) -> str:
    return f"{statistics.median(sum(run.cpu_us) / run.done for run in runs):,.0f}"


def _own(runs: Sequence[Leases]) -> str:
    return f"{statistics.median(run.own_cpu_us / run.elapsed_us for run in runs) * 100:.0f}"


def goal(results: Mapping[str, Sequence[Leases]]) -> Goal:
    """Renewals a second beside etcd's; an error of ours is a goal missed."""
    mine, theirs = results["kvstore"], results.get("etcd")
    ratio = _rate(mine) / _rate(theirs) if theirs else None
    errors = sum(run.errors for run in mine)
    found = times(_rate(mine), _rate(theirs) if theirs else None)
    return Goal(
        what=f"lease keep-alives, {LEASES:,} leases, {CONNECTIONS} connections",
        wanted=f"at least {GOAL_RATIO:g} times etcd",
        found=found + (f", {errors} errors" if errors else ""),
        met=ratio is not None and ratio >= GOAL_RATIO and not errors,
    )
