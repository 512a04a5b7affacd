"""What does a million keys cost? Memory, start, snapshots under load; five minutes in all.

One node each, one system after the other. Keys are put in by transactions of a hundred. Then puts
come at a steady rate while a snapshot falls due and history is compacted. Then the node is stopped
cleanly and started again.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import msgspec

from bench import prober
from bench.figures import BenchError, Figure, Goal, Section, Series, Table
from bench.filling import KEY_BYTES, VALUE_BYTES, Answered, fill, key_of, steady_puts
from bench.growth import (
    both,
    goal_of_ratio,
    percentile,
    post,
    running,
    section,
    wait_answered,
)
from bench.parts import Options, say
from bench.prober import Window
from bench.processes import Memory, disk_bytes, memory, wait_quiet
from bench.systems import System

SIZES: Final = (10_000, 100_000, 300_000, 1_000_000)
SIZES_QUICK: Final = (5_000, 20_000)
SNAPSHOT_ENTRIES: Final = 15_000
"""After the fill (10,000 entries) the first snapshot is due five seconds into the load."""
SNAPSHOT_ENTRIES_QUICK: Final = 1_000
RATE: Final = 1_000
LOAD_SECONDS: Final = 30.0
LOAD_SECONDS_QUICK: Final = 2.5
QUOTA_BYTES: Final = 8 * 1024**3
CALL_SECONDS_MAX: Final = 120.0

RATIO_MAX: Final = 2.0
KEY_BYTES_MAX: Final = 700.0
READY_RATIO_MAX: Final = 3.0
READY_SECONDS_MAX: Final = 5.0
STALL_SECONDS_MAX: Final = 0.010
P99_RATIO_MAX: Final = 2.0

TEXT: Final = """\
One node each with `--snapshot-count={entries}`, one system after the other: {keys:,} keys of
{key_bytes} bytes with values of {value_bytes}, put in by transactions of 100 puts over 4
connections. Memory is what the kernel counts as resident (VmRSS) once the process is quiet. For
etcd that includes the pages of its file that it has mapped and touched; they are shown apart. Bytes
a key are what memory has grown since before the fill, over the keys.

Then {rate:,} puts a second, sent on time however late the answers are (an open loop, over 64
connections, from a process of its own), for {seconds:g} s. A snapshot falls due meanwhile, and
when it begins history is compacted (physically, all that can go). Puts that overlap either are held
against the others. etcd's snapshot is a mark beside a file that it writes anyway; ours writes the
state out. Stalls are seen from outside, by `GET /version` over one connection every millisecond:
kvstore's own counter knows only those of two ticks. What the prober waits for a core of the machine
is in it, so the quiet figure is the floor.

