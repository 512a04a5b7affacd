"""Where does the CPU time of a put go, stage by stage, on leader and follower? Two minutes in all.

A sampler looks at the stacks of both nodes while they are loaded, and the kernel says what each of
their threads has spent meanwhile.
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
from bench.sampler import SAMPLES_PER_SECOND, Spent
from bench.systems import System, ours
from kvstore.client import Client

FIRST_PORT: Final = 17_000
LEAD_SECONDS: Final = 1
"""A load lasts so much longer than its samples: the sampler needs a moment to begin."""
ROLES: Final = ("leader", "follower")
LOADS: Final = {
    "gRPC": "gRPC puts, 1 connection × 64 streams",
    "JSON": "HTTP/JSON puts, 64 connections",
}

TEXT: Final = """\
Three nodes of kvstore on this machine, every put (256 bytes) synced on a majority before its
answer. h2load puts over gRPC (one connection, 64 streams, one key), wrk over HTTP/JSON (64
connections, 10,000 keys), both to the leader; {rounds} rounds of {seconds} s each, without and with
a sampler in turns. py-spy then looks at the leader and at one follower {rate} times a second
without stopping them, and a sample counts to the stage of the innermost function of ours: what a
library or the interpreter does counts to whoever called it. The kernel says how much CPU time each
thread spent, in ticks of {tick_ms:g} ms. Each thread's time is shared out by its own samples, so
that the rows add up to what was spent; the time of a thread that was never seen at work counts to
where it waits for work. The rounds are summed.

What the sampler cannot see: the kernel's work counts where its system call is made. An answer is
sent by whoever writes it, a message to a peer by the links, a sync is begun by the log; reading
sockets and waiting for events is the event loop's, and so is what uvloop does in C. What the kernel
does in threads of its own (the syncs themselves, a part of the network) is nobody's here. A thread
that sleeps leaves no sample, in particular none of waiting for events; but one that could run and
has no processor is seen where it stands. Mostly it has just been woken, so the event loop's share
is rather too large where the processors are full, as they are here. As no node is stopped, some
stacks are read while they change: a piece of a stack counts as far as it goes, and one that shows
neither us nor the loop is "{elsewhere}"."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """What one node spent in one turn, in microseconds."""

    threads: dict[str, Spent]
    """By where they wait for work; all that wait in the same stage together."""
    stages: dict[str, float] = {}
    """User and system time by stage; empty if nobody sampled."""
    samples: int = 0
    lost: int = 0
    """Stacks that could not be read at all."""

    @property
    def cpu_us(self) -> float:
        """User and system time of all threads."""
        return sum(spent.cpu_us for spent in self.threads.values())


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One load, and what leader and follower (by role) spent on it."""

    run: Run
    nodes: dict[str, Node]


Results = Mapping[str, Mapping[bool, Sequence[Turn]]]
"""The turns of each load, without and with the sampler."""


def measure(options: Options, base_dir: Path) -> Section:
    """Load three nodes, with and without a sampler in turns.

    Raises:
        BenchError: A program is missing, the nodes may not be sampled, or a load does not work.
    """
    load.wrk()
    grpc_load.h2load()
    program = sampler.py_spy()
    system = ours(FIRST_PORT)
    results: dict[str, dict[bool, list[Turn]]] = {
        kind: {sampled: [] for sampled in (False, True)} for kind in LOADS
    }
    moved = []
    with running(system, base_dir):
        system.fill()
        load.run([system.leader_url()], "put", 64, 1, seed=0)
        wait_quiet(system.pids)
        resting = {pid: sampler.resting(program, pid) for pid in system.pids}
        for number in range(options.rounds):
            for kind in LOADS:
                for sampled in (False, True) if number % 2 == 0 else (True, False):
                    leader = system.leader()
                    spy = program if sampled else ""
                    turn = _turn(system, leader, kind, options.seconds, spy, resting)
                    say(f"account: round {number + 1}: {_in_words(kind, turn, sampled)}")
                    if system.leader() == leader:
                        results[kind][sampled].append(turn)
                    else:
                        moved.append(f"{kind} in round {number + 1}")
            _compact(system)
    for kind, turns in results.items():
        if not all(turns.values()):
            raise BenchError(f"{kind}: the leader moved in every turn: measure again")
    title = "Where the CPU time of a put goes"
    return section("account", title, text(options, moved), [system], tables(results), [], [])


def text(options: Options, moved: Sequence[str]) -> str:
    """What was done, and what was left out."""
    found = TEXT.format(
        rounds=options.rounds,
        seconds=options.seconds + LEAD_SECONDS,
        rate=SAMPLES_PER_SECOND,
        tick_ms=1_000 / os.sysconf("SC_CLK_TCK"),
        elsewhere=stages.ELSEWHERE,
    )
    if moved:
        found += f"\n\nThe leader moved ({'; '.join(moved)}): those turns are in no figure."
    return found


