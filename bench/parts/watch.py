"""How many events a second reach a thousand watchers, how late, and at what cost? Four minutes."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench import generator
from bench.figures import Figure, Goal, Section, Table
from bench.generator import Watch
from bench.growth import both, goal_of_ratio, raise_file_limit, running, section, times
from bench.parts import Options, say
from bench.processes import wait_quiet
from bench.systems import System

RATES: Final = (100, 1_000)
WATCHERS: Final = 1_000
WATCHERS_QUICK: Final = 100
SECONDS_MIN: Final = 5
CONNECTIONS: Final = 64
OPEN_FILES: Final = 8_192
"""Of each process: a watcher has a connection of its own."""
EVENTS_RATIO: Final = 2.0
CPU_RATIO: Final = 0.5
KEPT_UP: Final = 0.97
"""Of what was wanted: the way of the last events is in the time."""

TEXT: Final = """\
Three nodes each on this machine. {watchers:,} watchers of one prefix, each a stream over an
HTTP/JSON connection of its own, all on the leader and all created before the first put. Then a
generator of our own (`bench/generator`, the same consumer for both) puts values of 64 bytes below
the prefix through the leader, so many a second at times that are fixed beforehand, and finds each
event in the bytes of each stream. At 1,000 puts/s that would be {wanted:,} events a second, more
than has to be reached: a put that is due while {outstanding} others are under way or wait is not
sent but counted, and the events of all that were sent are waited for, ten seconds at most after the
last.

The delay runs from sending a put to the arrival of its event. Events a second are all that arrived,
by the time from the first put to the last event. CPU is that of the leader's process, and of the
three nodes, over the same time, for each event that arrived; puts, syncs and agreement are part of
it. Both systems are up all the time, take turns once they are quiet, and who begins alternates:
{rounds} rounds of {seconds} s at each rate; medians of the rounds."""


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One run, and which of the nodes led."""

    run: Watch
    leader: int
    """Its position, at the beginning."""
    moved: bool = False
    """Another node led in the end."""

    @property
    def leader_cpu_us(self) -> float:
        """What the leader's process spent for each event."""
        return self.run.cpu_us[self.leader] / self.run.events

    @property
    def all_cpu_us(self) -> float:
        """What all nodes spent for each event."""
        return sum(self.run.cpu_us) / self.run.events

    @property
    def faults(self) -> int:
        """Everything that a watcher must not see."""
        run = self.run
        return run.missing + run.duplicates + run.strange + run.ended


Results = Mapping[int, Mapping[str, Sequence[Turn]]]
"""The turns at each rate by the name of the system, in the order of the rounds."""


def measure(options: Options, base_dir: Path) -> Section:
    """Watch both, in turns.

    Raises:
        BenchError: A system does not come up, or delivers nothing.
    """
    generator.build()
    raise_file_limit(OPEN_FILES)
    watchers = WATCHERS_QUICK if options.quick else WATCHERS
    seconds = options.seconds if options.quick else max(options.seconds, SECONDS_MIN)
    systems = both(nodes=3)
    results: dict[int, dict[str, list[Turn]]] = {
        rate: {system.name: [] for system in systems} for rate in RATES
    }
    restless = 0
    with contextlib.ExitStack() as stack:
        for system in systems:
            stack.enter_context(running(system, base_dir))
        pids = [pid for system in systems for pid in system.pids]
        for number in range(options.rounds):
            for rate in RATES:
                for system in systems if number % 2 == 0 else systems[::-1]:
                    if not wait_quiet(pids):
                        say("watch: a system has not become quiet; the turn begins all the same")
                        restless += 1
                    turn = _turn(system, rate, seconds, watchers)
                    results[rate][system.name].append(turn)
                    say(f"watch: round {number + 1}: {system.name}: {rate}/s: {_in_words(turn)}")
    text = TEXT.format(
        watchers=watchers,
        wanted=watchers * RATES[-1],
        outstanding=generator.WATCH_OUTSTANDING,
        rounds=options.rounds,
        seconds=seconds,
    )
    return section(
        "watch",
        "Watch",
        "\n\n".join([text, *remarks(results, restless)]),
        systems,
        [deliveries(results), costs(results)],
        [_figure(results[RATES[0]], watchers)],
        goals(results),
    )