Last, SIGTERM and a new start on the same data, in the page cache: seconds to the first linearizable
get of a key that was there. The goals about memory take the worse of after the fill and after this
start: a log that is kept in memory for followers counts in the one and not in the other."""


class Grown(msgspec.Struct, frozen=True, kw_only=True):
    """What one system showed."""

    before: Memory
    filled: list[Memory]
    """At each of the sizes."""
    fill_seconds: float
    disk: int
    quiet_puts: list[float]
    busy_puts: list[float]
    quiet_probes: list[float]
    busy_probes: list[float]
    snapshots: int
    """Stretches in which files of snapshots changed."""
    compaction_seconds: float
    stop_seconds: float
    ready_seconds: float
    restarted: Memory

    def bytes_a_key(self, then: Memory, keys: int) -> float:
        """What a key has added to memory, in bytes."""
        return (then.resident - self.before.resident) / keys


def measure(options: Options, base_dir: Path) -> Section:
    """Fill both, load them, start them again.

    Raises:
        BenchError: One does not do its work, or no snapshot was seen.
    """
    sizes = SIZES_QUICK if options.quick else SIZES
    entries = SNAPSHOT_ENTRIES_QUICK if options.quick else SNAPSHOT_ENTRIES
    seconds = LOAD_SECONDS_QUICK if options.quick else LOAD_SECONDS
    systems = both(extra=[f"--snapshot-count={entries}", f"--quota-backend-bytes={QUOTA_BYTES}"])
    found: dict[str, Grown] = {}
    for system in systems:
        with running(system, base_dir):
            found[system.name] = _grow(system, sizes, seconds)
    text = TEXT.format(
        entries=entries,
        keys=sizes[-1],
        key_bytes=KEY_BYTES,
        value_bytes=VALUE_BYTES,
        rate=RATE,
        seconds=seconds,
    )
    return section(
        "memory",
        "A million keys",
        text,
        systems,
        [_memory_table(found, sizes[-1]), _load_table(found)],
        [_figure(found, sizes)],
        _goals(found, sizes[-1]),
    )


def _grow(system: System, sizes: tuple[int, ...], seconds: float) -> Grown:
    pid = system.pids[0]
    wait_quiet([pid])
    before = memory(pid)
    filled: list[Memory] = []
    fill_seconds = 0.0
    for first, size in zip((0, *sizes), sizes, strict=False):
        start = time.monotonic()
        fill(system.urls[0], range(first, size))
        fill_seconds += time.monotonic() - start
        wait_quiet([pid])
        filled.append(memory(pid))
        say(f"memory: {system.name}: {size:,} keys: {filled[-1].resident / 1e6:,.0f} MB")
    answered, seen, compaction = _load(system, seconds)
    if not seen.changes:
        raise BenchError(f"{system.name} took no snapshot under load: load it for longer")
    busy = prober.windows(seen.changes, [compaction])
    quiet_puts, busy_puts = prober.split(answered, busy)
    quiet_probes, busy_probes = prober.split(seen.probes, busy)
    quiet, slow = (_milliseconds(percentile(puts, 0.99)) for puts in (quiet_puts, busy_puts))
    say(
        f"memory: {system.name}: p99 of puts {slow} ms during snapshot and compaction, else {quiet}"
    )
    disk = disk_bytes(system.data_dirs[0])
    stop_seconds, ready_seconds = _restart(system)
    wait_quiet([system.pids[0]])
    return Grown(
        before=before,
        filled=filled,
        fill_seconds=fill_seconds,
        disk=disk,
        quiet_puts=quiet_puts,
        busy_puts=busy_puts,
        quiet_probes=quiet_probes,
        busy_probes=busy_probes,
        snapshots=len(prober.windows(seen.changes, [])),
        compaction_seconds=compaction.end - compaction.start,
        stop_seconds=stop_seconds,
        ready_seconds=ready_seconds,
        restarted=memory(system.pids[0]),
    )


def _load(system: System, seconds: float) -> tuple[list[Answered], prober.Seen, Window]:
    """Steady puts from another process, probes from this one, a compaction at the snapshot."""
    url = system.urls[0]
    spawn = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as processes, ThreadPoolExecutor(1) as threads:
        # The process is there, with all that it imports, before anything is timed.
        processes.submit(steady_puts, url, RATE, 0.1).result(CALL_SECONDS_MAX)
        compacting: list[Future[Window]] = []
        putting = processes.submit(steady_puts, url, RATE, seconds)
        seen = prober.watch(
            url,
            system.data_dirs[0],
            seconds,
            lambda: compacting.append(threads.submit(_compact, url)),
        )
        answered = putting.result(CALL_SECONDS_MAX)
        return answered, seen, compacting[0].result(CALL_SECONDS_MAX)


def _compact(url: str) -> Window:
    """Forget all history, and wait until it is gone from memory and file."""
    start = time.monotonic()
    header = post(url, "/v3/kv/range", b'{"key":"AA=="}', CALL_SECONDS_MAX)["header"]
    body = b'{"revision":%d,"physical":true}' % int(header["revision"])
    post(url, "/v3/kv/compaction", body, CALL_SECONDS_MAX)
    return Window(start, time.monotonic())


def _restart(system: System) -> tuple[float, float]:
    """Seconds that it takes to stop, and from the start to the first linearizable get."""
    start = time.monotonic()
    system.stop()
    stopped = time.monotonic()
    system.restart(0)
    known = msgspec.json.encode({"key": key_of(0)})
    answer = wait_answered(system, "/v3/kv/range", known)
    ready = time.monotonic()
    if answer.get("count") not in {1, "1"}:
        raise BenchError(f"{system.name} has lost a key over a clean restart: {answer}")
    say(f"memory: {system.name}: ready {ready - stopped:.2f} s after its start")
    return stopped - start, ready - stopped


def _memory_table(found: dict[str, Grown], keys: int) -> Table:
    grown = list(found.values())
    rows = [
        ["before the fill, MB", *(_megabytes(one.before.resident) for one in grown)],
        [f"with {keys:,} keys, MB", *(_megabytes(one.filled[-1].resident) for one in grown)],
        ["of that mapped files, MB", *(_megabytes(one.filled[-1].mapped) for one in grown)],
        ["at most until then, MB", *(_megabytes(one.filled[-1].peak) for one in grown)],
        ["bytes a key", *(f"{one.bytes_a_key(one.filled[-1], keys):,.0f}" for one in grown)],
        ["after load and restart, MB", *(_megabytes(one.restarted.resident) for one in grown)],
        ["of that mapped files, MB", *(_megabytes(one.restarted.mapped) for one in grown)],
        ["at most since the restart, MB", *(_megabytes(one.restarted.peak) for one in grown)],
        ["bytes a key", *(f"{one.bytes_a_key(one.restarted, keys):,.0f}" for one in grown)],
        ["on the disk after the load, MB", *(_megabytes(one.disk) for one in grown)],
        ["fill, s", *(f"{one.fill_seconds:.1f}" for one in grown)],
        ["clean stop, s", *(f"{one.stop_seconds:.2f}" for one in grown)],
        ["start to the first get, s", *(f"{one.ready_seconds:.2f}" for one in grown)],
    ]
    return Table(header=["", *found], rows=rows, caption="Memory and start")


def _load_table(found: dict[str, Grown]) -> Table:
    grown = list(found.values())
    rows = [
        ["puts, quiet", *(f"{len(one.quiet_puts):,}" for one in grown)],
        ["p99, ms", *(_milliseconds(percentile(one.quiet_puts, 0.99)) for one in grown)],
        ["longest, ms", *(_milliseconds(max(one.quiet_puts)) for one in grown)],
        ["puts during snapshot or compaction", *(f"{len(one.busy_puts):,}" for one in grown)],
        ["p99, ms", *(_milliseconds(percentile(one.busy_puts, 0.99)) for one in grown)],
        ["longest, ms", *(_milliseconds(max(one.busy_puts)) for one in grown)],
        ["snapshots", *(str(one.snapshots) for one in grown)],
        ["compaction, s", *(f"{one.compaction_seconds:.2f}" for one in grown)],
        ["longest probe, quiet, ms", *(_milliseconds(max(one.quiet_probes)) for one in grown)],
        ["longest probe during them, ms", *(_milliseconds(max(one.busy_probes)) for one in grown)],
        [
            "p99.9 of probes during them, ms",
            *(_milliseconds(percentile(one.busy_probes, 0.999)) for one in grown),
        ],
    ]
    return Table(header=["", *found], rows=rows, caption=f"Under {RATE:,} puts/s")


def _figure(found: dict[str, Grown], sizes: tuple[int, ...]) -> Figure:
    return Figure(
        name="memory-keys",
        title="Memory against the number of keys",
        x_label="keys",
        y_label="resident memory, MB",
        series=[
            Series(
                name=name,
                x=[0.0, *map(float, sizes)],
                y=[one.before.resident / 1e6, *(each.resident / 1e6 for each in one.filled)],
            )
            for name, one in found.items()
        ],
    )


def _goals(found: dict[str, Grown], keys: int) -> list[Goal]:
    mine, theirs = found["kvstore"], found.get("etcd")
    pairs = [(mine.filled[-1], theirs and theirs.filled[-1])]
    pairs.append((mine.restarted, theirs and theirs.restarted))
    worst, other = max(
        ((a.resident, b.resident if b else None) for a, b in pairs),
        key=lambda pair: pair[0] / (pair[1] or 1),
    )
    a_key = max(mine.bytes_a_key(each, keys) for each, _ in pairs)
    ready = mine.ready_seconds
    stall = max(mine.busy_probes)
    busy, quiet = percentile(mine.busy_puts, 0.99), percentile(mine.quiet_puts, 0.99)
    size = f"{keys:,} keys"
    return [
        goal_of_ratio(f"{size}: memory", "at most 2 times etcd's", worst, other, RATIO_MAX),
        Goal(
            what=f"{size}: memory a key",
            wanted="under 700 bytes",
            found=f"{a_key:,.0f} bytes",
            met=a_key < KEY_BYTES_MAX,
        ),
        goal_of_ratio(
            f"{size}: restart to ready",
            "at most 3 times etcd's",
            ready,
            theirs.ready_seconds if theirs else None,
            READY_RATIO_MAX,
        ),
        Goal(
            what=f"{size}: restart to ready",
            wanted="within 5 s",
            found=f"{ready:.2f} s",
            met=ready <= READY_SECONDS_MAX,
        ),
        Goal(
            what=f"{size}: longest stall during snapshot and compaction",
            wanted="at most 10 ms",
            found=f"{stall * 1000:.1f} ms, seen from outside",
            met=stall <= STALL_SECONDS_MAX,
        ),
        Goal(
            what=f"{size}: p99 of puts during snapshot and compaction",
            wanted="at most 2 times the quiet p99",
            found=f"{busy / quiet:.2f} times",
            met=busy <= P99_RATIO_MAX * quiet,
        ),
    ]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f}"
