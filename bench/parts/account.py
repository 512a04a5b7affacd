"""Where does the CPU time of a put go, stage by stage, on leader and follower? Two minutes in all.

A timer inside both nodes samples what they work at while they are loaded, and the kernel says what
each of their threads has spent meanwhile.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench import grpc_load, load, sampler, stages
from bench.figures import BenchError, Section, Table
from bench.growth import running, section
from bench.load import Run
from bench.parts import Options, say
from bench.processes import wait_quiet
from bench.sampler import Seen, Spent
from bench.systems import System

FIRST_PORT: Final = 17_000
ROLES: Final = ("leader", "follower")
LOADS: Final = {
    "gRPC": "gRPC puts, 1 connection × 64 streams",
    "JSON": "HTTP/JSON puts, 64 connections",
}

TEXT: Final = """\
Three nodes of kvstore on this machine, every put (256 bytes) synced on a majority before its
answer. h2load puts over gRPC (one connection, 64 streams, one key), wrk over HTTP/JSON (64
connections, 10,000 keys), both to the leader; {rounds} rounds of {seconds} s each, without and with
samples in turns. The nodes are started by `bench/profiled_serve.py`: `kvstore serve` with a timer
that runs on the CPU time of the main thread, at most once a tick of the kernel (mostly 4 ms). A
sample counts to the stage of the innermost module of ours: what a library or the interpreter does
counts to whoever called it. The kernel says how much CPU time each thread spent, in units of
{tick_ms:g} ms. The main thread's is shared out by the samples, that of any other thread counts to
where it waits for work; so the rows add up to what was spent. The rounds are summed.

The timer's handler notes the stack as it is at that moment. What the kernel does counts where its
system call is made: an answer is sent by whoever writes it, a message to a peer by the links, a
sync is begun by the log; reading sockets and waiting for events is the event loop's, and so is what
uvloop does in C. What the kernel does in threads of its own (the syncs themselves, a part of the
network) is nobody's here. Time in which a node could run and has no processor is nobody's either: a
sampler that goes by the clock would count it, mostly to the loop, and where the processors are
full, as they are here, that is as much as the work itself."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """What one node spent in one turn, in microseconds."""

    threads: dict[str, Spent]
    """By where they wait for work; all that wait in the same stage together."""
    stages: dict[str, float] = {}
    """User and system time by stage; empty if nobody sampled."""
    samples: int = 0

    @property
    def cpu_us(self) -> float:
        """User and system time of all threads."""
        return sum(spent.cpu_us for spent in self.threads.values())


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One load, and what leader and follower (by role) spent on it."""

    run: Run
    nodes: dict[str, Node]


Results = Mapping[str, Mapping[bool, Sequence[Turn]]]
"""The turns of each load, without and with samples."""


def measure(options: Options, base_dir: Path) -> Section:
    """Load three nodes, with and without samples in turns.

    Raises:
        BenchError: A program is missing, a node does not come up, or a load does not work.
    """
    load.wrk()
    grpc_load.h2load()
    system = sampler.ours(FIRST_PORT, base_dir)
    results: dict[str, dict[bool, list[Turn]]] = {
        kind: {sampled: [] for sampled in (False, True)} for kind in LOADS
    }
    moved = []
    with running(system, base_dir):
        system.fill()
        load.run([system.leader_url()], "put", 64, 1, seed=0)
        wait_quiet(system.pids)
        with sampler.sampling(system.pids, base_dir) as seen:
            pass
        resting = {
            pid: sampler.resting(pid, each) for pid, each in zip(system.pids, seen, strict=True)
        }
        for number in range(options.rounds):
            for kind in LOADS:
                for sampled in (False, True) if number % 2 == 0 else (True, False):
                    leader = system.leader()
                    where = base_dir if sampled else None
                    turn = _turn(system, leader, kind, options.seconds, where, resting)
                    say(f"account: round {number + 1}: {_in_words(kind, turn, sampled)}")
                    if system.leader() == leader:
                        results[kind][sampled].append(turn)
                    else:
                        moved.append(f"{kind} in round {number + 1}")
            system.compact()
    for kind, turns in results.items():
        if not all(turns.values()):
            raise BenchError(f"{kind}: the leader moved in every turn: measure again")
    title = "Where the CPU time of a put goes"
    return section("account", title, text(options, moved), [system], tables(results), [], [])


def text(options: Options, moved: Sequence[str]) -> str:
    """What was done, and what was left out."""
    found = TEXT.format(
        rounds=options.rounds,
        seconds=options.seconds,
        tick_ms=1_000 / os.sysconf("SC_CLK_TCK"),
    )
    if moved:
        found += f"\n\nThe leader moved ({'; '.join(moved)}): those turns are in no figure."
    return found


def _turn(
    system: System,
    leader: int,
    kind: str,
    seconds: int,
    directory: Path | None,
    resting: Mapping[int, Mapping[int, str]],
) -> Turn:
    """Load the leader, and see what it and one follower spend; nobody samples without a place."""
    pids = [system.pids[place % len(system.pids)] for place in (leader, leader + 1)]
    seen: list[Seen] = []
    with contextlib.ExitStack() as stack:
        if directory is not None:
            seen = stack.enter_context(sampler.sampling(pids, directory))
        before = [sampler.threads(pid) for pid in pids]
        run = _load(system.urls[leader], kind, seconds)
        after = [sampler.threads(pid) for pid in pids]
    nodes = {}
    for position, (role, pid) in enumerate(zip(ROLES, pids, strict=True)):
        spent = sampler.since(after[position], before[position])
        samples = seen[position].samples if seen else {}
        if seen and not samples:
            raise BenchError(f"the {role} was never seen at work: measure for longer")
        nodes[role] = node(pid, spent, samples, resting[pid])
    return Turn(run=run, nodes=nodes)


