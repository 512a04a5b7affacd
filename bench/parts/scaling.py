"""Would front workers pay, and what would a node reach with more cores?

A prototype is measured beside the product's single process, and what is left open by a machine of
few cores is computed from what each call cost whom. Ten minutes with the defaults.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench import grpc_load, load
from bench.figures import Section
from bench.machine import machine, measured_on
from bench.parts import Options, say
from bench.processes import memory
from bench.scaling import tables
from bench.scaling.cpu import pin
from bench.scaling.rig import Rig
from bench.scaling.tables import Fed, Found, Loaded
from bench.scaling.trials import Case, Trial, feed_turn, load_turn
from kvstore.version import KVSTORE_VERSION

CALLS: Final = ("put", "get", "serializable")
GROUPS: Final = (1, 2, 3)
"""How many workers stand in front of the node."""
CASES: Final = (
    *(
        Case(call, connections, workers)
        for call in CALLS
        for connections in (64, 256)
        for workers in (0, *GROUPS)
    ),
    *(Case(call, 1, workers) for call in ("put", "get") for workers in (0, 1)),
    *(
        Case(call, tables.GRPC_CONNECTIONS, workers, tables.GRPC_STREAMS)
        for call in ("put", "get")
        for workers in (0, 2)
    ),
    *(Case(call, 1, 0, 64) for call in ("put", "get")),
)
PINNED_CASES: Final = tuple(Case(call, 256, workers) for call in CALLS for workers in (0, 1))
REPLICATED_CASES: Final = tuple(
    Case(call, 256, workers) for call in ("put", "get") for workers in (0, 1)
)
QUICK_CASES: Final = tuple(
    Case(call, 256, workers) for call in ("put", "get") for workers in (0, 2)
)
UNDER_WAY: Final = (4, 64, 256, 1024)
SECONDS_MAX: Final = 2
"""Short turns, so that what is compared runs within seconds of each other."""

TEXT: Final = """\
A prototype of front workers (`bench/scaling`, no part of the product) beside a node as it is, one
node on this machine: {rounds} rounds of turns of {seconds} s, who begins alternates. All designs
ask the same node, so that store and disk are the same for all: "0 workers" is its own port, and
each group of workers has another in front of it. Values of 256 bytes, 10,000 keys; wrk and h2load
with one thread each, on the same cores.

Costs are microseconds of a core for each answer, from the scheduler's clock by thread
(`/proc/<pid>/task/*/schedstat`), kernel and loopback included. "Loop" is the thread of the node's
event loop, "disk" all its others together; what the kernel spends on syncs by itself is in neither.
"Strangers" are cores that were busy with anything that does not belong to the turn: where they are
many, rates are too low for all designs, and costs somewhat too high.
"""


def measure(options: Options, base_dir: Path) -> Section:
    """Measure prototype and product in turns, then compute.

    Raises:
        BenchError: A process does not come up, or a load does not do its work.
    """
    load.wrk()
    rounds = 1 if options.quick else options.rounds
    seconds = 1 if options.quick else min(options.seconds, SECONDS_MAX)
    found = Found()
    _single(found, base_dir, rounds, seconds, quick=options.quick)
    if not options.quick:
        _replicated(found, base_dir, rounds, seconds)
    return Section(
        part="scaling",
        title="More cores",
        text=TEXT.format(rounds=rounds, seconds=seconds),
        measured_on=measured_on([f"kvstore {KVSTORE_VERSION}"]),
        machine=machine(),
        tables=tables.all_tables(found),
        figures=tables.figures(found),
    )


def _single(found: Found, base_dir: Path, rounds: int, seconds: int, *, quick: bool) -> None:
    """One node: with and without workers, fed alone, and held to one core."""
    cases: Sequence[Case] = QUICK_CASES if quick else CASES
    if not quick:
        grpc_load.h2load()
    asked = {case.workers for case in (*cases, *(() if quick else PINNED_CASES)) if case.workers}
    rig = Rig(base_dir, groups=tuple(sorted(asked)))
    try:
        rig.start()
        found.memory = [memory(pid).resident for pid in (rig.system.pids[0], *rig.pids[-1:])]
        for number in range(rounds):
            _loads(found.loaded, rig, cases, number, seconds)
            for call in ("put", "get") if quick else CALLS:
                for under_way in UNDER_WAY[-1:] if quick else UNDER_WAY:
                    _feed(found.fed, rig, call, under_way, seconds / 2)
            rig.compact()
        if not quick:
            _on_one_core(found, rig, rounds, seconds)
    finally:
        rig.stop()


def _on_one_core(found: Found, rig: Rig, rounds: int, seconds: int) -> None:
    """Node and workers on one core, the generator elsewhere: as on a machine with a single core."""
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        say("scaling: one core only: nothing to keep the generator away from")
        return
    first = min(cores)
    try:
        pin(rig.pids, {first})
        pin([0], cores - {first})
        for number in range(rounds):
            _loads(found.pinned, rig, PINNED_CASES, number, seconds)
            rig.compact()
    finally:
        pin([0], cores)


def _replicated(found: Found, base_dir: Path, rounds: int, seconds: int) -> None:
    """Three nodes, all on this machine: what the leader's followers add, and cost themselves."""
    rig = Rig(base_dir, nodes=3, groups=(1,), number=1)
    try:
        rig.start()
        for number in range(rounds):
            _loads(found.replicated, rig, REPLICATED_CASES, number, seconds)
            for call in ("put", "get"):
                _feed(found.replicated_fed, rig, call, UNDER_WAY[-1], seconds / 2)
            rig.compact()
    finally:
        rig.stop()


def _loads(into: Loaded, rig: Rig, cases: Sequence[Case], number: int, seconds: int) -> None:
    for case in cases if number % 2 == 0 else cases[::-1]:
        trial = load_turn(rig, case, seconds, number)
        into[case].append(trial)
        say(f"scaling: round {number + 1}: {tables.title(case)}: {_in_words(trial)}")


def _feed(into: Fed, rig: Rig, call: str, under_way: int, seconds: float) -> None:
    trial = feed_turn(rig, call, under_way, seconds)
    into[call, under_way].append(trial)
    say(f"scaling: the replica alone, {call}, {under_way} under way: {_in_words(trial)}")


def _in_words(trial: Trial) -> str:
    words = f"{trial.rate:,.0f}/s, node {trial.node_us:.1f} µs"
    words += f", workers {trial.us(trial.workers):.1f} µs" if trial.workers else ""
    words += f", strangers {trial.strangers:.2f} cores"
    return words + (f", {trial.failures} errors" if trial.failures else "")
