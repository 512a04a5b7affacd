"""What a run did, counted: a verdict alone does not say how much was tried."""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from collections.abc import Mapping

from tests.checking.history import Outcome


def say(words: str) -> None:
    """A line for whoever looks on."""
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


class Report:
    """Sums of all rounds."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.operations: Counter[tuple[str, Outcome]] = Counter()
        self.faults: Counter[str] = Counter()
        self.idle: Counter[str] = Counter()
        """Faults of which nothing was seen."""
        self.outages: dict[str, tuple[float, str]] = {}
        """By kind of client: the longest that one asked in vain, in seconds, and when that was."""
        self.doubts: list[str] = []
        """What could not be decided."""
        self.rounds = 0
        self.watches = 0
        self.events = 0
        self.judging_seconds = 0.0
        self.judging_seconds_max = 0.0
        self.operations_max = 0
        """In one round: what has to be judged at once."""

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    def saw_fault(self, name: str, *, happened: bool) -> None:
        """A fault is over."""
        (self.faults if happened else self.idle)[name] += 1

    def saw_outages(self, outages: Mapping[str, float], when: str) -> None:
        """A round is over, in which clients asked in vain for so long."""
        for name, seconds in outages.items():
            self.outages[name] = max(self.outages.get(name, (0.0, "")), (seconds, when))

    def saw_judging(self, seconds: float, operations: int) -> None:
        """A round was judged."""
        self.judging_seconds += seconds
        self.judging_seconds_max = max(self.judging_seconds_max, seconds)
        self.operations_max = max(self.operations_max, operations)

    def of(self, outcome: Outcome) -> int:
        """How many operations ended so."""
        return sum(count for (_, how), count in self.operations.items() if how is outcome)

    def summary(self, violations: int) -> str:
        """The whole run in one line."""
        return (
            f"{self.rounds} rounds in {self.seconds:.0f} s: {self.operations.total()} operations "
            f"({self.of(Outcome.OK)} ok, {self.of(Outcome.REFUSED)} refused, "
            f"{self.of(Outcome.UNKNOWN)} unknown), {self.events} events in {self.watches} watches, "
            f"{self.faults.total()} faults of {len(self.faults)} kinds, "
            f"{len(self.doubts)} undecided, violations {violations}"
        )

    def table(self, notes: Mapping[str, int]) -> str:
        """Operations by kind and outcome, faults by kind, who was not served, what is not known."""
        rows = [f"{'operation':<20}{'ok':>9}{'refused':>9}{'unknown':>9}"]
        for method in sorted({method for method, _ in self.operations}):
            counts = "".join(f"{self.operations[method, outcome]:>9}" for outcome in Outcome)
            rows.append(f"{method:<20}{counts}")
        rows += ["", f"{'fault':<38}{'happened':>9}{'in vain':>9}"]
        rows += [
            f"{name:<38}{self.faults[name]:>9}{self.idle[name]:>9}"
            for name in sorted({*self.faults, *self.idle})
        ]
        rows += [f"  {words}: {count}" for words, count in sorted(notes.items()) if count]
        rows += ["", "longest that a client asked in vain, whoever it asked"]
        rows += [
            f"{name:<20}{seconds:>7.1f} s  ({when})"
            for name, (seconds, when) in sorted(self.outages.items())
        ]
        rows += ["", *(f"not decided: {words}" for words in self.doubts)]
        size_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        rows.append(
            f"judging took {self.judging_seconds:.1f} s, {self.judging_seconds_max:.1f} s at most "
            f"for a round, and up to {self.operations_max} operations at once; the clients and the "
            f"judges had {size_bytes / 1024**2:.0f} MiB at most"
        )
        return "\n".join(rows)
