"""Proves that each bug passes the unit tests: it takes a simulator to find it.

First a run of all unit tests notes which of them meets the place of which bug; then, with each bug
planted, those run. To the others it makes no difference.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tests.sim.mutants.planting import Mutant

UNIT_TESTS = ("tests/raft", "tests/wal", "tests/kvstore")
RUN_SECONDS_MAX = 900
"""A bug may also let the tests wait for ever."""
ROOT = Path(__file__).resolve().parents[3]

_PYTEST = ("-m", "pytest", "-q", "-x", "-m", "not e2e and not slow", "-p", "no:cacheprovider")
_PLUGIN = ("-p", "tests.sim.mutants.plugin")
_NOTHING_TO_RUN = 5


class Survival(msgspec.Struct):
    """How one bug fared: ``tests`` meet its place, ``killed_by`` is the first that failed, "" if
    none did.
    """

    mutant: Mutant
    tests: int
    killed_by: str
    seconds: float

    def row(self) -> str:
        """A line of the table."""
        verdict = f"KILLED by {self.killed_by}" if self.killed_by else "survives"
        return f"{self.mutant.name:<50} {self.tests:>5} tests {self.seconds:>6.1f} s  {verdict}"


def survive(mutants: list[Mutant]) -> Iterator[Survival]:
    """Run the unit tests with each of them.

    Raises:
        RuntimeError: The tests fail without any.
    """
    with tempfile.TemporaryDirectory() as directory:
        reached = str(Path(directory, "reached.json"))
        status, output = _pytest("--mutant-reach", reached)
        if status:
            raise RuntimeError(f"the unit tests fail without any bug: {output[-2000:]}")
        tests = msgspec.json.decode(Path(reached).read_bytes(), type=dict[str, list[str]])
        for mutant in mutants:
            begun = time.perf_counter()
            status, output = _pytest("--mutant", mutant.name, "--mutant-reached", reached)
            killed_by = "" if status in (0, _NOTHING_TO_RUN) else _first_failure(output)
            count = len(tests.get(mutant.name, ()))
            yield Survival(mutant, count, killed_by, time.perf_counter() - begun)


def _pytest(*options: str) -> tuple[int, str]:
    command = [sys.executable, *_PYTEST, *_PLUGIN, *options, *UNIT_TESTS]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, "FAILED (no end)"
    return done.returncode, done.stdout + done.stderr


def _first_failure(output: str) -> str:
    lines = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return lines[0] if lines else "something else: " + output[-200:]
