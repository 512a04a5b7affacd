"""The relay as whoever breaks things sees it: which directions between members are how."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from tests.chaos.relay import FAIR, Weather

END_SECONDS: Final = 5.0

Direction = tuple[str, str]


class Wires:
    """The relay's process and its orders. ``names`` are those of the members.

    "" stands for whoever cannot be told: a member that asks before it joins.
    """

    def __init__(self, names: Sequence[str], seed: int, log: Path) -> None:
        self.names = tuple(names)
        self._lock = threading.Lock()
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.relay", str(seed)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                start_new_session=True,
            )

    def _order(self, what: str, **values: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(msgspec.json.encode({"do": what, **values}) + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        assert line, "the relay has ended"
        answer = msgspec.json.decode(line)
        assert "error" not in answer, answer["error"]
        return answer

    def open(self, name: str, listen: tuple[str, int], target: tuple[str, int]) -> None:
        """Carry what comes in at ``listen`` to a member that listens at ``target``."""
        self._order("open", name=name, listen=listen, target=target)

    def tell_names(self, names: dict[int, str]) -> None:
        """Which member has which id."""
        self._order("names", names={f"{member:x}": name for member, name in names.items()})

    def set(self, paths: Iterable[Direction], weather: Weather) -> None:
        """Let these directions be like this."""
        self._order("weather", paths=list(paths), weather=weather)

    def clear(self, paths: Iterable[Direction]) -> None:
        """Let these directions be as they should."""
        self.set(paths, FAIR)

    def felt(self, paths: Iterable[Direction]) -> int:
        """How much was held back, lost or slowed on these since they were last made worse."""
        return int(self._order("felt", paths=list(paths))["felt"])

    def cut(self, paths: Iterable[Direction]) -> int:
        """Break the connections on these directions; returns how many there were."""
        return int(self._order("cut", paths=list(paths))["cut"])

    def out_of(self, name: str) -> list[Direction]:
        """From one member to all others."""
        return [(name, other) for other in ("", *self.names) if other != name]

    def into(self, name: str) -> list[Direction]:
        """From all others to one member."""
        return [(other, name) for _, other in self.out_of(name)]

    def unnamed(self) -> list[Direction]:
        """The directions of whoever dialled before it was known by a name."""
        return [pair for name in self.names for pair in (("", name), (name, ""))]

    def between(self, some: Sequence[str], others: Sequence[str]) -> list[Direction]:
        """Both directions between two groups."""
        return [pair for one in some for other in others for pair in ((one, other), (other, one))]

    def everywhere(self) -> list[Direction]:
        """All directions."""
        return [pair for name in self.names for pair in self.out_of(name)]

    def close(self) -> None:
        """End the relay."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