def _turn(system: System, rate: int, seconds: int, watchers: int) -> Turn:
    leader = system.leader()
    url = system.urls[leader]
    run = generator.watch(url, rate, seconds, CONNECTIONS, watchers, system.pids)
    return Turn(run=run, leader=leader, moved=system.leader() != leader)


def _in_words(turn: Turn) -> str:
    run = turn.run
    words = f"{run.rate:,.0f} events/s, p99 {run.delay.at(99.0) / 1e3:.1f} ms"
    words += f", {run.puts.done} of {run.puts.due} puts"
    return words + (f", {turn.faults} faults" if turn.faults else "")


def _median(turns: Sequence[Turn], figure: Callable[[Turn], float]) -> float:
    return statistics.median(figure(turn) for turn in turns)


def _rate(turn: Turn) -> float:
    return turn.run.rate


def _p99_ms(turn: Turn) -> float:
    return turn.run.delay.at(99.0) / 1e3


def kept_up(rate: int, turns: Sequence[Turn]) -> bool:
    """Whether all that was wanted arrived as fast as it was wanted."""
    return all(turn.run.rate >= KEPT_UP * rate * turn.run.watchers for turn in turns)


def remarks(results: Results, restless: int) -> list[str]:
    """Who kept up with which rate, which is all that their events a second say; what was amiss."""
    found = []
    if restless:
        found.append(f"{restless} turns began while a system was still busy with the one before.")
    moved = [
        f"{name} in round {number} at {rate:,}/s"
        for rate, by_name in results.items()
        for name, turns in by_name.items()
        for number, turn in enumerate(turns, start=1)
        if turn.moved
    ]
    if moved:
        found.append(
            f"A leader moved ({'; '.join(moved)}): the watchers were on a follower then, and the "
            "CPU that is shown as the leader's is that of the node where they were."
        )
    for rate, by_name in results.items():
        names = [name for name, turns in by_name.items() if kept_up(rate, turns)]
        who = " and ".join(names) or "nobody"
        found.append(f"At {rate:,} puts/s {who} kept up in all rounds.")
    if any(not kept_up(rate, turns) for rate in results for turns in results[rate].values()):
        found.append(
            "The delay of a system that did not keep up is that of a queue: its length follows "
            "from how many puts may wait and how long one looks, and what had not arrived in the "
            "end is in no percentile."
        )
    return found


def deliveries(results: Results) -> Table:
    """How much arrived, and how late."""
    header = [
        *("puts/s", "system", "puts done/s", "events/s", "spread"),
        *("delay p50 ms", "p99 ms", "spread", "longest ms"),
    ]
    rows = []
    for rate, by_name in results.items():
        for name, turns in by_name.items():
            done = _median(turns, lambda turn: turn.run.puts.done * 1e6 / turn.run.elapsed_us)
            p50 = _median(turns, lambda turn: turn.run.delay.at(50.0) / 1e3)
            rates = [_rate(turn) for turn in turns]
            delays = [_p99_ms(turn) for turn in turns]
            rows.append(
                [
                    *(f"{rate:,}", name, f"{done:,.0f}"),
                    f"{statistics.median(rates):,.0f}",
                    f"{min(rates):,.0f} to {max(rates):,.0f}",
                    *(f"{p50:.1f}", f"{statistics.median(delays):.1f}"),
                    f"{min(delays):.1f} to {max(delays):.1f}",
                    f"{max(turn.run.delay.max_us for turn in turns) / 1e3:.1f}",
                ]
            )
    caption = "Puts and events by the time until the last event had arrived."
    return Table(header=header, rows=rows, caption=caption)


