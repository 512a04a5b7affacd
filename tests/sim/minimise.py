"""Makes a failure smaller: fewer faults that still break the same promise.

Delta debugging (Zeller) on the schedule: leave out halves, then quarters, and so on down to single
faults, as long as the run still fails by the same checker. A fault's own chances are seeded by its
number, so those that stay do what they did.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from tests.sim.run import Report, run

if TYPE_CHECKING:
    from tests.sim.profile import Profile
    from tests.sim.schedule import Fault


class Smaller(msgspec.Struct):
    """What is left of a failure: its report, and how many runs that took."""

    report: Report
    runs: int


def minimise(
    seed: int,
    profile: Profile,
    *,
    seconds_max: float,
    progress: Callable[[str], Any],
    run_once: Callable[[int, Profile, list[Fault] | None], Report] = run,
) -> Smaller | None:
    """Shorten the schedule of a seed that fails.

    Args:
        seed: Which.
        profile: Of which profile.
        seconds_max: No further run begins later than this.
        progress: Shown a line for each step forward.
        run_once: Runs a seed.

    Returns:
        The smallest failure that was found; None if the seed does not fail.
    """
    report = run_once(seed, profile, None)
    if report.violation is None:
        return None
    checker = report.violation.checker
    smaller = Smaller(report, 1)
    begun = time.monotonic()
    parts = 2
    while smaller.report.faults and time.monotonic() - begun < seconds_max:
        faults = smaller.report.faults
        size = max(1, len(faults) // parts)
        for start in range(0, len(faults), size):
            rest = faults[:start] + faults[start + size :]
            shorter = run_once(seed, profile, rest)
            smaller.runs += 1
            if shorter.violation is not None and shorter.violation.checker == checker:
                smaller.report = shorter
                progress(f"{len(rest)} of {len(report.faults)} faults, {smaller.runs} runs")
                parts = max(2, parts - 1)
                break
            if time.monotonic() - begun > seconds_max:
                return smaller
        else:
            if size == 1:
                break
            parts = min(2 * parts, len(faults))
    return smaller
