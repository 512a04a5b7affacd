"""What a run did, counted: a verdict alone does not say how much was tried."""

from __future__ import annotations

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
        self.rounds = 0
        self.watches = 0
        self.events = 0
        self.undecided = 0
        self.judging_seconds = 0.0

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

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
            f"{self.undecided} undecided, violations {violations}"
        )

    def table(self, notes: Mapping[str, int]) -> str:
        """Operations by kind and outcome, faults by kind."""
        rows = [f"{'operation':<20}{'ok':>9}{'refused':>9}{'unknown':>9}"]
        for method in sorted({method for method, _ in self.operations}):
            counts = "".join(f"{self.operations[method, outcome]:>9}" for outcome in Outcome)
            rows.append(f"{method:<20}{counts}")
        rows.append("")
        rows += [f"{name:<30}{count:>5}" for name, count in sorted(self.faults.items())]
        rows += [f"  {words}: {count}" for words, count in sorted(notes.items())]
        rows.append(f"judging took {self.judging_seconds:.1f} s")
        return "\n".join(rows)
