"""Many seeds on several processes, with progress and a report."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from tests.sim.marks import MARKS
from tests.sim.profile import PROFILES
from tests.sim.run import REAL_SECONDS_MAX, run

REPORT_DIRECTORY = Path(".make/sim")
REPORTS_MAX = 20
FAILURES_SHOWN_MAX = 20
PROGRESS_SECONDS = 10.0


class Failure(msgspec.Struct, frozen=True):
    """A run that broke a promise."""

    profile: str
    seed: int
    checker: str
    message: str

    @property
    def replay(self) -> str:
        """What shows it again, to the same step."""
        return f"{sys.executable} -m tests.sim replay --profile {self.profile} {self.seed}"


class Tally(msgspec.Struct):
    """What the runs of one profile came to.

    Attributes:
        seeds: How many ran.
        virtual_seconds: In their own time.
        real_seconds: Of processor time, about.
        faults: Kind to how many struck.
        calls: Outcome to how many there were.
        marks: How often each came up.
    """

    seeds: int = 0
    virtual_seconds: float = 0.0
    real_seconds: float = 0.0
    faults: dict[str, int] = {}
    calls: dict[str, int] = {}
    marks: dict[str, int] = {}

    def add(self, other: Tally) -> None:
        """Count another one in."""
        self.seeds += other.seeds
        self.virtual_seconds += other.virtual_seconds
        self.real_seconds += other.real_seconds
        for own, more in (
            (self.faults, other.faults),
            (self.calls, other.calls),
            (self.marks, other.marks),
        ):
            for name, count in more.items():
                own[name] = own.get(name, 0) + count


class Campaign(msgspec.Struct):
    """What all of it came to, at which commit, and from which seed on."""

    commit: str
    tallies: dict[str, Tally] = {}
    failures: list[Failure] = []
    real_seconds: float = 0.0
    first: int = 1

    @property
    def seeds(self) -> int:
        """How many seeds ran, of all profiles."""
        return sum(tally.seeds for tally in self.tallies.values())

    @property
    def virtual_seconds(self) -> float:
        """How long the clusters lived, in their own time."""
        return sum(tally.virtual_seconds for tally in self.tallies.values())

    def marks(self) -> Counter[str]:
        """All marks, in the order in which they are explained."""
        counts = Counter(dict.fromkeys(MARKS, 0))
        for tally in self.tallies.values():
            counts.update(tally.marks)
        return counts

    def lines(self) -> Iterator[str]:
        """The report, for people."""
        hours = self.virtual_seconds / 3600
        yield (
            f"{self.seeds} seeds at {self.commit}, {hours:.2f} simulated hours in "
            f"{self.real_seconds:.0f} s ({self.virtual_seconds / max(self.real_seconds, 1e-9):.0f} "
            f"times as fast as the clock)"
        )
        for name, tally in self.tallies.items():
            yield f"  {name}: {tally.seeds} seeds, {tally.virtual_seconds / 3600:.2f} h"
            yield f"    faults: {_counts(tally.faults)}"
            yield f"    calls: {_counts(tally.calls)}"
        yield "  marks:"
        marks = self.marks()
        for mark, count in marks.items():
            if count:
                yield f"    {count:>9,} {mark}"
        missed = [mark for mark, count in marks.items() if not count]
        yield f"  marks never reached: {', '.join(missed) or 'none'}"
        for failure in self.failures[:FAILURES_SHOWN_MAX]:
            yield f"FAILED {failure.profile} {failure.seed} at {self.commit}: {failure.message}"
            yield f"  replay: {failure.replay}"
        if len(self.failures) > FAILURES_SHOWN_MAX:
            yield f"and {len(self.failures) - FAILURES_SHOWN_MAX} more"
        yield f"{len(self.failures)} failures"

    def save(self) -> Path:
        """Write it down as JSON; returns where."""
        REPORT_DIRECTORY.mkdir(parents=True, exist_ok=True)
        path = REPORT_DIRECTORY / f"report-{self.commit}-from-{self.first}.json"
        path.write_text(json.dumps(msgspec.to_builtins(self), indent=1))
        reports = sorted(
            REPORT_DIRECTORY.glob("report-*.json"), key=lambda report: report.stat().st_mtime_ns
        )
        for report in reports[:-REPORTS_MAX]:
            report.unlink()
        return path


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())) or "none"


def run_one(job: tuple[str, int]) -> tuple[str, Tally, Failure | None]:
    """One seed of one profile, in whichever process."""
    name, seed = job
    report = run(seed, PROFILES[name], real_seconds_max=REAL_SECONDS_MAX)
    calls = Counter(operation.outcome.value for operation in report.history.operations)
    struck = Counter(report.struck)
    tally = Tally(
        1,
        report.virtual_seconds,
        report.real_seconds,
        dict(struck),
        dict(calls),
        dict(report.marks),
    )
    violation = report.violation
    failure = None
    if violation is not None:
        failure = Failure(name, seed, violation.checker, str(violation))
    return name, tally, failure


def conduct(
    profiles: list[str],
    *,
    seeds: int,
    first: int,
    seconds_max: float,
    processes: int,
    progress: Callable[[str], Any],
) -> Campaign:
    """Run seeds of profiles in turn.

    Args:
        profiles: Which.
        seeds: How many of each.
        first: The first one.
        seconds_max: No run begins later than this.
        processes: How many at once.
        progress: Shown a line now and then.
    """
    campaign = Campaign(commit_name(), first=first)
    begun = said = time.monotonic()
    jobs = ((name, seed) for seed in range(first, first + seeds) for name in profiles)

    def in_time() -> Iterator[tuple[str, int]]:
        for job in jobs:
            if time.monotonic() - begun > seconds_max:
                return
            yield job

    # A fresh interpreter each: nothing of this process is in theirs.
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for batch in _batches(in_time(), 8 * processes):
            for name, tally, failure in pool.imap_unordered(run_one, batch):
                campaign.tallies.setdefault(name, Tally()).add(tally)
                if failure is not None:
                    campaign.failures.append(failure)
                    progress(f"FAILED {name} {failure.seed}: {failure.message}")
                campaign.real_seconds = time.monotonic() - begun
                if time.monotonic() - said > PROGRESS_SECONDS:
                    said = time.monotonic()
                    progress(_progress(campaign))
    campaign.failures.sort(key=lambda failure: (failure.profile, failure.seed))
    return campaign


def _batches(jobs: Iterator[tuple[str, int]], size: int) -> Iterator[list[tuple[str, int]]]:
    """Few at a time: a pool takes all that an iterator has, and time would count for nothing."""
    while batch := list(islice(jobs, size)):
        yield batch


def _progress(campaign: Campaign) -> str:
    seconds = campaign.real_seconds
    return (
        f"{seconds:.0f} s: {campaign.seeds} seeds, {campaign.seeds / seconds:.1f} a second, "
        f"{campaign.virtual_seconds / 3600:.2f} simulated hours, {len(campaign.failures)} failures"
    )


def commit_name() -> str:
    """What is checked out, as git says it."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "no commit"
