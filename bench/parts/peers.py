"""How fast are stores that promise something else? Redis and PySyncObj; three minutes in all."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from bench import grpc_load, load, yardsticks
from bench.figures import BenchError, Section, Table
from bench.growth import both, running
from bench.load import Run, cpu_seconds
from bench.machine import machine, measured_on
from bench.parts import Options, say
from bench.processes import wait_quiet
from bench.systems import System, ours
from bench.yardsticks import PySyncObj, Redis

FIRST_PORT: Final = 17_000
APART: Final = 300
REDIS_PORT: Final = 17_600
PYSYNCOBJ_PORTS: Final = {False: 17_700, True: 17_710}
"""By whether each put is sent on at once."""
CALLS: Final = 64
WARM_SECONDS: Final = 1

SETTLE_SECONDS: Final = 5.0
"""PySyncObj ticks all the time and may never be quiet."""
NONE: Final = "–"
PLAIN_CLAIMS: Final = (
    ["a put survives the loss of its disk: there is one copy", "everybody on one node", NONE],
    ["reads of old revisions, and watches from one on", "Redis, PySyncObj", NONE],
)
"""Of the set-up and of what each is, which nobody need look up in a source."""

TEXT: Final = """\
Yardsticks, no comparison: these stores promise other things, and the last table says what is
missing. {calls} puts of 256 bytes are under way at all times, over 10,000 keys (over gRPC to one
key; the loads are wrk, h2load and redis-benchmark). Those of one table are up at the same time and
take turns, and who begins alternates: {rounds} rounds of about {seconds} s, medians of the rounds.
CPU is that of all processes of a store for each put; of children that write a file anew (Redis,
PySyncObj) a part.

Redis (`--appendonly yes --appendfsync always --save ''`, all else its defaults) syncs its file
before it answers, as kvstore and etcd do, over a protocol of its own. Whenever the file has doubled
it is written anew in the background; kvstore and etcd are compacted after each round.

