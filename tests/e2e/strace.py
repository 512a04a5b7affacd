"""System calls of running processes, as strace saw them, each with its begin and its end."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tests.e2e.processes import wait_for

TRACED: Final = "write,writev,sendto,sendmsg,pwrite64,pwritev,pwritev2,fdatasync,fsync"
ATTACH_SECONDS: Final = 10.0
STRING_BYTES_MAX: Final = 8192
COMMAND: Final = (
    "strace",
    "-ff",
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


def why_not() -> str:
    """Why processes cannot be traced here; empty if they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    attempt = subprocess.run(
        ["strace", "-e", "trace=none", "true"], capture_output=True, text=True, check=False
    )
    return "" if attempt.returncode == 0 else f"ptrace is not permitted: {attempt.stderr.strip()}"


def _is_traced(pid: int) -> bool:
    tasks = [task / "status" for task in Path(f"/proc/{pid}/task").iterdir()]
    return all("TracerPid:\t0\n" not in status.read_text() for status in tasks)


@contextlib.contextmanager
def traced(pid: int, directory: Path) -> Iterator[None]:
    """Trace a process and all its threads; afterwards ``collected`` reads what was seen."""
    directory.mkdir(parents=True)
    tracer = subprocess.Popen(
        [*COMMAND, "-o", str(directory / "calls"), "-p", str(pid)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # A Ctrl-C for the tests is not one for the tracer: it would let go too early.
        start_new_session=True,
    )
    try:
        wait_for(f"strace has attached to {pid}", lambda: _is_traced(pid), ATTACH_SECONDS)
        yield
    finally:
        # It lets the traced go on, and ends.
        with contextlib.suppress(ProcessLookupError):
            os.kill(tracer.pid, signal.SIGINT)
        tracer.wait(ATTACH_SECONDS)


def collected(directory: Path) -> list[Call]:
    """All calls of all threads."""
    lines: list[str] = []
    for path in sorted(directory.iterdir()):
        lines += path.read_text(errors="replace").splitlines()
    return parse(lines)
