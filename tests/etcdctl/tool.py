"""etcdctl as a person uses it: commands that end, and commands that go on until Ctrl-C."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from tests.etcdctl.systems import System

ETCDCTL: Final = shutil.which("etcdctl")
COMMAND_SECONDS: Final = 60.0
LINE_SECONDS: Final = 20.0
END_SECONDS: Final = 20.0


class Said(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


class Tool:
    """etcdctl with its global options.

    Args:
        system: Whom it asks.
        user: ``name:password``; "" for nobody.
        endpoints: Whom it asks first; by default all nodes.
    """

    def __init__(
        self, system: System, user: str = "", endpoints: Sequence[str] | None = None
    ) -> None:
        assert ETCDCTL is not None, "etcdctl is not installed"
        self.system = system
        self.user = user
        self.endpoints = list(endpoints or system.endpoints)

    def as_user(self, user: str) -> Tool:
        """The same, as somebody else."""
        return Tool(self.system, user, self.endpoints)

    def at(self, *endpoints: str) -> Tool:
        """The same, asking others."""
        return Tool(self.system, self.user, endpoints)

    def command(self, *arguments: str) -> list[str]:
        """The whole command line."""
        assert ETCDCTL is not None, "etcdctl is not installed"
        options = [f"--endpoints={','.join(self.endpoints)}", "--command-timeout=20s"]
        if self.user:
            options.append(f"--user={self.user}")
        files = self.system.certificates
        if files is not None:
            options += [
                f"--cacert={files.authority}",
                f"--cert={files.client}",
                f"--key={files.client_key}",
            ]
        return [ETCDCTL, *options, *arguments]

    def run(self, *arguments: str, stdin: str = "", seconds: float = COMMAND_SECONDS) -> Said:
        """Run a command that ends."""
        done = subprocess.run(
            self.command(*arguments),
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            env=_environment(),
            timeout=seconds,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def ask(self, *arguments: str, stdin: str = "") -> str:
        """Run a command that must succeed: what it printed."""
        said = self.run(*arguments, stdin=stdin)
        assert said.code == 0, (
            f"{self.system.name}: etcdctl {' '.join(arguments)}: {said}\n{self.system.last_words()}"
        )
        return said.out

    def begin(self, *arguments: str) -> Running:
        """Run a command that goes on."""
        return Running(self.command(*arguments))


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ETCDCTL_")}
    return {**kept, "ETCDCTL_API": "3"}


class Running:
    """A command that goes on, whose lines are read as they come."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment(),
            start_new_session=True,
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def lines(self, count: int) -> list[str]:
        """The next lines; fewer if it ends before.

        Raises:
            AssertionError: They do not come.
        """
        found: list[str] = []
        deadline = time.monotonic() + LINE_SECONDS
        while len(found) < count:
            try:
                line = self._lines.get(timeout=max(deadline - time.monotonic(), 0.01))
            except queue.Empty:
                self.kill()
                message = f"{self._process.args!r}: only {found}"
                raise AssertionError(message) from None
            if line is None:
                break
            found.append(line)
        return found

    def say(self, text: str) -> None:
        """Type something."""
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def interrupt(self) -> list[str]:
        """Ctrl-C: what else it said until it ended."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        return self.rest()

    def rest(self) -> list[str]:
        """What else it says until it ends by itself."""
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self._thread.join(END_SECONDS)
        found = []
        while not self._lines.empty():
            line = self._lines.get()
            if line is not None:
                found.append(line)
        assert self._process.stderr is not None
        errors = self._process.stderr.read().splitlines()
        self._close()
        # Not what the client logs of its attempts.
        return [*found, *(line for line in errors if line and not line.startswith("{"))]

    def kill(self) -> None:
        """End it, whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._thread.join(END_SECONDS)
        self._close()

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
