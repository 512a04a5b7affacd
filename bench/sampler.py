"""What is a process busy with, and what does each of its threads spend? py-spy and the kernel."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from bench import stages
from bench.figures import BenchError

SAMPLES_PER_SECOND: Final = 400
END_SECONDS_MAX: Final = 30.0
"""After the last sample it still writes its file."""

_ERRORS: Final = re.compile(r"Errors: (\d+)")


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """CPU time of one thread, in microseconds (of a resolution of a tick, mostly 10 ms)."""

    user_us: float
    system_us: float

    @property
    def cpu_us(self) -> float:
        """Both."""
        return self.user_us + self.system_us


class _Frame(msgspec.Struct):
    filename: str
    short_filename: str | None = None


class _Thread(msgspec.Struct):
    os_thread_id: int
    frames: list[_Frame]


def py_spy() -> str:
    """The path of py-spy: on the PATH, or where the interpreter's own programs are.

    Raises:
        BenchError: It is not installed.
    """
    beside = str(Path(sys.executable).parent)
    program = shutil.which("py-spy") or shutil.which("py-spy", path=beside)
    if program is None:
        raise BenchError("py-spy is not installed: pip install py-spy")
    return program


def refusal(pid: int, said: str) -> BenchError:
    """Why py-spy saw nothing, in its words, and what to do."""
    words = said.partition("Stack backtrace")[0].strip() or "it said nothing"
    if "permission" in words.lower() or "ptrace" in words.lower():
        words += (
            "\nOne process may not look into another here: run as root, in a container with "
            "--cap-add SYS_PTRACE, or after sysctl kernel.yama.ptrace_scope=0"
        )
    return BenchError(f"py-spy could not look at process {pid}: {words}")


def resting(program: str, pid: int) -> dict[int, str]:
    """The stage in which each thread of a quiet process waits for work, by its id in the kernel.

    Raises:
        BenchError: The process may not be looked at.
    """
    answer = subprocess.run(
        [program, "dump", "--json", "--nonblocking", f"--pid={pid}"],
        capture_output=True,
        text=True,
        timeout=END_SECONDS_MAX,
        check=False,
    )
    if answer.returncode != 0:
        raise refusal(pid, answer.stderr)
    return parse_dump(answer.stdout)


def parse_dump(dump: str) -> dict[int, str]:
    """The stage of each thread in what ``py-spy dump --json`` prints, innermost frame first.

    Raises:
        BenchError: It is something else.
    """
    try:
        threads = msgspec.json.decode(dump, type=list[_Thread])
    except msgspec.DecodeError as error:
        raise BenchError(f"py-spy printed no stacks: {error}") from error
    return {
        thread.os_thread_id: stages.of_paths(
            [frame.short_filename or frame.filename for frame in reversed(thread.frames)]
        )
        for thread in threads
    }


class Sampler:
    """py-spy at work on one process."""

    def __init__(self, program: str, pid: int, seconds: int, path: Path) -> None:
        self._pid = pid
        self._path = path
        command = [
            *(program, "record", f"--pid={pid}", f"--duration={seconds}", "--threads"),
            *(f"--rate={SAMPLES_PER_SECOND}", "--format=raw", "--nonblocking", "--function"),
            f"--output={path}",
        ]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def result(self) -> tuple[str, int]:
        """Wait for its end: the stacks it saw, as text, and how many it could not read.

        Raises:
            BenchError: It failed, or does not end.
        """
        try:
            said, _ = self._process.communicate(timeout=END_SECONDS_MAX)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"py-spy has not ended: kill {self._process.pid}") from error
        if self._process.returncode != 0 or not self._path.is_file():
            raise refusal(self._pid, said)
        lost = _ERRORS.search(said)
        return self._path.read_text(), int(lost[1]) if lost else 0

    def close(self) -> None:
        """End it, if it has not."""
        self._process.kill()
        self._process.communicate()
        self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def sampling(program: str, pid: int, seconds: int, path: Path) -> Iterator[Sampler]:
    """Sample a process for so many seconds, by way of a file that is deleted afterwards."""
    sampler = Sampler(program, pid, seconds, path)
    try:
        yield sampler
    finally:
        sampler.close()


def threads(pid: int) -> dict[int, Spent]:
    """What each thread of a process has spent until now, by its id in the kernel.

    Raises:
        BenchError: The process has ended.
    """
    found = {}
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # A thread has ended.
                found[int(task.name)] = parse_stat((task / "stat").read_text())
    except OSError as error:
        raise BenchError(f"process {pid} has ended: {error}") from error
    return found


def parse_stat(stat: str) -> Spent:
    """Read the text of ``/proc/<pid>/task/<tid>/stat``."""
    # The name comes second, in brackets, and may hold blanks and brackets.
    fields = stat.rpartition(")")[2].split()
    tick_us = 1e6 / os.sysconf("SC_CLK_TCK")
    return Spent(user_us=int(fields[11]) * tick_us, system_us=int(fields[12]) * tick_us)


def since(after: dict[int, Spent], before: dict[int, Spent]) -> dict[int, Spent]:
    """What each thread has spent between the two; nothing of threads that have ended."""
    none = Spent(user_us=0.0, system_us=0.0)
    return {
        thread: Spent(
            user_us=spent.user_us - before.get(thread, none).user_us,
            system_us=spent.system_us - before.get(thread, none).system_us,
        )
        for thread, spent in after.items()
    }
