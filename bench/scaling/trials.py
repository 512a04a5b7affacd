"""What does one turn of load cost each of those who take part in it?"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench import grpc_load, load
from bench.figures import BenchError
from bench.load import Run
from bench.scaling import feeder
from bench.scaling.cpu import Spent, spent
from bench.scaling.rig import Rig

_BUSY_FIELDS: Final = (0, 1, 2, 5, 6)
"""User, nice, system, and both kinds of interrupt: not idle, not waiting, not stolen."""


class Case(msgspec.Struct, frozen=True):
    """One load on one design."""

    call: str
    connections: int
    workers: int
    streams: int = 0
    """Calls at a time of each connection over gRPC; 0: it is HTTP/JSON."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One turn. Times on cores are in seconds."""

    requests: int
    failures: int
    rate: float
    p50_us: float
    node: Spent
    followers: Spent = Spent(main=0.0, others=0.0)
    """All of them together."""
    workers: float = 0.0
    generator: float
    strangers: float
    """Cores that were busy with something else, on average."""
    seconds: float
    batch: float = 0.0
    """Calls in a batch; 0: there were none."""

    def us(self, seconds: float) -> float:
        """A time on cores as microseconds for each call."""
        return seconds * 1e6 / self.requests

    @property
    def node_us(self) -> float:
        """What a call cost the node: its loop and its disk's threads."""
        return self.us(self.node.main + self.node.others)

    @property
    def cores(self) -> float:
        """How many cores the node and its workers had on average."""
        return (self.node.main + self.node.others + self.workers) / self.seconds


class _Clocks(msgspec.Struct, frozen=True):
    """All that is read before and after a turn."""

    node: Spent
    followers: list[Spent]
    workers: list[Spent]
    children: float
    own: float
    busy: float
    now: float


def parse_busy(stat: str, ticks_a_second: int) -> float:
    """Read ``/proc/stat``: how long all cores have been busy, in seconds together.

    Raises:
        BenchError: It does not begin with the sum of all cores.
    """
    fields = stat.partition("\n")[0].split()
    if fields[:1] != ["cpu"]:
        raise BenchError("/proc/stat does not begin with the sum of all cores")
    return sum(int(fields[1 + field]) for field in _BUSY_FIELDS) / ticks_a_second


def load_turn(rig: Rig, case: Case, seconds: int, seed: int) -> Trial:
    """Load the node, or workers in front of it, for so long.

    Raises:
        BenchError: The load did not do its work, or a process has ended.
    """
    url = rig.url(case.workers)
    pids = rig.worker_pids(case.workers)
    asked = feeder.hello(rig.socket(rig.system.leader()))
    before = _clocks(rig, pids)
    run: Run
    if case.streams:
        run = grpc_load.run(url, case.call, case.connections, case.streams, seconds)
    else:
        run = load.run([url], case.call, case.connections, seconds, seed)
    after = _clocks(rig, pids)
    said = feeder.hello(rig.socket(rig.system.leader()))
    batches = said.batches - asked.batches
    return msgspec.structs.replace(
        _trial(before, after, run.requests, run.errors, run.duration_us / 1e6),
        rate=run.rate,
        p50_us=run.p50_us,
        batch=(said.calls - asked.calls) / batches if batches else 0.0,
    )


def feed_turn(rig: Rig, call: str, under_way: int, seconds: float) -> Trial:
    """Keep the leader busy with batches and nothing else, for so long.

    Raises:
        BenchError: It does not answer, or a process has ended.
    """
    path = rig.socket(rig.system.leader())
    before = _clocks(rig, [])
    fed = feeder.feed(path, call, under_way, seconds)
    after = _clocks(rig, [])
    return msgspec.structs.replace(
        _trial(before, after, fed.answers, fed.failures, fed.seconds),
        rate=fed.rate,
        batch=fed.batch,
        # Here the generator is this process.
        generator=after.own - before.own,
    )


def _clocks(rig: Rig, worker_pids: Sequence[int]) -> _Clocks:
    leader = rig.system.leader()
    nodes = [spent(pid) for pid in rig.system.pids]
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return _Clocks(
        node=nodes.pop(leader),
        followers=nodes,
        workers=[spent(pid) for pid in worker_pids],
        children=children.ru_utime + children.ru_stime,
        own=own.ru_utime + own.ru_stime,
        busy=parse_busy(Path("/proc/stat").read_text(), os.sysconf("SC_CLK_TCK")),
        now=time.monotonic(),
    )


def _trial(before: _Clocks, after: _Clocks, requests: int, failures: int, seconds: float) -> Trial:
    node = after.node - before.node
    followers = Spent(main=0.0, others=0.0)
    for late, early in zip(after.followers, before.followers, strict=True):
        one = late - early
        followers = Spent(main=followers.main + one.main, others=followers.others + one.others)
    workers = sum(
        (late - early).main + (late - early).others
        for late, early in zip(after.workers, before.workers, strict=True)
    )
    generator = after.children - before.children
    known = node.main + node.others + followers.main + followers.others + workers + generator
    known += after.own - before.own
    strangers = max(after.busy - before.busy - known, 0.0) / (after.now - before.now)
    return Trial(
        requests=requests,
        failures=failures,
        rate=0.0,
        p50_us=0.0,
        node=node,
        followers=followers,
        workers=workers,
        generator=generator,
        strangers=strangers,
        seconds=seconds,
    )
