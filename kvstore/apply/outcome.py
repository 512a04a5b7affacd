"""What applying an entry led to: the answer for whoever proposed it."""

import msgspec

from kvstore.errors import KvError
from kvstore.types import Record


class Outcome(msgspec.Struct, gc=False):
    """The effect of one entry.

    Attributes:
        member: Who proposed it, 0 if it was no command; with ``incarnation`` and ``sequence`` its
            name.
        incarnation: Of the proposer.
        sequence: Of the proposer.
        index: Of the entry.
        response: The answer without its header, an error (nothing was changed), or None where
            there is nothing to answer.
        revision: The store's revision after it, for the answer's header.
        duplicate: Whether an earlier entry of the same name did the work: this one did nothing.
    """

    member: int
    incarnation: int
    sequence: int
    index: int
    response: Record | KvError | None
    revision: int
    duplicate: bool = False
