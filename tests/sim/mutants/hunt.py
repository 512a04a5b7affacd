"""Plants each bug, and runs seeds until the checker finds it that is meant to."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import msgspec

from tests.sim.mutants.catalog import find
from tests.sim.mutants.planting import Mutant, import_product
from tests.sim.profile import PROFILES, Profile
from tests.sim.run import run

EVIDENCE_LETTERS_MAX = 300


class Hunt(msgspec.Struct):
    """What came of looking for one bug.

    Attributes:
        mutant: Which.
        seeds: How many were run.
        found_seed: The seed in which the meant checker found it; 0: in none.
        others: Who else found it, with the first seed each.
        virtual_seconds: How long all the runs took, in their own time.
        real_seconds: And in ours.
        evidence: What the meant checker said, or else the first other one.
    """

    mutant: Mutant
    seeds: int = 0
    found_seed: int = 0
    others: dict[str, int] = {}
    virtual_seconds: float = 0.0
    real_seconds: float = 0.0
    evidence: str = ""

    @property
    def found(self) -> bool:
        """Whether the meant checker found it."""
        return self.found_seed > 0

    def row(self) -> str:
        """A line of the table."""
        others = ", ".join(f"{checker} ({seed})" for checker, seed in self.others.items())
        verdict = f"seed {self.found_seed}" if self.found else "NOT FOUND"
        return (
            f"{self.mutant.name:<50} {self.mutant.checker:<22} {verdict:<10} "
            f"{self.seeds:>3} seeds {self.virtual_seconds:>6.0f} virtual s "
            f"{self.real_seconds:>6.1f} s  {others}"
        )


def hunt(mutant: Mutant, profile: Profile, seeds: Iterable[int]) -> Hunt:
    """Look for one bug.

    Args:
        mutant: Planted while this lasts.
        profile: Of the runs.
        seeds: Tried in this order, until the meant checker finds it. Where another one finds it
            first the next seed is tried: the run ended there.
    """
    import_product()
    # What members log of their troubles says nothing here.
    logging.getLogger("kvstore").setLevel(logging.CRITICAL + 1)
    result = Hunt(mutant)
    with mutant.planted():
        for seed in seeds:
            report = run(seed, profile)
            result.seeds += 1
            result.virtual_seconds += report.virtual_seconds
            result.real_seconds += report.real_seconds
            if report.violation is None:
                continue
            said = str(report.violation)[:EVIDENCE_LETTERS_MAX]
            if report.violation.checker == mutant.checker:
                result.found_seed = seed
                result.evidence = said
                break
            result.others.setdefault(report.violation.checker, seed)
            result.evidence = result.evidence or said
    return result


class Row(msgspec.Struct):
    """What a hunt came to, in words: it passes from process to process."""

    text: str
    evidence: str
    found: bool


def hunt_one(name: str, profile: str, seeds: Iterable[int]) -> Row:
    """As ``hunt``, by the names of the bug and of the profile."""
    result = hunt(find(name), PROFILES[profile], seeds)
    return Row(result.row(), result.evidence, result.found)
