"""Which commands have been applied: a proposal that was sent twice counts once.

Each member numbers its commands, in each of its lives (incarnations) from 1 on, and says along
with each one below which number it will send nothing again (its low watermark). So what has to be
remembered of a member is its newest incarnation, the watermark, and the numbers applied above it:
no more than it has in flight.
"""

import enum
from collections.abc import Iterator
from typing import Final, TypeAlias

from kvstore.errors import StateError

OriginRow: TypeAlias = tuple[int, int, int, tuple[int, ...]]
"""Member, incarnation, low watermark, applied sequences above it in rising order."""

_STEPS_MAX: Final = 64


class Verdict(enum.IntEnum):
    """Whether a command counts."""

    FRESH = 0
    DUPLICATE = 1
    STALE = 2


class _Origin:
    __slots__ = ("applied", "incarnation", "low_watermark")

    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation
        self.low_watermark = 0
        self.applied: set[int] = set()

    def raise_watermark(self, low_watermark: int) -> None:
        """Forget what will not be sent again."""
        before = self.low_watermark
        self.low_watermark = low_watermark
        if low_watermark - before <= _STEPS_MAX:
            for sequence in range(before, low_watermark):
                self.applied.discard(sequence)
        else:
            self.applied = {sequence for sequence in self.applied if sequence >= low_watermark}


class Origins:
    """The commands applied so far, by member."""

    __slots__ = ("_origins",)

    def __init__(self) -> None:
        self._origins: dict[int, _Origin] = {}

    def admit(self, member: int, incarnation: int, sequence: int, low_watermark: int) -> Verdict:
        """Judge a command, and remember it if it counts.

        A command of an incarnation before the newest seen is stale: that process is gone, nobody
        waits, and what its watermark said is forgotten, so that it might be a duplicate.
        """
        origin = self._origins.get(member)
        if origin is None or incarnation > origin.incarnation:
            origin = self._origins[member] = _Origin(incarnation)
        elif incarnation < origin.incarnation:
            return Verdict.STALE
        if sequence < origin.low_watermark or sequence in origin.applied:
            return Verdict.DUPLICATE
        origin.applied.add(sequence)
        if low_watermark > origin.low_watermark:
            origin.raise_watermark(low_watermark)
        return Verdict.FRESH

    def has_applied(self, member: int, incarnation: int, sequence: int) -> bool:
        """Whether this command took effect, or never will any more."""
        origin = self._origins.get(member)
        if origin is None or incarnation > origin.incarnation:
            return False
        return (
            incarnation < origin.incarnation
            or sequence < origin.low_watermark
            or sequence in origin.applied
        )

    def rows(self) -> Iterator[OriginRow]:
        """All of it, for a snapshot, in order of member. Consistent only until the next command."""
        for member, origin in sorted(self._origins.items()):
            applied = tuple(sorted(origin.applied))
            yield member, origin.incarnation, origin.low_watermark, applied

    def restore(self, row: OriginRow) -> None:
        """Take in a row.

        Raises:
            StateError: The member is there already.
        """
        member, incarnation, low_watermark, applied = row
        if member in self._origins:
            raise StateError(f"a snapshot names the commands of member {member:x} twice")
        origin = self._origins[member] = _Origin(incarnation)
        origin.low_watermark = low_watermark
        origin.applied = set(applied)
