"""How long are writes refused when the leader is killed? Twenty times each; four minutes in all.

Three nodes each, with the same timeouts. The leader gets SIGKILL, and a client that knows only the
two others tries to put until one acknowledges.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import signal
import statistics
import time
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from bench.figures import BenchError, Figure, Goal, Section, Series, Table
from bench.growth import both, goal_of_ratio, post, running, section
from bench.parts import Options, say
from bench.systems import System

ROUNDS: Final = 20
ROUNDS_QUICK: Final = 1
HEARTBEAT_MS: Final = 100
ELECTION_MS: Final = 1_000
PUT_EVERY_SECONDS: Final = 0.02
"""The client does not wait for one put before it sends the next, to the other node: a put that is
taken while nobody leads may never be answered, and would hide for how long nobody answered."""
PUT_SECONDS_MAX: Final = 1.0
PUTS_AT_A_TIME_MAX: Final = 64
PAUSE_SECONDS: Final = 0.005
CALL_SECONDS_MAX: Final = 10.0
FAILOVER_SECONDS_MAX: Final = 60.0
SETTLE_SECONDS: Final = 1.0
"""Between the return of the node that was killed and the next kill: a heartbeat or ten."""
PORTS_APART: Final = 1_000
KEY: Final = b"failover"

TEXT: Final = """\
Three nodes each, heartbeats every {heartbeat} ms and an election timeout of {election} ms on both,
started once and idle but for this. The systems take turns. Each time a put is acknowledged by the
leader, then the leader's process gets SIGKILL, and a client that knows the two others sends a put
every {every:.0f} ms, to the one and the other in turn, without waiting for those before, until one
is acknowledged. The span from the signal to that answer is shown, median of {rounds} with the
lowest and the highest. Then the put before the kill is looked for (linearizable), and the node that
was killed is started again on its data; it has caught up before the next turn.

