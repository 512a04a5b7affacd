"""System calls of running processes, as strace saw them, each with its begin and its end."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from tests.e2e.processes import wait_for

TRACED: Final = (
    "write,writev,sendto,sendmsg,pwrite64,pwritev,pwritev2,fdatasync,fsync,io_submit,io_getevents"
)
KERNEL_SYNC: Final = "io_submit of IOCB_CMD_FDSYNC"
"""A name for a request to the kernel and for its result together: one call, as it were."""
ROOT: Final = Path(__file__).resolve().parents[2]
LATE: Final = Path(__file__).parent / "late_syncs"
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
_SUBMITTED: Final = re.compile(
    r"^(?P<begin>\d+\.\d+) io_submit\((?P<context>\w+), 1, \[\{aio_data=(?P<number>\w+), "
    r"aio_lio_opcode=IOCB_CMD_FDSYNC, aio_fildes=\d+<(?P<what>[^>]*)>.*\)\s+= 1 <.*>$"
)
_ENDED: Final = re.compile(
    r"^(?P<begin>\d+\.\d+) io_getevents\((?P<context>\w+), 1, 1, \[\{data=(?P<number>\w+), "
    r"obj=\w+, res=(?P<result>-?\d+).*\)\s+= 1 <(?P<seconds>\d+\.\d+)>$"
)


class Call(NamedTuple):
    """One system call. ``what`` is the path of its file, or the two ends of its socket."""

    begin: float
    end: float
    name: str
    what: str
    arguments: str


def parse(lines: Iterable[str]) -> list[Call]:
    """The calls of one process that succeeded, by their begin."""
    lines = list(lines)
    calls = _kernel_syncs(lines)
    for line in lines:
        match = _LINE.match(line)
        if match is not None and int(match["result"]) >= 0:
            begin = float(match["begin"])
            end = begin + float(match["seconds"])
            calls.append(Call(begin, end, match["name"], match["what"], match["rest"]))
    return sorted(calls)


def _kernel_syncs(lines: list[str]) -> list[Call]:
    """From the request till the process heard that it was done."""
    begun: dict[tuple[str, str], tuple[float, str]] = {}
    for submitted in filter(None, map(_SUBMITTED.match, lines)):
        key = submitted["context"], submitted["number"]
        assert key not in begun, f"two requests have one number: {submitted.string}"
        begun[key] = float(submitted["begin"]), submitted["what"]
    calls = []
    for ended in filter(None, map(_ENDED.match, lines)):
        begin, what = begun.pop((ended["context"], ended["number"]))
        if ended["result"] == "0":
            end = float(ended["begin"]) + float(ended["seconds"])
            calls.append(Call(begin, end, KERNEL_SYNC, what, ""))
    return calls


def command(directory: Path, sync_delay_us: int = 0, *, by_thread: bool = False) -> list[str]:
    """What goes before a command so that it and its threads are traced into ``directory``.

    Each of its syncs takes ``sync_delay_us`` microseconds longer, as on a slow disk: if the kernel
    syncs by itself, the process hears of it so much later. With ``by_thread`` the kernel has no
    room for its requests, and the syncs of its threads begin late.

    The tracer is a process beside it (-D), so that the command keeps its own process id; and it is
    asked for by the traced one, which a kernel that lets nobody attach to strangers allows.
    """
    directory.mkdir(parents=True, exist_ok=True)
    late: list[str] = []
    inject: list[str] = []
    if sync_delay_us:
        late = ["env", f"PYTHONPATH={LATE}:{ROOT}", f"LATE_SYNCS_SECONDS={sync_delay_us / 1e6}"]
        inject = [f"--inject=fdatasync:delay_enter={sync_delay_us}"]
    if by_thread:
        inject.append("--inject=io_submit:error=EAGAIN")
    return [*late, *COMMAND, *inject, "-o", str(directory / "calls")]


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