PySyncObj is Raft as a Python library: three nodes with a replicated dict, journal and dumps on the
disk (`journalFile`, `fullDumpFile`). With its other defaults puts wait for the next heartbeat, ten
a second; with `appendEntriesUseBatch=False` each is sent at once. It has no door for clients, so
the load runs in the leader's own process. That favours it: no put is decoded, received or answered
over a connection, though its CPU includes the load. What it does not promise was read in the source
that is installed, in the files that are named."""


class Loaded(Protocol):
    """Something that puts can be made to."""

    @property
    def pids(self) -> Sequence[int]:
        """All of its processes."""

    def put(self, seconds: int) -> Run:
        """Keep 64 puts under way for so long."""


class Store(msgspec.Struct, frozen=True, kw_only=True):
    """One row: a store and one way to put to it."""

    name: str
    how: str
    """Protocol, connections."""
    loaded: Loaded

    @property
    def title(self) -> str:
        """Of which there is one in a table."""
        return f"{self.name}, {self.how}"


class Group(msgspec.Struct, kw_only=True):
    """Stores that are up at the same time."""

    stores: list[Store] = []
    systems: list[System] = []
    """Those that keep a history."""
    versions: list[str] = []
    missing: list[str] = []
    """A sentence for each store that is not installed."""
    claims: list[list[str]] = []
    """Rows of what they do not promise: what, who, where one sees it."""


class Way:
    """One protocol of kvstore or etcd."""

    def __init__(self, system: System, kind: str) -> None:
        self._system = system
        self._kind = kind

    @property
    def pids(self) -> Sequence[int]:
        """The nodes."""
        return self._system.pids

    def put(self, seconds: int) -> Run:
        """Put to the leader from 64 connections."""
        leader = self._system.leader_url()
        if self._kind == "gRPC":
            run = grpc_load.run(leader, "put", CALLS, 1, seconds)
        else:
            run = load.run([leader], "put", CALLS, seconds, seed=1)
        return msgspec.structs.replace(run, leader_moved=self._system.leader_url() != leader)


Results = Mapping[str, Sequence[Run]]
"""The runs by the title of a store."""


def measure(options: Options, base_dir: Path) -> Section:
    """Load stores of one node, then stores of three.

    Raises:
        BenchError: A store does not come up, or a load does not do its work.
    """
    load.wrk()
    grpc_load.h2load()
    tables: list[Table] = []
    remarks: list[str] = []
    versions: list[str] = []
    claims: list[list[str]] = []
    for title, start in (("One node", _start_one), ("Three nodes", _start_three)):
        with contextlib.ExitStack() as stack:
            group = start(stack, base_dir, options.quick)
            if not options.quick:
                # What one has left to write after its fill must not slow down another's first turn.
                pids = [pid for store in group.stores for pid in store.loaded.pids]
                wait_quiet(pids, SETTLE_SECONDS)
            results = take_turns(group, options)
            remarks += group.missing + moved(results) + cut(group.stores)
        tables.append(table(title, group.stores, results))
        claims += group.claims
        versions += [version for version in group.versions if version not in versions]
    text = TEXT.format(calls=CALLS, rounds=options.rounds, seconds=options.seconds)
    return Section(
        part="peers",
        title="Other stores, as yardsticks",
        text="\n\n".join([text, *remarks]),
        measured_on=measured_on(versions),
        machine=machine(),
        tables=[*tables, lacks(claims)],
    )


def _start_one(stack: contextlib.ExitStack, base_dir: Path, quick: bool) -> Group:
    """One node each of kvstore, etcd and Redis."""
    group = Group(systems=both(FIRST_PORT, apart=APART))
    if len(group.systems) == 1:
        group.missing.append("etcd is not installed (apt-get install etcd-server): no row.")
    for system in group.systems:
        stack.enter_context(running(system, base_dir))
        system.fill()
        group.stores += ways(system, ("JSON",) if quick else ("JSON", "gRPC"))
        group.versions.append(system.version)
    if yardsticks.redis() is None:
        group.missing.append("Redis is not installed (apt-get install redis-server): no row.")
        return group
    redis = Redis(REDIS_PORT)
    stack.callback(redis.stop)
    redis.start(base_dir)
    how = f"its own protocol, {CALLS} connections"
    group.stores.append(Store(name="Redis", how=how, loaded=redis))
    group.versions.append(redis.version)
    return group


def _start_three(stack: contextlib.ExitStack, base_dir: Path, quick: bool) -> Group:
    """Three nodes each of kvstore and PySyncObj."""
    system = stack.enter_context(running(ours(FIRST_PORT), base_dir))
    system.fill()
    group = Group(systems=[system], stores=ways(system, ("JSON",)))
    group.versions.append(system.version)
    source = yardsticks.pysyncobj()
    if source is None:
        group.missing.append("PySyncObj is not installed (pip install pysyncobj): no row.")
        return group
    for at_once in (True,) if quick else (False, True):
        store = PySyncObj(PYSYNCOBJ_PORTS[at_once], at_once=at_once)
        stack.callback(store.stop)
        store.start(base_dir)
        if not quick:
            store.put(WARM_SECONDS)
        how = "each put sent at once" if at_once else "its defaults"
        group.stores.append(Store(name="PySyncObj", how=how, loaded=store))
        if at_once:
            group.versions.append(store.version)
            group.claims = [
                [claim.says, store.version, f"`{claim.file}`"] for claim in yardsticks.hold(source)
            ]
    return group


def ways(system: System, kinds: Sequence[str]) -> list[Store]:
    """The rows of kvstore or etcd."""
    return [
        Store(
            name=system.name,
            how=f"{kind}, {CALLS} connections",
            loaded=Way(system, kind),
        )
        for kind in kinds
    ]


def take_turns(group: Group, options: Options) -> Results:
    """Load each, round by round; who begins alternates.

    Raises:
        BenchError: A store has ended, or a load did not do its work.
    """
    results: dict[str, list[Run]] = {store.title: [] for store in group.stores}
    for number in range(options.rounds):
        for store in group.stores if number % 2 == 0 else group.stores[::-1]:
            pids = store.loaded.pids
            before = cpu_seconds(pids)
            run = store.loaded.put(options.seconds)
            cpu_us = round((cpu_seconds(pids) - before) * 1e6)
            if not run.succeeded:
                raise BenchError(f"{store.title}: no put was a success ({run.errors} errors)")
            results[store.title].append(msgspec.structs.replace(run, cpu_us=cpu_us))
            say(f"peers: round {number + 1}: {store.title}: {_in_words(run)}")
        for system in group.systems:
            system.compact()
    return results


def _in_words(run: Run) -> str:
    words = f"{run.rate:,.0f}/s, p50 {run.p50_us / 1000:.2f} ms, p99 {run.p99_us / 1000:.2f} ms"
    return words + (f", {run.errors} errors" if run.errors else "")


def moved(results: Results) -> list[str]:
    """A sentence for each turn in which another node led in the end."""
    return [
        f"The leader moved in round {number} of {title}: a part of its puts went to a follower."
        for title, runs in results.items()
        for number, run in enumerate(runs, start=1)
        if run.leader_moved
    ]


def cut(stores: Sequence[Store]) -> list[str]:
    """A sentence for each store whose nodes logged that they took back what they had applied."""
    counts = {
        store.title: store.loaded.applied_and_cut()
        for store in stores
        if isinstance(store.loaded, PySyncObj)
    }
    return [
        f"{title}: its nodes logged {count:,} times that they cut entries off their log which they "
        "had applied before, so that they may have diverged."
        for title, count in counts.items()
        if count
    ]


def table(title: str, stores: Sequence[Store], results: Results) -> Table:
    """A row a store: medians of the rounds, errors of all of them."""
    rows = []
    for store in stores:
        runs = results[store.title]
        rates = [run.rate for run in runs]
        rows.append(
            [
                store.title,
                f"{statistics.median(rates):,.0f}",
                f"{min(rates):,.0f} to {max(rates):,.0f}",
                f"{statistics.median(run.p50_us for run in runs) / 1000:.2f}",
                f"{statistics.median(run.p99_us for run in runs) / 1000:.2f}",
                f"{statistics.median(run.cpu_us / run.succeeded for run in runs):,.1f}",
                str(sum(run.errors for run in runs)),
            ]
        )
    columns = ("puts/s", "spread", "p50 ms", "p99 ms", "CPU µs a put", "errors")
    return Table(header=[title, *columns], rows=rows)


def lacks(claims: Sequence[Sequence[str]]) -> Table:
    """What they do not promise."""
    rows = [list(row) for row in (*PLAIN_CLAIMS, *claims)]
    return Table(header=["not promised here", "by", "read in"], rows=rows)
