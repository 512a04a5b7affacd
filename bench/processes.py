"""What does a process use? Memory and files; whether it still works, by the time it takes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Final

import msgspec

from bench.figures import BenchError
from bench.load import cpu_seconds

QUIET_CPU_SHARE: Final = 0.1
"""Of one core: below it a server only ticks."""
QUIET_WINDOW_SECONDS: Final = 0.5


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Resident memory of one process, in bytes."""

    resident: int
    """All of it (VmRSS): what it has allocated, and what it has mapped of files and touched."""
    peak: int
    """The most it ever was (VmHWM)."""
    mapped: int
    """The part of ``resident`` that belongs to files (RssFile): the kernel can take it back."""


def parse_memory(status: str) -> Memory:
    """Read the text of ``/proc/<pid>/status``.

    Raises:
        BenchError: It does not say how much memory there is: the process has ended.
    """
    found: dict[str, int] = {}
    for line in status.splitlines():
        name, _, rest = line.partition(":")
        if name in {"VmRSS", "VmHWM", "RssFile"}:
            found[name] = int(rest.split()[0]) * 1024
    try:
        return Memory(resident=found["VmRSS"], peak=found["VmHWM"], mapped=found["RssFile"])
    except KeyError as missing:
        raise BenchError(f"{missing} is not in its status: the process has ended") from None


def memory(pid: int) -> Memory:
    """How much memory a process has now.

    Raises:
        BenchError: There is no such process.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError as error:
        raise BenchError(f"process {pid} has ended: {error}") from error
    return parse_memory(status)


def kill_own(pid: int) -> None:
    """Send SIGKILL to a child of this process, and to nobody else who may have got its id since."""
    try:
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    except OSError:
        return  # It has ended.
    if int(parent) == os.getpid():
        os.kill(pid, signal.SIGKILL)


def wait_quiet(pids: list[int], seconds_max: float = 60.0) -> bool:
    """Wait until none of them is busy: what a fill has left to do in the background is done.

    Returns:
        Whether they became quiet in time.

    Raises:
        BenchError: One has ended.
    """
    deadline = time.monotonic() + seconds_max
    while time.monotonic() < deadline:
        before = [cpu_seconds([pid]) for pid in pids]
        time.sleep(QUIET_WINDOW_SECONDS)
        used = [cpu_seconds([pid]) - start for pid, start in zip(pids, before, strict=True)]
        if max(used, default=0.0) <= QUIET_CPU_SHARE * QUIET_WINDOW_SECONDS:
            return True
    return False


def disk_bytes(directory: Path) -> int:
    """What the files below a directory take on the disk (blocks, not lengths), in bytes."""
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.lstat().st_blocks * 512
        except FileNotFoundError:
            continue  # Logs are cut and snapshots renamed while we look.
    return total
