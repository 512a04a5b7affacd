"""Child processes of our own: started with a log file each, watched, and ended by their id."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final

STOP_SECONDS: Final = 15.0
LOG_TAIL_BYTES: Final = 4096


class Child:
    """One process. Its output goes to the end of ``log_path``."""

    __slots__ = ("arguments", "log_path", "name", "process")

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        log_path: Path,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.arguments = list(arguments)
        self.log_path = log_path
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as log:
            self.process = self._start(log, environ)

    def _start(self, log: BinaryIO, environ: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environ,
            # Ctrl-C in a terminal goes to the whole group of processes: a session of its own lets
            # us stop the children in order, once.
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def is_alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def ended_how(self) -> str:
        """How it ended, in words."""
        code = self.process.poll()
        if code is None:
            return "is running"
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    def last_words(self, lines: int = 5) -> str:
        """The end of its log."""
        with self.log_path.open("rb") as log:
            log.seek(max(log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES, 0))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])


def stop_all(children: Iterable[Child], seconds: float = STOP_SECONDS) -> list[Child]:
    """Ask all to end (SIGTERM), wait, and kill those that do not; returns these."""
    alive = [child for child in children if child.is_alive()]
    for child in alive:
        with contextlib.suppress(ProcessLookupError):
            child.process.terminate()
    deadline = time.monotonic() + seconds
    stubborn = []
    for child in alive:
        try:
            child.process.wait(max(deadline - time.monotonic(), 0.01))
        except subprocess.TimeoutExpired:
            stubborn.append(child)
            child.process.kill()
            child.process.wait()
    return stubborn


def port_is_free(host: str, port: int) -> bool:
    """Whether one could listen there now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
