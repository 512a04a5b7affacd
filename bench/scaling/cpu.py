"""What has each thread of a process spent? A node's main thread is told from those of its disk."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from bench.figures import BenchError


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """Time on cores until now, in seconds of user and kernel mode."""

    main: float
    """The thread that the process began with: a node's event loop."""
    others: float
    """All others together: of a node, those that write and sync."""

    def __sub__(self, other: Spent) -> Spent:
        return Spent(main=self.main - other.main, others=self.others - other.others)


def parse_schedstat(text: str) -> float:
    """Read ``/proc/<pid>/task/<tid>/schedstat``: time on a core in seconds.

    Raises:
        BenchError: The kernel does not keep these figures.
    """
    fields = text.split()
    if len(fields) != 3:
        raise BenchError("no times in schedstat: the kernel was built without CONFIG_SCHED_INFO")
    return int(fields[0]) / 1e9


def spent(pid: int) -> Spent:
    """What the threads of a process have spent.

    Raises:
        BenchError: It has ended.
    """
    main = others = 0.0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            try:
                seconds = parse_schedstat((task / "schedstat").read_text())
            except FileNotFoundError:
                continue  # A thread that has ended meanwhile.
            if int(task.name) == pid:
                main = seconds
            else:
                others += seconds
    except OSError as error:
        raise BenchError(f"process {pid} has ended: {error}") from error
    return Spent(main=main, others=others)


def pin(pids: Iterable[int], cores: set[int]) -> None:
    """Hold all threads of these processes, 0 being this one, to some cores.

    Raises:
        BenchError: One has ended, or the machine has no such core for us.
    """
    try:
        for pid in pids:
            for task in Path(f"/proc/{pid or 'self'}/task").iterdir():
                os.sched_setaffinity(int(task.name), cores)
    except OSError as error:
        raise BenchError(
            f"processes {list(pids)} cannot be held to cores {cores}: {error}"
        ) from error
