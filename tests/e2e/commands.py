"""The ``kvstore`` command as people use it: run to its end, or started and spoken to by signals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.e2e.processes import environment, wait_for
from wal.files import OsDisk
from wal.recovery import recover
from wal.segment import segment_numbers

KVSTORE: Final = (sys.executable, "-m", "kvstore.cli")
COMMAND_SECONDS: Final = 30.0
START_SECONDS: Final = 40.0
STOP_SECONDS: Final = 25.0


def kvstore(
    *arguments: str, environ: Mapping[str, str] | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run ``kvstore`` with these arguments."""
    return subprocess.run(
        [*KVSTORE, *arguments],
        input=stdin,
        capture_output=True,
        env=environment() | dict(environ or {}),
        timeout=COMMAND_SECONDS,
        check=False,
    )


def log_is_clean(data_dir: Path) -> bool:
    """Whether the log of a member that does not run was closed properly."""
    disk = OsDisk(lambda *_: None)
    directory = str(data_dir / "member" / "wal")
    return recover(disk, directory, segment_numbers(disk, directory)).recovered.clean


class Foreground:
    """A command that runs until a signal, its output in a file."""

    def __init__(
        self,
        arguments: Sequence[str],
        output: Path,
        *,
        cwd: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._output = output
        self._start = output.stat().st_size if output.exists() else 0
        with output.open("ab") as sink:
            self.process = subprocess.Popen(
                [*KVSTORE, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=environment() | dict(environ or {}),
                start_new_session=True,
            )

    def output(self) -> str:
        """What it has printed so far."""
        with self._output.open("rb") as printed:
            printed.seek(self._start)
            return printed.read().decode(errors="replace")

    def wait_output(self, words: str, seconds: float = START_SECONDS) -> None:
        """Wait until it has printed this."""

        def look() -> bool:
            code = self.process.poll()
            assert words in self.output() or code is None, f"ended with {code}: {self.output()}"
            return words in self.output()

        wait_for(f"the words {words!r}", look, seconds)

    def end(self, number: signal.Signals) -> int:
        """Send a signal, wait; returns the exit code."""
        os.kill(self.process.pid, number)
        return self.process.wait(STOP_SECONDS)

    def discard(self) -> None:
        """End it and the nodes it says it started, however it is."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                for pid in {int(found) for found in re.findall(r"pid (\d+)", self.output())}:
                    os.kill(pid, signal.SIGKILL)
