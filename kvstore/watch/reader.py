"""What watching needs of the store: the revision log, read from any point."""

from typing import Protocol

from kvstore.types import KeyValue


class LogReader(Protocol):
    """The store, as far as watchers see it. All of it is about what has been published.

    Ordinals count the records of the log; they only grow, and a compaction changes none.
    """

    @property
    def revision(self) -> int:
        """The newest published revision."""

    @property
    def compacted_revision(self) -> int:
        """Below it history is incomplete; -1 if nothing was ever compacted."""

    @property
    def log_end(self) -> int:
        """The ordinal after the last published record."""

    def log_position(self, revision: int) -> int:
        """The ordinal of the first retained record of this revision or a higher one."""

    def log_slice(self, start: int, count: int) -> tuple[list[KeyValue], int]:
        """Up to ``count`` retained records from an ordinal on, and the ordinal to go on from."""

    def history(self, key: bytes, revision: int, count: int) -> list[KeyValue]:
        """Up to ``count`` versions of a key from a revision on, tombstones too, oldest first."""

    def get(self, key: bytes, revision: int = 0) -> KeyValue | None:
        """A key as it was at a revision; KvError COMPACTED if that is forgotten."""


class EmptyLog:
    """The log of a store to which nothing was ever written: what a hub reads until it is bound."""

    revision = 1
    compacted_revision = -1
    log_end = 0

    def log_position(self, _revision: int) -> int:
        """The beginning, which is the end."""
        return 0

    def log_slice(self, start: int, _count: int) -> tuple[list[KeyValue], int]:
        """No records."""
        return [], start

    def history(self, _key: bytes, _revision: int, _count: int) -> list[KeyValue]:
        """No versions."""
        return []

    def get(self, _key: bytes, _revision: int = 0) -> KeyValue | None:
        """No key."""
        return None
