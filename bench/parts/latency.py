"""How long does a put take at a fixed rate, counted from when it was due? Two minutes in all."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench import generator
from bench.figures import Figure, Goal, Section, Table
from bench.generator import Puts
from bench.growth import both, goal_of_ratio, running, section
from bench.parts import Options, say
from bench.processes import wait_quiet
from bench.systems import System

RATES: Final = (500, 1_000, 2_000, 4_000)
RATES_QUICK: Final = (2_000,)
GOAL_RATE: Final = 2_000
GOAL_RATIO: Final = 0.7
CONNECTIONS: Final = 64
WARM_SECONDS: Final = 1
KEPT_UP: Final = 0.99
"""Of the rate: whoever answers less has no steady latency, it grows as long as one looks."""
PERCENTS: Final = (50.0, 90.0, 99.0, 99.9)

TEXT: Final = """\
Three nodes each on this machine, filled with 10,000 keys, every put (256 bytes) synced on a
majority before its answer, over HTTP/JSON to the leader. The load is an open loop: a generator of
our own (`bench/generator`, in Go) makes so many puts a second at times that are fixed beforehand,
over {connections} keep-alive connections, and a put's latency counts from when it was due. So a
server that stands still for a moment delays all puts of that moment; a load that waits for answers
would ask less meanwhile and not notice. Puts that were due and not sent because {outstanding:,}
others waited, refused, broken off or unanswered ten seconds after the end are errors, and are in no
percentile.

Both are up all the time and take turns, and who begins alternates: {rounds} rounds of {seconds} s
at each rate. Percentiles are the medians of the rounds' own. That puts were done is counted by the
store's revision."""

Results = Mapping[int, Mapping[str, Sequence[Puts]]]
"""The runs at each rate by the name of the system, in the order of the rounds."""


def measure(options: Options, base_dir: Path) -> Section:
    """Load both at several rates, in turns.

    Raises:
        BenchError: A system does not come up, or a load does not do its work.
    """
    generator.build()
    rates = RATES_QUICK if options.quick else RATES
    systems = both(nodes=3)
    results: dict[int, dict[str, list[Puts]]] = {
        rate: {system.name: [] for system in systems} for rate in rates
    }
    moved = []
    with contextlib.ExitStack() as stack:
        for system in systems:
            stack.enter_context(running(system, base_dir))
            system.fill()
            generator.puts(system.leader_url(), rates[0], WARM_SECONDS, CONNECTIONS)
        # What one has left to write after its fill must not slow down the other's first turn.
        wait_quiet([pid for system in systems for pid in system.pids])
        for number in range(options.rounds):
            for rate in rates:
                for system in systems if number % 2 == 0 else systems[::-1]:
                    leader = system.leader()
                    run = _turn(system, leader, rate, options.seconds)
                    results[rate][system.name].append(run)
                    say(f"latency: round {number + 1}: {system.name}: {rate}/s: {_in_words(run)}")
                    if system.leader() != leader:
                        moved.append(f"{system.name} in round {number + 1} at {rate:,}/s")
    text = TEXT.format(
        connections=CONNECTIONS,
        outstanding=generator.PUTS_OUTSTANDING,
        rounds=options.rounds,
        seconds=options.seconds,
    )
    text = "\n\n".join([text, *remarks(results, moved)])
    return section(
        "latency",
        "Latency at a fixed rate",
        text,
        systems,
        tables(results),
        [_figure(results[GOAL_RATE])],
        [goal(results[GOAL_RATE])],
    )


def _turn(system: System, leader: int, rate: int, seconds: int) -> Puts:
    return generator.puts(system.urls[leader], rate, seconds, CONNECTIONS, system.pids)


def _in_words(run: Puts) -> str:
    words = ", ".join(
        f"p{percent:g} {run.latency.at(percent) / 1e3:.2f} ms" for percent in PERCENTS
    )
    return words + (f", {run.errors} errors" if run.errors else "")


def remarks(results: Results, moved: Sequence[str]) -> list[str]:
    """What a reader of the percentiles must know: who did not keep up, whose leader moved."""
    found = []
    for rate, by_name in results.items():
        for name, runs in by_name.items():
            reached = statistics.median(run.rate for run in runs)
            if reached < KEPT_UP * rate:
                found.append(
                    f"{name} did not keep up with {rate:,} puts/s: it answered {reached:,.0f}/s, "
                    "and its latencies there grow with the length of the run."
                )
    if moved:
        found.append(
            f"A leader moved ({'; '.join(moved)}): a part of those puts went to a follower."
        )
    return found


