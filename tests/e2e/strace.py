"""System calls of running processes, as strace saw them, each with its begin and its end."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from tests.e2e.processes import wait_for

TRACED: Final = "write,writev,sendto,sendmsg,pwrite64,pwritev,pwritev2,fdatasync,fsync"
WRITTEN_SECONDS: Final = 10.0
STRING_BYTES_MAX: Final = 8192
COMMAND: Final = (
    "strace",
    "-D",
    "-ff",
    "--seccomp-bpf",
    "-ttt",
    "-T",
    "-yy",
    f"--string-limit={STRING_BYTES_MAX}",
    f"--trace={TRACED}",
)

# One line of -ttt -T -yy: the time, the call, its descriptor and what that is, the rest, the result
# and how long it took. With a file a thread no call is cut in two by another thread's.
_LINE: Final = re.compile(
    r"^(?P<begin>\d+\.\d+) (?P<name>\w+)\((?P<fd>\d+)<(?P<what>TCP:\[[^\]]*\]|[^>]*)>"
    r"(?P<rest>.*)\)\s+= (?P<result>-?\d+).*<(?P<seconds>\d+\.\d+)>$"
)


class Call(NamedTuple):
    """One system call. ``what`` is the path of its file, or the two ends of its socket."""

    begin: float
    end: float
    name: str
    what: str
    arguments: str


def parse(lines: Iterable[str]) -> list[Call]:
    """The calls that succeeded, by their begin."""
    calls = []
    for line in lines:
        match = _LINE.match(line)
        if match is not None and int(match["result"]) >= 0:
            begin = float(match["begin"])
            end = begin + float(match["seconds"])
            calls.append(Call(begin, end, match["name"], match["what"], match["rest"]))
    return sorted(calls)


def command(directory: Path, sync_delay_us: int = 0) -> list[str]:
    """What goes before a command so that it and its threads are traced into ``directory``.

    Each of its syncs begins ``sync_delay_us`` microseconds late, as on a slow disk.

    The tracer is a process beside it (-D), so that the command keeps its own process id; and it is
    asked for by the traced one, which a kernel that lets nobody attach to strangers allows.
    """
    directory.mkdir(parents=True, exist_ok=True)
    delay = [f"--inject=fdatasync:delay_enter={sync_delay_us}"] if sync_delay_us else []
    return [*COMMAND, *delay, "-o", str(directory / "calls")]


def collected(directory: Path) -> list[Call]:
    """All calls of all threads, once the traced process has ended and the tracer has written."""
    paths: list[Path] = []
    lines: list[str] = []

    def look() -> bool:
        paths[:] = sorted(directory.iterdir())
        lines[:] = [line for path in paths for line in path.read_text("utf-8").splitlines()]
        return sum("+++ " in line for line in lines) == len(paths) > 0

    wait_for(f"the end of each thread's trace in {directory}", look, WRITTEN_SECONDS)
    return parse(lines)


def why_not(directory: Path) -> str:
    """Why processes cannot be traced here; empty if they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    attempt = subprocess.run(
        [*command(directory), "true"], capture_output=True, text=True, check=False
    )
    if attempt.returncode:
        return f"ptrace is not permitted: {attempt.stderr.strip()}"
    return ""