def _load(url: str, kind: str, seconds: int) -> Run:
    if kind == "gRPC":
        return grpc_load.run(url, "put", 1, 64, seconds)
    return load.run([url], "put", 64, seconds, seed=1)


def node(
    pid: int,
    spent: Mapping[int, Spent],
    samples: Mapping[str, int],
    resting: Mapping[int, str],
) -> Node:
    """What one node spent.

    Args:
        pid: Its process, and with it its main thread.
        spent: By thread.
        samples: Of the main thread, by stage; empty if nobody sampled.
        resting: The stage in which each thread waits for work.
    """
    threads: dict[str, Spent] = {}
    for thread, own in spent.items():
        name = resting.get(thread, stages.UNSEEN)
        old = threads.get(name, Spent(user_us=0.0, system_us=0.0))
        threads[name] = Spent(
            user_us=old.user_us + own.user_us, system_us=old.system_us + own.system_us
        )
    if not samples:
        return Node(threads=threads)
    cpu_us = {thread: own.cpu_us for thread, own in spent.items()}
    return Node(
        threads=threads,
        stages=stages.share(cpu_us, {pid: samples}, resting),
        samples=sum(samples.values()),
    )


def _in_words(kind: str, turn: Turn, sampled: bool) -> str:
    spent = ", ".join(
        f"{role} {each.cpu_us / turn.run.succeeded:.1f} µs a put"
        for role, each in turn.nodes.items()
    )
    words = f"{kind}, {'sampled' if sampled else 'not sampled'}: {turn.run.rate:,.0f}/s, {spent}"
    return words + (f", {turn.run.errors} errors" if turn.run.errors else "")


def tables(results: Results) -> list[Table]:
    """One by stages a load; then threads, and what sampling changes."""
    return [
        *(_stages(LOADS[kind], turns[True]) for kind, turns in results.items()),
        _threads(results),
        _overhead(results),
    ]


def _puts(turns: Sequence[Turn]) -> int:
    return sum(turn.run.succeeded for turn in turns)


def _stages(title: str, turns: Sequence[Turn]) -> Table:
    """What a put costs stage by stage; stages in which nobody was seen are left out."""
    puts = _puts(turns)
    spent: dict[str, dict[str, float]] = {}
    for role in ROLES:
        by_stage: dict[str, float] = defaultdict(float)
        for turn in turns:
            for name, cpu_us in turn.nodes[role].stages.items():
                by_stage[name] += cpu_us / puts
        spent[role] = by_stage
    totals = {role: sum(by_stage.values()) for role, by_stage in spent.items()}
    rows = []
    for name in stages.ROWS:
        if any(by_stage.get(name) for by_stage in spent.values()):
            row = [name]
            for role in ROLES:
                row += _cells(spent[role].get(name, 0.0), totals[role])
            rows.append(row)
    rows.append(["**total**", *(cell for role in ROLES for cell in _cells(*[totals[role]] * 2))])
    samples = [sum(turn.nodes[role].samples for turn in turns) for role in ROLES]
    caption = (
        f"{title}: {puts:,} puts, {samples[0]:,} and {samples[1]:,} samples. CPU time of the "
        "process, user and system, in the order in which a put meets the stages."
    )
    columns = (cell for role in ROLES for cell in (f"{role}, µs a put", "%"))
    return Table(header=["stage", *columns], rows=rows, caption=caption)


def _cells(cpu_us: float, total_us: float) -> list[str]:
    return [f"{cpu_us:.2f}", f"{100 * cpu_us / total_us:.1f}" if total_us else "–"]


def _threads(results: Results) -> Table:
    """User and system time apart; of the turns without samples."""
    rows = []
    for kind, by_sampled in results.items():
        turns = by_sampled[False]
        puts = _puts(turns)
        for role in ROLES:
            names = {name for turn in turns for name in turn.nodes[role].threads}
            for name in [each for each in stages.ROWS if each in names]:
                each = [turn.nodes[role].threads.get(name) for turn in turns]
                user_us = sum(spent.user_us for spent in each if spent) / puts
                system_us = sum(spent.system_us for spent in each if spent) / puts
                if user_us or system_us:
                    total = f"{user_us + system_us:.2f}"
                    rows.append([kind, role, name, f"{user_us:.2f}", f"{system_us:.2f}", total])
    return Table(
        header=["puts", "node", "threads that wait in", "user, µs", "system, µs", "µs a put"],
        rows=rows,
        caption="What the kernel says that the threads spent on a put, without samples.",
    )


def _overhead(results: Results) -> Table:
    rows = []
    for kind, by_sampled in results.items():
        rates = {}
        for sampled, turns in by_sampled.items():
            elapsed_us = sum(turn.run.duration_us for turn in turns)
            rates[sampled] = _puts(turns) * 1e6 / elapsed_us
            rows.append(
                [
                    *(kind, "with" if sampled else "without", f"{rates[sampled]:,.0f}"),
                    f"{rates[sampled] / rates[False] - 1:+.0%}" if sampled else "–",
                    *(f"{_cpu_us(turns, role):.2f}" for role in ROLES),
                    str(sum(turn.run.errors for turn in turns)),
                ]
            )
    columns = (f"{role}, CPU µs a put" for role in ROLES)
    return Table(
        header=["puts", "samples", "puts/s", "change", *columns, "errors"],
        rows=rows,
        caption="What the samples cost.",
    )


def _cpu_us(turns: Sequence[Turn], role: str) -> float:
    return sum(turn.nodes[role].cpu_us for turn in turns) / _puts(turns)
