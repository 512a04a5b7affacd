"""How many puts a second if the nodes were apart, with a delay between them?"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bench import load, rounds
from bench.figures import BenchError, Section, Table
from bench.machine import machine, measured_on
from bench.parts import Options, say
from bench.rounds import Case, Results
from bench.systems import System
from kvstore.cli.processes import Child, stop_all

DELAY_MS: Final = 2
READY_SECONDS: Final = 10.0
CASES: Final = (Case("put", 64, goal=3), Case("put", 256, goal=3))
_RELAY_PORT_OFFSET: Final = 1
"""From where a node listens for its peers to where they find it."""

TEXT: Final = """\
The same puts, but each node reaches the others through a relay of our own in user space
(`bench/relay.py`), one process a system, the same for both: what goes from one node to another
arrives {delay} ms later, in its order, in both directions; clients are not delayed. Wrk calls the
leader over HTTP/JSON. {rounds} rounds of {seconds} s, in turns, as above.

The relay runs on the same processors: the last table says which share of one of them it took
meanwhile, and that share was not there for the nodes and the generator. Without that, the rate of a
system could have been higher by about the share divided by the number of processors.
"""


def measure(options: Options, base_dir: Path, only: str = "", match: str = "") -> Section:
    """Load both systems through relays; about 15 s a round.

    Args:
        options: How much of it.
        base_dir: Where the nodes keep their data meanwhile.
        only: The name of the one system to load; all if it is empty.
        match: Only loads whose title contains this.

    Raises:
        BenchError: A system or a relay does not come up, or a load does not do its work.
    """
    load.wrk()
    cases = [case for case in CASES if match in case.title]
    if not cases:
        titles = ", ".join(case.title for case in CASES)
        raise BenchError(f"no load's title contains {match!r}; there are: {titles}")
    systems = rounds.choose(only)
    relays: dict[str, Child] = {}
    try:
        for system in systems:
            relays[system.name] = _start(system, base_dir)
            rounds.warm(system)
        pids = {name: relay.pid for name, relay in relays.items()}
        results = rounds.take_turns(systems, cases, options.rounds, options.seconds, pids)
    finally:
        for system in systems:
            system.stop()
        stop_all(relays.values())
    when = measured_on(system.version for system in systems)
    return section(results, [system.name for system in systems], when, options)


def _start(system: System, base_dir: Path) -> Child:
    """Start the relay of a system, and the system behind it; returns the relay."""
    advertised = {port: port + _RELAY_PORT_OFFSET for port in system.peer_ports}
    pairs = [f"{listen}:{target}" for target, listen in advertised.items()]
    arguments = [sys.executable, "-m", "bench.relay", *pairs, f"--delay-ms={DELAY_MS}"]
    relay = Child(f"relay of {system.name}", arguments, base_dir / f"relay-{system.name}.log")
    try:
        _wait_ready(relay)
        say(f"starting {system.version}, three nodes with {DELAY_MS} ms between them")
        system.start(base_dir, advertised)
    except BaseException:
        stop_all([relay])
        raise
    return relay


def _wait_ready(relay: Child) -> None:
    """Wait until it listens.

    Raises:
        BenchError: It has ended, or takes longer.
    """
    deadline = time.monotonic() + READY_SECONDS
    while "ready" not in relay.last_words().split():
        if not relay.is_alive() or time.monotonic() > deadline:
            raise BenchError(f"the {relay.name} {relay.ended_how()}:\n{relay.last_words()}")
        time.sleep(0.05)


def section(results: Results, names: Sequence[str], when: str, options: Options) -> Section:
    """The chapter of the page."""
    text = TEXT.format(delay=DELAY_MS, rounds=options.rounds, seconds=options.seconds)
    return Section(
        part="relayed",
        title=f"{DELAY_MS} ms between the nodes",
        text="\n".join([text, *rounds.moved(results)]),
        measured_on=when,
        machine=machine(),
        tables=[*rounds.tables(results, names), relay_table(results, names)],
        goals=rounds.goals(results, names, f"{DELAY_MS} ms between nodes: "),
    )


def relay_table(results: Results, names: Sequence[str]) -> Table:
    """What the relays burned: medians of the rounds."""
    header = ["load", *(f"{name}'s relay {unit}" for name in names for unit in ("CPU µs", "%"))]
    rows = [[case.title, *_relay_cells(by_name, names)] for case, by_name in results.items()]
    return Table(
        header=header,
        rows=rows,
        caption="CPU of the relay for each answer, and its share of one processor.",
    )


def _relay_cells(by_name: Mapping[str, Sequence[load.Run]], names: Sequence[str]) -> list[str]:
    cells = []
    for name in names:
        runs = by_name[name]
        each = statistics.median(run.relay_cpu_us / run.requests for run in runs)
        share = statistics.median(run.relay_cpu_us / run.duration_us for run in runs)
        cells += [f"{each:,.0f}", f"{share * 100:.0f}"]
    return cells