A follower waits between one and two election timeouts without a leader before it stands for
election, by chance; votes that were split take longer."""


class Failover(msgspec.Struct, frozen=True, kw_only=True):
    """One kill of a leader."""

    seconds: float
    """From the signal to the next put that was acknowledged."""
    kept: bool
    """Whether the put that was acknowledged before is still there."""


def measure(options: Options, base_dir: Path) -> Section:
    """Kill leaders, in turns.

    Raises:
        BenchError: A system does not recover.
    """
    rounds = ROUNDS_QUICK if options.quick else ROUNDS
    systems = both(
        nodes=3,
        extra=[f"--heartbeat-interval={HEARTBEAT_MS}", f"--election-timeout={ELECTION_MS}"],
        apart=PORTS_APART,
    )
    found: dict[str, list[Failover]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        for system in systems:
            stack.enter_context(running(system, base_dir))
        for number in range(rounds):
            for system in systems if number % 2 == 0 else systems[::-1]:
                one = _fail_over(system, number)
                found[system.name].append(one)
                lost = "" if one.kept else ", AND THE WRITE BEFORE IS LOST"
                say(f"failover: round {number + 1}: {system.name}: {one.seconds:.2f} s{lost}")
    text = TEXT.format(
        heartbeat=HEARTBEAT_MS,
        election=ELECTION_MS,
        every=PUT_EVERY_SECONDS * 1000,
        rounds=rounds,
    )
    return section(
        "failover", "Fail-over", text, systems, [_table(found)], [_figure(found)], _goals(found)
    )


def _fail_over(system: System, number: int) -> Failover:
    """Kill the leader, write elsewhere, and start it again."""
    position = system.leader()
    before = b"before-%d" % number
    post(system.urls[position], "/v3/kv/put", _put(KEY + b"/before", before), CALL_SECONDS_MAX)
    others = [url for each, url in enumerate(system.urls) if each != position]
    start = time.monotonic()
    os.kill(system.pids[position], signal.SIGKILL)
    acknowledged = _put_somewhere(system.name, others)
    after = b"after-%d" % number
    post(others[0], "/v3/kv/put", _put(KEY + b"/after", after), CALL_SECONDS_MAX)
    kept = _get(others[0], KEY + b"/before", serializable=False) == before
    _bring_back(system, position, after)
    return Failover(seconds=acknowledged - start, kept=kept)


def _put_somewhere(name: str, urls: list[str]) -> float:
    """Put until a node acknowledges; returns when that was, monotonic seconds."""
    deadline = time.monotonic() + FAILOVER_SECONDS_MAX
    waiting: set[Future[float | None]] = set()
    turns = itertools.cycle(urls)
    with ThreadPoolExecutor(PUTS_AT_A_TIME_MAX) as threads:
        while time.monotonic() < deadline:
            if len(waiting) < PUTS_AT_A_TIME_MAX:
                waiting.add(threads.submit(_try_put, next(turns)))
            time.sleep(PUT_EVERY_SECONDS)
            ended = {each for each in waiting if each.done()}
            waiting -= ended
            acknowledged = [at for each in ended if (at := each.result()) is not None]
            if acknowledged:
                return min(acknowledged)
    raise BenchError(f"{name} took no write within {FAILOVER_SECONDS_MAX:.0f} s of losing a node")


def _try_put(url: str) -> float | None:
    """When it was acknowledged; None if it was not."""
    try:
        post(url, "/v3/kv/put", _put(KEY + b"/between", b"1"), PUT_SECONDS_MAX)
    except (OSError, BenchError):
        return None
    return time.monotonic()


def _bring_back(system: System, position: int, value: bytes) -> None:
    """Start the node that was killed, and wait until it has what was written meanwhile."""
    system.restart(position)
    deadline = time.monotonic() + FAILOVER_SECONDS_MAX
    while time.monotonic() < deadline:
        try:
            if _get(system.urls[position], KEY + b"/after", serializable=True) == value:
                system.wait_ready()
                time.sleep(SETTLE_SECONDS)
                return
        except (OSError, BenchError):
            system.check_alive()
        time.sleep(PAUSE_SECONDS)
    raise BenchError(f"{system.name}: a node that was started again has not caught up")


def _put(key: bytes, value: bytes) -> bytes:
    return msgspec.json.encode({"key": key, "value": value})


def _get(url: str, key: bytes, *, serializable: bool) -> bytes:
    """The value of a key, empty if it has none."""
    body = msgspec.json.encode({"key": key, "serializable": serializable})
    kvs = post(url, "/v3/kv/range", body, CALL_SECONDS_MAX).get("kvs", [])
    return base64.b64decode(kvs[0]["value"]) if kvs else b""


def _table(found: dict[str, list[Failover]]) -> Table:
    runs = list(found.values())
    rows = [
        ["median, s", *(f"{_median(each):.2f}" for each in runs)],
        ["shortest, s", *(f"{min(one.seconds for one in each):.2f}" for each in runs)],
        ["longest, s", *(f"{max(one.seconds for one in each):.2f}" for each in runs)],
        ["writes before the kill that were lost", *(str(_lost(each)) for each in runs)],
    ]
    return Table(header=["SIGKILL of the leader to the next write", *found], rows=rows)


def _median(failovers: list[Failover]) -> float:
    return statistics.median(one.seconds for one in failovers)


def _lost(failovers: list[Failover]) -> int:
    return sum(not one.kept for one in failovers)


def _figure(found: dict[str, list[Failover]]) -> Figure:
    return Figure(
        name="failover",
        title="From SIGKILL of the leader to the next write",
        x_label="fail-overs, from the shortest to the longest",
        y_label="s",
        series=[
            Series(
                name=name,
                x=[float(rank) for rank in range(1, len(each) + 1)],
                y=sorted(one.seconds for one in each),
            )
            for name, each in found.items()
        ],
    )


def _goals(found: dict[str, list[Failover]]) -> list[Goal]:
    theirs = found.get("etcd")
    lost = _lost(found["kvstore"])
    return [
        goal_of_ratio(
            f"SIGKILL of the leader to the next write, median of {len(found['kvstore'])}",
            "no longer than etcd",
            _median(found["kvstore"]),
            _median(theirs) if theirs else None,
            1.0,
        ),
        Goal(
            what="writes acknowledged before the leader was killed",
            wanted="none lost",
            found="none lost" if not lost else f"{lost} lost",
            met=not lost,
        ),
    ]
