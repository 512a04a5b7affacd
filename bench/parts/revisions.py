"""Does memory stay flat while revisions come and go? Ten million of them; eight minutes in all.

One node each, one system after the other, with compaction by itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from bench.figures import BenchError, Figure, Goal, Section, Series, Table
from bench.filling import FILL_CONNECTIONS, HOT_KEYS, VALUE_BYTES, fill
from bench.growth import both, growth_of_last_third, running, section
from bench.load import cpu_seconds
from bench.parts import Options, say
from bench.processes import disk_bytes, memory
from bench.systems import TXN_OPS, System

REVISIONS: Final = 10_000_000
REVISIONS_QUICK: Final = 200_000
CHUNK: Final = 100_000
"""How many are written between two words about how far it is."""
SECONDS_MAX: Final = 900.0
"""A system that has not written all by then is stopped where it is, and the page says so."""
SECONDS_MAX_QUICK: Final = 6.0
SAMPLE_SECONDS: Final = 1.0
SAMPLE_SECONDS_QUICK: Final = 0.1
RETENTION: Final = "2s"
SNAPSHOT_ENTRIES: Final = 5_000
"""etcd keeps its log in memory from one snapshot to the next: 100,000 entries by default, and of a
hundred puts each those are gigabytes. The log is not what is looked at here."""
QUOTA_BYTES: Final = 8 * 1024**3
GROWTH_MAX: Final = 0.02

TEXT: Final = """\
One node each, one system after the other: {revisions:,} puts of {value_bytes}-byte values over
{keys:,} keys, by transactions of {ops} puts over {connections} connections. The puts of a
transaction share the number of the store's revision, but each leaves a version of its key of its
own, and those are what memory would grow by: {revisions:,} of them. Both compact by themselves with
`--auto-compaction-mode=periodic --auto-compaction-retention={retention}`: in mode `revision` both
look only every five minutes, so that a run would see a compaction or two. Both take a snapshot
every {entries:,} entries of the log, because etcd keeps the log in memory until then, and with its
default of 100,000 such transactions that would be gigabytes. All other settings are the defaults,
but for the quota of 8 GiB. Resident memory and files are looked at every {sample:g} s; growth is
the slope of the straight line through the last third of the run, times the length of that third,
over its mean memory. A system that takes longer than {seconds:,.0f} s is stopped there."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """How it was at one moment."""

    revisions: int
    resident: int
    """Bytes of memory."""
    disk: int
    """Bytes of files."""


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """One system's run."""

    samples: list[Sample]
    revisions: int
    seconds: float
    cpu: float
    """Seconds on cores."""
    peak: int

    @property
    def growth(self) -> float:
        """Of memory over the last third, as a share of its mean there."""
        x = [float(sample.revisions) for sample in self.samples]
        return growth_of_last_third(x, [float(sample.resident) for sample in self.samples])


class Sampler:
    """Looks at a process from a thread, until it is left."""

    def __init__(self, system: System, sample_seconds: float) -> None:
        self._pid = system.pids[0]
        self._data_dir = system.data_dirs[0]
        self._sample_seconds = sample_seconds
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.written = 0
        """How many revisions the load has handed out; the load counts."""
        self.samples: list[Sample] = []

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._leaving.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._leaving.wait(self._sample_seconds):
            try:
                resident = memory(self._pid).resident
            except BenchError:
                return  # It has ended; the load finds that out and says so.
            disk = disk_bytes(self._data_dir)
            sample = Sample(revisions=self.written, resident=resident, disk=disk)
            self.samples.append(sample)


def measure(options: Options, base_dir: Path) -> Section:
    """Let both write, and look at them.

    Raises:
        BenchError: One does not do its work.
    """
    revisions = REVISIONS_QUICK if options.quick else REVISIONS
    seconds_max = SECONDS_MAX_QUICK if options.quick else SECONDS_MAX
    sample_seconds = SAMPLE_SECONDS_QUICK if options.quick else SAMPLE_SECONDS
    systems = both(
        extra=[
            "--auto-compaction-mode=periodic",
            f"--auto-compaction-retention={RETENTION}",
            f"--snapshot-count={SNAPSHOT_ENTRIES}",
            f"--quota-backend-bytes={QUOTA_BYTES}",
        ]
    )
    found: dict[str, Course] = {}
    for system in systems:
        with running(system, base_dir):
            found[system.name] = _run(system, revisions, seconds_max, sample_seconds)
    text = TEXT.format(
        revisions=revisions,
        value_bytes=VALUE_BYTES,
        keys=HOT_KEYS,
        ops=TXN_OPS,
        connections=FILL_CONNECTIONS,
        retention=RETENTION,
        entries=SNAPSHOT_ENTRIES,
        sample=sample_seconds,
        seconds=seconds_max,
    )
    return section(
        "revisions",
        "Ten million revisions",
        text,
        systems,
        [_table(found)],
        _figures(found),
        [_goal(found["kvstore"], revisions)],
    )


