"""What every test shares: Hypothesis settings that can be repeated, order, and time by part."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

TESTS = Path(__file__).parent

# The same examples on every machine and in every run: a red run is red again when it is looked at.
# What is printed on a failure can be pasted into the test as a regression.
settings.register_profile(
    "default",
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)

# New examples each time, and many of them: for a long search, not for the verdict on a commit.
settings.register_profile(
    "explore",
    settings.get_profile("default"),
    derandomize=False,
    max_examples=2_000,
)

settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

_seconds: defaultdict[str, float] = defaultdict(float)
_tests: Counter[str] = Counter()


def _part(path: str | Path) -> str:
    """The directory below tests/ that a test lies in; what lies in none is about the house."""
    parts = Path(path).parts
    parts = parts[parts.index("tests") + 1 :] if "tests" in parts else parts
    return parts[0] if len(parts) > 1 else "house"


# Before pytest's own hook, which deselects by marker and would not see ours otherwise.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what lies in tests/e2e, and runs the slow end last: a cheap failure shows first."""
    for item in items:
        if _part(item.path.relative_to(TESTS.parent)) == "e2e":
            item.add_marker("e2e")
    items.sort(key=lambda item: bool(item.get_closest_marker("e2e")))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Adds up the time by part, setup and teardown included."""
    part = _part(report.nodeid.partition("::")[0])
    _seconds[part] += report.duration
    _tests[part] += report.when == "call"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints where the time went."""
    terminalreporter.section("time by part")
    for part, seconds in sorted(_seconds.items(), key=lambda item: -item[1]):
        terminalreporter.write_line(f"{part:<14}{_tests[part]:>6} tests {seconds:>8.1f} s")
