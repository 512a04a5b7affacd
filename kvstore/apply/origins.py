"""Which commands have been applied: a proposal that was sent twice counts once.

Each member numbers its commands, in each of its lives (incarnations) from 1 on, and says along
with each one below which number it will send nothing again (its low watermark). So what has to be
remembered of a member is its newest incarnation, the watermark, and the numbers applied above it:
no more than it proposes while its oldest command waits. They mostly come in order, and then the
number of the next one says it all. Behind a gap there can be 100,000 where one hangs till its time
is up, so a bit stands for each, in blocks of 1,024: the watermark's next step then lets go of a
hundred blocks, and not of 100,000 numbers.
"""

import enum
from bisect import bisect_left
from collections.abc import Iterator
from itertools import compress
from typing import Final, TypeAlias

from kvstore.errors import StateError

OriginRow: TypeAlias = tuple[int, int, int, tuple[int, ...]]
"""Member, incarnation, low watermark, applied sequences above it in rising order."""

_BLOCK_BITS: Final = 10
_BLOCK_MASK: Final = (1 << _BLOCK_BITS) - 1
_DIGIT_VALUES: Final = bytes.maketrans(b"01", b"\x00\x01")


class Verdict(enum.IntEnum):
    """Whether a command counts."""

    FRESH = 0
    DUPLICATE = 1
    STALE = 2


class _Origin:
    """One life of one member. What is below ``end`` counts as applied, noted or not.

    Attributes:
        low_watermark: Below it nothing is sent again.
        end: Everything from the watermark to below it is applied: commands mostly come in order,
            and then a number says it all.
        blocks: A bit for each applied sequence that is not below ``end``, by the sequence shifted
            right; bits that the end has passed go with their block.
    """

    __slots__ = ("blocks", "end", "incarnation", "low_watermark")

    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation
        self.low_watermark = 0
        self.end = 0
        self.blocks: dict[int, int] = {}

    def add(self, sequence: int) -> bool:
        """Note a sequence; return whether it was new."""
        if sequence < self.end:
            return False
        number = sequence >> _BLOCK_BITS
        bit = 1 << (sequence & _BLOCK_MASK)
        bits = self.blocks.get(number, 0)
        if bits & bit:
            return False
        if sequence == self.end:
            self.end = sequence + 1
        else:
            self.blocks[number] = bits | bit
        return True

    def __contains__(self, sequence: int) -> bool:
        if sequence < self.end:
            return True
        bits = self.blocks.get(sequence >> _BLOCK_BITS, 0)
        return bool(bits >> (sequence & _BLOCK_MASK) & 1)

    def raise_watermark(self, low_watermark: int) -> None:
        """Forget what will not be sent again."""
        self.low_watermark = low_watermark
        self.end = max(self.end, low_watermark)
        lowest = low_watermark >> _BLOCK_BITS
        for number in [number for number in self.blocks if number < lowest]:
            del self.blocks[number]

    def applied(self) -> tuple[int, ...]:
        """The sequences from the watermark on, rising."""
        found: list[int] = []
        for number, bits in sorted(self.blocks.items()):
            first = number << _BLOCK_BITS
            digits = f"{bits:b}"[::-1].encode().translate(_DIGIT_VALUES)
            found += compress(range(first, first + len(digits)), digits)
        return (*range(self.low_watermark, self.end), *found[bisect_left(found, self.end) :])


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
        # A member sends its watermark with the command, so that it cannot be above it.
        if low_watermark > origin.low_watermark:
            origin.raise_watermark(low_watermark)
        if sequence == origin.end and not origin.blocks:
            # As ``add`` has it: nearly all commands come by here.
            origin.end = sequence + 1
        elif not origin.add(sequence):
            return Verdict.DUPLICATE
        return Verdict.FRESH

    def has_applied(self, member: int, incarnation: int, sequence: int) -> bool:
        """Whether this command took effect, or never will any more."""
        origin = self._origins.get(member)
        if origin is None or incarnation > origin.incarnation:
            return False
        return incarnation < origin.incarnation or sequence in origin

    def rows(self) -> Iterator[OriginRow]:
        """All of it, for a snapshot, in order of member. Consistent only until the next command."""
        for member, origin in sorted(self._origins.items()):
            yield member, origin.incarnation, origin.low_watermark, origin.applied()

    def restore(self, row: OriginRow) -> None:
        """Take in a row.

        Raises:
            StateError: The member is there already.
        """
        member, incarnation, low_watermark, applied = row
        if member in self._origins:
            raise StateError(f"a snapshot names the commands of member {member:x} twice")
        origin = self._origins[member] = _Origin(incarnation)
        origin.low_watermark = origin.end = low_watermark
        for sequence in applied:
            origin.add(sequence)
