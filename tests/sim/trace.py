"""What happened in a run, line by line. Two runs of one seed have the same bytes here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from tests.support.virtual_loop import VirtualLoop

NOBODY = -1
"""In the place of a member's number: the network, the run itself."""


class TraceEvent(msgspec.Struct, frozen=True):
    """Something happened.

    Attributes:
        at: Virtual seconds since the run began.
        kind: "role", "crash", "start", "fault", "mark", "call", "answer", "message", ...
        member: To whom (its number), or ``NOBODY``.
        text: What; for people, and equal in equal runs.
    """

    at: float
    kind: str
    member: int
    text: str

    def __str__(self) -> str:
        who = "-" if self.member == NOBODY else f"m{self.member}"
        return f"{self.at:11.6f} {who:>3} {self.kind:<9} {self.text}"


class Trace:
    """The events of a run, in order.

    Args:
        loop: Whose time they are in.
        messages: Whether every message between members is kept too: for pictures and for
            comparing runs; it costs a third of the speed.
    """

    def __init__(self, loop: VirtualLoop, *, messages: bool = False) -> None:
        self._loop = loop
        self.messages = messages
        self.events: list[TraceEvent] = []

    def add(self, kind: str, member: int, text: str) -> None:
        """Note an event, now."""
        self.events.append(TraceEvent(self._loop.now, kind, member, text))