def _run(system: System, revisions: int, seconds_max: float, sample_seconds: float) -> Course:
    pid = system.pids[0]
    cpu = cpu_seconds([pid])
    start = time.monotonic()
    with Sampler(system, sample_seconds) as sampler:
        while sampler.written < revisions and time.monotonic() - start < seconds_max:
            chunk = min(CHUNK, revisions - sampler.written)
            fill(system.urls[0], _numbers(sampler, chunk))
            system.check_alive()
            if sampler.samples and sampler.written % (10 * CHUNK) == 0:
                say(
                    f"revisions: {system.name}: {sampler.written:,} in "
                    f"{time.monotonic() - start:.0f} s, "
                    f"{sampler.samples[-1].resident / 1e6:,.0f} MB"
                )
    return Course(
        samples=sampler.samples,
        revisions=sampler.written,
        seconds=time.monotonic() - start,
        cpu=cpu_seconds([pid]) - cpu,
        peak=memory(pid).peak,
    )


def _numbers(sampler: Sampler, count: int) -> Iterator[int]:
    """The keys to put next, round and round; counts them as they are taken."""
    for number in range(sampler.written, sampler.written + count):
        sampler.written += 1
        yield number % HOT_KEYS


def _table(found: dict[str, Course]) -> Table:
    runs = list(found.values())
    rows = [
        ["revisions written", *(f"{one.revisions:,}" for one in runs)],
        ["seconds", *(f"{one.seconds:,.0f}" for one in runs)],
        ["revisions/s", *(f"{one.revisions / one.seconds:,.0f}" for one in runs)],
        ["CPU a revision, µs", *(f"{one.cpu / one.revisions * 1e6:.1f}" for one in runs)],
        ["growth over the last third, %", *(f"{one.growth * 100:+.1f}" for one in runs)],
        ["memory at the end, MB", *(f"{one.samples[-1].resident / 1e6:,.0f}" for one in runs)],
        ["memory at most, MB", *(f"{one.peak / 1e6:,.0f}" for one in runs)],
        ["files at the end, MB", *(f"{one.samples[-1].disk / 1e6:,.0f}" for one in runs)],
        ["files at most, MB", *(f"{_disk_max(one) / 1e6:,.0f}" for one in runs)],
    ]
    return Table(header=["", *found], rows=rows)


def _disk_max(course: Course) -> int:
    return max(sample.disk for sample in course.samples)


def _figures(found: dict[str, Course]) -> list[Figure]:
    return [
        Figure(
            name="revisions-memory",
            title="Memory while revisions come and go",
            x_label="revisions written, millions",
            y_label="resident memory, MB",
            series=[
                Series(
                    name=name,
                    x=[sample.revisions / 1e6 for sample in one.samples],
                    y=[sample.resident / 1e6 for sample in one.samples],
                )
                for name, one in found.items()
            ],
        ),
        Figure(
            name="revisions-disk",
            title="Files while revisions come and go",
            x_label="revisions written, millions",
            y_label="files, MB",
            series=[
                Series(
                    name=name,
                    x=[sample.revisions / 1e6 for sample in one.samples],
                    y=[sample.disk / 1e6 for sample in one.samples],
                )
                for name, one in found.items()
            ],
        ),
    ]


def _goal(mine: Course, wanted: int) -> Goal:
    complete = mine.revisions >= wanted
    rest = "" if complete else f", after {mine.revisions:,} only"
    return Goal(
        what=f"{wanted:,} revisions with compaction by itself: memory",
        wanted="grows under 2 % over the last third",
        found=f"{mine.growth * 100:+.1f} %{rest}",
        met=complete and mine.growth < GROWTH_MAX,
    )
