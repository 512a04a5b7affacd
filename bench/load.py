"""One run of wrk: one kind of call, so many connections, so many seconds."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

import msgspec

from bench.figures import BenchError

SCRIPT: Final = Path(__file__).with_name("load.lua")
START_SECONDS_MAX: Final = 30


class Run(msgspec.Struct, frozen=True):
    """What wrk saw. ``refused`` are answers of status 400 and above, ``broken`` socket errors."""

    requests: int
    duration_us: int
    p50_us: int
    p99_us: int
    refused: int
    broken: int

    @property
    def rate(self) -> float:
        """Successful answers a second."""
        return (self.requests - self.refused) * 1e6 / self.duration_us

    @property
    def errors(self) -> int:
        """Everything that was no success."""
        return self.refused + self.broken


def wrk() -> str:
    """The path of wrk.

    Raises:
        BenchError: It is not installed.
    """
    program = shutil.which("wrk")
    if program is None:
        raise BenchError("wrk is not installed: apt-get install wrk")
    return program


def run(url: str, call: str, connections: int, seconds: int, seed: int) -> Run:
    """Put one load on one node.

    Raises:
        BenchError: wrk did not do its work.
    """
    arguments = [wrk(), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout=10s"]
    answer = subprocess.run(
        [*arguments, "-s", str(SCRIPT), url, "--", call, str(seed)],
        capture_output=True,
        text=True,
        timeout=seconds + START_SECONDS_MAX,
        check=False,
    )
    for line in answer.stdout.splitlines():
        if line.startswith("RESULT "):
            return msgspec.json.decode(line.removeprefix("RESULT "), type=Run)
    raise BenchError(f"wrk failed: {answer.stderr.strip() or answer.stdout.strip()}")