def costs(results: Results) -> Table:
    """What it took, and what went wrong."""
    header = [
        *("puts/s", "system", "leader's CPU µs an event", "three nodes' CPU µs an event"),
        *("generator's CPU µs an event", "puts not sent", "put errors"),
        *("events missing", "twice", "strange", "watchers ended"),
    ]
    rows = []
    for rate, by_name in results.items():
        for name, turns in by_name.items():
            own = _median(turns, lambda turn: turn.run.own_cpu_us / turn.run.events)
            rows.append(
                [
                    *(f"{rate:,}", name),
                    f"{_median(turns, lambda turn: turn.leader_cpu_us):.2f}",
                    f"{_median(turns, lambda turn: turn.all_cpu_us):.2f}",
                    f"{own:.2f}",
                    *(str(count) for count in _counts([turn.run for turn in turns])),
                ]
            )
    caption = (
        "CPU for each event, and what went wrong in all rounds: puts that found no room; puts that "
        "failed; events of acknowledged puts that had not arrived ten seconds after the last put, "
        "arrived twice, or were of no put; streams that the server ended."
    )
    return Table(header=header, rows=rows, caption=caption)


def _counts(runs: Sequence[Watch]) -> list[int]:
    return [
        sum(run.puts.overflowed for run in runs),
        sum(run.puts.errors - run.puts.overflowed for run in runs),
        sum(run.missing for run in runs),
        sum(run.duplicates for run in runs),
        sum(run.strange for run in runs),
        sum(run.ended for run in runs),
    ]


def _figure(by_name: Mapping[str, Sequence[Turn]], watchers: int) -> Figure:
    return Figure(
        name="watch",
        title=f"Delay of events to {watchers:,} watchers at {RATES[0]} puts/s",
        x_label="one event in so many comes later",
        y_label="delay, ms",
        series=[
            generator.distribution(name, [turn.run.delay for turn in turns])
            for name, turns in by_name.items()
        ],
        x_log=True,
        y_log=True,
    )


def goals(results: Results) -> list[Goal]:
    """Three a rate: how much, at what cost, how late. A fault of ours is all of them missed."""
    found = []
    for rate, by_name in results.items():
        mine, theirs = by_name["kvstore"], by_name.get("etcd")
        where = f"watch, {mine[0].run.watchers:,} watchers, {rate:,} puts/s: "
        faults = sum(turn.faults for turn in mine)
        for goal in (
            _goal_of_events(where, rate, mine, theirs),
            goal_of_ratio(
                where + "the leader's CPU an event",
                f"at most {CPU_RATIO:g} times etcd's",
                _median(mine, lambda turn: turn.leader_cpu_us),
                _median(theirs, lambda turn: turn.leader_cpu_us) if theirs else None,
                CPU_RATIO,
            ),
            goal_of_ratio(
                where + "p99 delay",
                "no worse than etcd's",
                _median(mine, _p99_ms),
                _median(theirs, _p99_ms) if theirs else None,
                1.0,
            ),
        ):
            if faults:
                words = f"{goal.found}, {faults} faults"
                found.append(msgspec.structs.replace(goal, found=words, met=False))
            else:
                found.append(goal)
    return found


def _goal_of_events(
    where: str, rate: int, mine: Sequence[Turn], theirs: Sequence[Turn] | None
) -> Goal:
    """Nobody can deliver more than there is: who delivers all of it has done what was wanted."""
    ours_rate = _median(mine, _rate)
    other = _median(theirs, _rate) if theirs else None
    complete = kept_up(rate, mine)
    found = times(ours_rate, other) + (", all of them" if complete else "")
    return Goal(
        what=where + "events/s",
        wanted=f"at least {EVENTS_RATIO:g} times etcd, or all there are",
        found=found,
        met=complete or (other is not None and ours_rate >= EVENTS_RATIO * other),
    )