def _turn(
    system: System,
    leader: int,
    kind: str,
    seconds: int,
    program: str,
    resting: Mapping[int, Mapping[int, str]],
) -> Turn:
    """Load the leader, and see what it and one follower spend; nobody samples without a program."""
    places = [leader, (leader + 1) % len(system.pids)]
    pids = [system.pids[place] for place in places]
    seen: list[tuple[str, int]] = []
    with contextlib.ExitStack() as stack:
        samplers = [
            stack.enter_context(sampler.sampling(program, pid, seconds, _samples(system, place)))
            for pid, place in zip(pids, places, strict=True)
            if program
        ]
        before = [sampler.threads(pid) for pid in pids]
        run = _load(system.urls[leader], kind, seconds + LEAD_SECONDS)
        after = [sampler.threads(pid) for pid in pids]
        seen = [each.result() for each in samplers]
    nodes = {}
    for position, (role, pid) in enumerate(zip(ROLES, pids, strict=True)):
        spent = sampler.since(after[position], before[position])
        raw, lost = seen[position] if seen else ("", 0)
        nodes[role] = node(spent, raw, resting[pid], lost)
        if program and not nodes[role].samples:
            raise BenchError(f"py-spy saw nothing of the {role} at work: measure for longer")
    return Turn(run=run, nodes=nodes)


def _samples(system: System, place: int) -> Path:
    return system.data_dirs[place].with_suffix(".samples")


def _load(url: str, kind: str, seconds: int) -> Run:
    if kind == "gRPC":
        return grpc_load.run(url, "put", 1, 64, seconds)
    return load.run([url], "put", 64, seconds, seed=1)


def node(spent: Mapping[int, Spent], raw: str, resting: Mapping[int, str], lost: int) -> Node:
    """What one node spent.

    Args:
        spent: By thread.
        raw: The stacks that py-spy saw; empty if it did not look.
        resting: The stage in which each thread waits for work.
        lost: How many stacks it could not read.
    """
    threads: dict[str, Spent] = {}
    for thread, own in spent.items():
        name = resting.get(thread, stages.UNSEEN)
        old = threads.get(name, Spent(user_us=0.0, system_us=0.0))
        threads[name] = Spent(
            user_us=old.user_us + own.user_us, system_us=old.system_us + own.system_us
        )
    if not raw:
        return Node(threads=threads, lost=lost)
    samples = stages.count(raw)
    cpu_us = {thread: own.cpu_us for thread, own in spent.items()}
    return Node(
        threads=threads,
        stages=stages.share(cpu_us, samples, resting),
        samples=sum(sum(each.values()) for each in samples.values()),
        lost=lost,
    )


def _in_words(kind: str, turn: Turn, sampled: bool) -> str:
    spent = ", ".join(
        f"{role} {each.cpu_us / turn.run.succeeded:.1f} µs a put"
        for role, each in turn.nodes.items()
    )
    words = f"{kind}, {'sampled' if sampled else 'not sampled'}: {turn.run.rate:,.0f}/s, {spent}"
    return words + (f", {turn.run.errors} errors" if turn.run.errors else "")


def _compact(system: System) -> None:
    """Forget the history: later rounds must not be of a larger store."""
    with Client([system.leader_url()]) as client:
        header = client.get(b"key-00000").header
        if header is not None:
            client.compact(header.revision, physical=True)


def tables(results: Results) -> list[Table]:
    """One by stages a load; then threads, and what the sampler changes."""
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
    lost = sum(turn.nodes[role].lost for turn in turns for role in ROLES)
    caption = (
        f"{title}: {puts:,} puts, {samples[0]:,} and {samples[1]:,} samples, {lost:,} stacks "
        "that could not be read. CPU time of the process, user and system, in the order in which "
        "a put meets the stages."
    )
    columns = (cell for role in ROLES for cell in (f"{role}, µs a put", "%"))
    return Table(header=["stage", *columns], rows=rows, caption=caption)


def _cells(cpu_us: float, total_us: float) -> list[str]:
    return [f"{cpu_us:.2f}", f"{100 * cpu_us / total_us:.1f}" if total_us else "–"]


def _threads(results: Results) -> Table:
    """User and system time apart; of the turns without the sampler, whose system calls are none."""
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
        caption="What the kernel says that the threads spent on a put, without the sampler.",
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
        header=["puts", "sampler", "puts/s", "change", *columns, "errors"],
        rows=rows,
        caption="What the sampler costs: it competes with the nodes for the processors.",
    )


def _cpu_us(turns: Sequence[Turn], role: str) -> float:
    return sum(turn.nodes[role].cpu_us for turn in turns) / _puts(turns)
