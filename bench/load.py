"""How much does a system answer? Runs of wrk: one kind of call, so many connections and seconds."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.figures import BenchError
from kvstore.client import Client

SCRIPT: Final = Path(__file__).with_name("load.lua")
START_SECONDS_MAX: Final = 30
PUT_EVERY: Final = 5
"""Of a mixed load, as in load.lua."""

_VALUE_BYTES: Final = 344
"""256 bytes in base64."""
_ANSWER_BYTES_MIN: Final = {
    "get": _VALUE_BYTES,
    "serializable": _VALUE_BYTES,
    "range": 1_000 * _VALUE_BYTES,
    "mixed": _VALUE_BYTES * (PUT_EVERY - 1) // PUT_EVERY,
}
"""No answer that brings what was asked for is smaller; of the mixed ones, on average."""
_WRITES_EVERY: Final = {"put": 1, "txn": 1, "mixed": PUT_EVERY}


class Run(msgspec.Struct, frozen=True):
    """What wrk saw. ``refused`` are answers of status 400 and above, ``broken`` socket errors."""

    requests: int
    duration_us: int
    p50_us: int
    p99_us: int
    refused: int
    broken: int
    bytes: int = 0
    """Of all answers, heads included; 0: not counted."""
    cpu_us: int = 0
    """What all nodes together spent meanwhile; 0: not counted."""
    relay_cpu_us: int = 0
    """What the relay between the nodes spent meanwhile, if one stands there."""
    leader_moved: bool = False
    """Another node led in the end: a part of the calls went to a follower."""

    @property
    def rate(self) -> float:
        """Successful answers a second."""
        return self.succeeded * 1e6 / self.duration_us

    @property
    def succeeded(self) -> int:
        """Answers that were a success."""
        return self.requests - self.refused

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


def run(urls: Sequence[str], call: str, connections: int, seconds: int, seed: int) -> Run:
    """Put one load on some nodes at once: one wrk each, which share the connections.

    Raises:
        BenchError: wrk did not do its work, or answers that looked like successes were none.
    """
    before = _revision(urls[0])
    commands = [
        [
            *(wrk(), "-t1", f"-c{share}", f"-d{seconds}s", "--timeout=10s"),
            *("-s", str(SCRIPT), url, "--", call, str(seed + number)),
        ]
        for number, (url, share) in enumerate(
            zip(urls, shares(connections, len(urls)), strict=True)
        )
    ]
    found = combine(_wrks(commands, seconds + START_SECONDS_MAX))
    check(found, call, connections, writes=_revision(urls[0]) - before)
    return found


def shares(connections: int, nodes: int) -> list[int]:
    """How many connections each node gets, as evenly as possible."""
    return [connections // nodes + (number < connections % nodes) for number in range(nodes)]


def combine(runs: Sequence[Run]) -> Run:
    """Runs at the same time as one: sums, and the slowest one's percentiles."""
    return Run(
        requests=sum(run.requests for run in runs),
        duration_us=max(run.duration_us for run in runs),
        p50_us=max(run.p50_us for run in runs),
        p99_us=max(run.p99_us for run in runs),
        refused=sum(run.refused for run in runs),
        broken=sum(run.broken for run in runs),
        bytes=sum(run.bytes for run in runs),
    )


def check(run: Run, call: str, connections: int, writes: int) -> None:
    """Hold what wrk counted against what the store says: status 200 alone proves nothing.

    Args:
        run: What wrk saw.
        call: What it called.
        connections: How many calls were on their way at a time: the mix is not exact to so many.
        writes: By how many revisions the store has grown meanwhile.

    Raises:
        BenchError: There were fewer writes than successes, or answers too small for a value.
    """
    if not run.succeeded:
        raise BenchError(f"{call}: no answer was a success ({run.errors} errors)")
    every = _WRITES_EVERY.get(call)
    if every is not None:
        # An exact count would fail for those that wrk gave up waiting for: they are written.
        expected = run.succeeded // every - (connections if every > 1 else 0)
        if writes < expected:
            raise BenchError(f"{call}: {expected} writes were answered, {writes} were done")
    least = _ANSWER_BYTES_MIN.get(call, 0)
    if run.bytes < least * (run.succeeded - connections):
        raise BenchError(
            f"{call}: {run.succeeded} answers had {run.bytes} bytes: too few for their values"
        )


def cpu_seconds(pids: Iterable[int]) -> float:
    """What these processes and their children have spent until now, in user and kernel mode.

    Raises:
        BenchError: One has ended.
    """
    ticks = 0
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
            children = [
                int(child)
                for task in Path(f"/proc/{pid}/task").iterdir()
                for child in _read(task / "children").split()
            ]
        except OSError as error:
            raise BenchError(f"process {pid} has ended: {error}") from error
        # The name of the program comes second, in brackets, and may hold blanks.
        fields = stat.rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
        ticks += round(cpu_seconds(children) * os.sysconf("SC_CLK_TCK"))
    return ticks / os.sysconf("SC_CLK_TCK")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:  # A thread that has ended meanwhile, or a kernel that does not say.
        return ""


def _revision(url: str) -> int:
    with Client([url]) as client:
        header = client.get(b"key-00000").header
    return header.revision if header is not None else 0


def _wrks(command_lines: Iterable[Sequence[str]], seconds: float) -> list[Run]:
    """Start all at once and wait for all."""
    processes = [
        subprocess.Popen(one, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for one in command_lines
    ]
    try:
        return [_result(*process.communicate(timeout=seconds)) for process in processes]
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"wrk has not ended after {seconds} s") from error
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _result(stdout: str, stderr: str) -> Run:
    for line in stdout.splitlines():
        if line.startswith("RESULT "):
            return msgspec.json.decode(line.removeprefix("RESULT "), type=Run)
    raise BenchError(f"wrk failed: {stderr.strip() or stdout.strip()}")