def median_ms(runs: Sequence[Puts], percent: float) -> float:
    """The median of the rounds' percentiles."""
    return statistics.median(run.latency.at(percent) for run in runs) / 1e3


def tables(results: Results) -> list[Table]:
    """All percentiles, and the p99 side by side with its spread."""
    return [_percentiles(results), *_ratios(results)]


def _percentiles(results: Results) -> Table:
    header = [
        *("puts/s", "system", "answered/s"),
        *(f"p{percent:g} ms" for percent in PERCENTS),
        *("longest ms", "errors", "CPU µs a put", "generator's CPU %", "its p99 late ms"),
    ]
    rows = []
    for rate, by_name in results.items():
        for name, runs in by_name.items():
            cpu = statistics.median(sum(run.cpu_us) / run.done for run in runs)
            late = statistics.median(run.late.at(99.0) for run in runs) / 1e3
            own = statistics.median(run.own_cpu_us / run.elapsed_us for run in runs)
            rows.append(
                [
                    *(f"{rate:,}", name),
                    f"{statistics.median(run.rate for run in runs):,.0f}",
                    *(f"{median_ms(runs, percent):.2f}" for percent in PERCENTS),
                    f"{max(run.latency.max_us for run in runs) / 1e3:.1f}",
                    str(sum(run.errors for run in runs)),
                    f"{cpu:,.0f}",
                    f"{own * 100:.0f}",
                    f"{late:.2f}",
                ]
            )
    caption = (
        "From when a put was due to its answer; the longest, and the errors, of all rounds. CPU is "
        "that of the three nodes together, and the generator's share of one processor. How much "
        "too late it was is a part of each latency: it competes with the nodes for the processors."
    )
    return Table(header=header, rows=rows, caption=caption)


def _ratios(results: Results) -> list[Table]:
    """The p99 side by side; nothing if one was measured alone."""
    rows = []
    for rate, by_name in results.items():
        if len(by_name) != 2:
            return []
        each = [[run.latency.at(99.0) / 1e3 for run in runs] for runs in by_name.values()]
        ratios = [mine / other for mine, other in zip(*each, strict=True)]
        ratio = statistics.median(each[0]) / statistics.median(each[1])
        rows.append(
            [
                f"{rate:,}",
                *(cell for values in each for cell in _with_spread(values)),
                f"**{ratio:.2f}**",
                f"{min(ratios):.2f} to {max(ratios):.2f}",
                f"{GOAL_RATIO:g}" if rate == GOAL_RATE else "–",
            ]
        )
    names = list(next(iter(results.values())))
    header = [
        "puts/s",
        *(cell for name in names for cell in (f"{name} p99 ms", "spread")),
        *(f"{names[0]} / {names[1]}", "spread of ratio", "at most"),
    ]
    return [Table(header=header, rows=rows, caption="The same p99, with the rounds' spread.")]


def _with_spread(values: Sequence[float]) -> list[str]:
    return [f"{statistics.median(values):.2f}", f"{min(values):.2f} to {max(values):.2f}"]


def _figure(by_name: Mapping[str, Sequence[Puts]]) -> Figure:
    return Figure(
        name="latency",
        title=f"Latency of puts at {GOAL_RATE:,}/s",
        x_label="one put in so many takes longer",
        y_label="latency, ms",
        series=[
            generator.distribution(name, [run.latency for run in runs])
            for name, runs in by_name.items()
        ],
        x_log=True,
        y_log=True,
    )


def goal(by_name: Mapping[str, Sequence[Puts]]) -> Goal:
    """The p99 beside etcd's at one rate; an error of ours is a goal missed."""
    mine, theirs = by_name["kvstore"], by_name.get("etcd")
    found = goal_of_ratio(
        f"put, p99 at {GOAL_RATE:,}/s (open loop)",
        f"at most {GOAL_RATIO:g} times etcd's",
        median_ms(mine, 99.0),
        median_ms(theirs, 99.0) if theirs else None,
        GOAL_RATIO,
    )
    errors = sum(run.errors for run in mine)
    if not errors:
        return found
    return msgspec.structs.replace(found, found=f"{found.found}, {errors} errors", met=False)
