"""What can go wrong on the way to the disk and back.

None of these may be tried again by itself: a log that is in doubt is not written on, because a
member that lost what it acknowledged must not vote or acknowledge again under its id.
``DiskFullError`` ends when there is room again.
"""

import errno
from typing import Final

REPLACE_REMEDY: Final = (
    "do not start this member on this directory again: what it acknowledged may be lost. The other "
    "members go on without it: put a new one in its place with 'kvstore member replace NAME', and "
    "start that with an empty directory. For a cluster of one, restore a copy of the directory"
)


class WalError(Exception):
    """Root of everything raised by this package."""


class DiskError(WalError):
    """The disk refused an operation. After a failed write or sync nothing is known of what it
    holds.
    """


class DiskFullError(DiskError):
    """No space is left. What was acknowledged is safe; new segments and snapshots cannot be
    made.
    """


_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def disk_error(error: OSError) -> DiskError:
    """Return what an operating system's error means here."""
    return DiskFullError(str(error)) if error.errno in _NO_ROOM else DiskError(str(error))


class CorruptError(WalError):
    """Bytes on the disk are not what was written and synced there.

    Attributes: ``file`` and ``offset`` (bytes) say where, ``reason`` what is wrong, ``remedy`` what
        the operator can do; ``summary`` is all but the remedy.
    """

    def __init__(self, file: str, offset: int, reason: str, remedy: str = REPLACE_REMEDY) -> None:
        self.summary = f"{file}: damaged at byte {offset}: {reason}"
        super().__init__(f"{self.summary}; {remedy}")
        self.file = file
        self.offset = offset
        self.reason = reason
        self.remedy = remedy


class FormatError(WalError):
    """The file is intact but written in a format that this version does not read."""

    def __init__(self, file: str, found: int, supported: int) -> None:
        super().__init__(
            f"{file}: written in format {found}, this version reads format {supported}; "
            "start the version that wrote it, or a newer one"
        )
        self.file = file
        self.found = found
        self.supported = supported


class LockedError(WalError):
    """Another process, or another node in this one, has the directory open. ``pid`` is 0 where it
    is not known.
    """

    def __init__(self, directory: str, pid: int) -> None:
        holder = f"process {pid}" if pid else "another node"
        super().__init__(
            f"{directory}: in use by {holder}; "
            "stop that one first, or give this node a directory of its own"
        )
        self.directory = directory
        self.pid = pid


class NoLogError(WalError):
    """There is no log in the directory, and nothing was given to begin one with."""


class TransferError(WalError):
    """A piece of a snapshot that a peer sends does not continue what is here; ``expected_offset``
    (bytes) is what would.
    """

    def __init__(self, message: str, expected_offset: int) -> None:
        super().__init__(f"{message}; the next byte wanted is {expected_offset}")
        self.expected_offset = expected_offset


def wal_error(cause: BaseException) -> WalError:
    """Return what ended the log, as one of this package's errors."""
    if isinstance(cause, WalError):
        return cause
    if isinstance(cause, OSError):
        return disk_error(cause)
    error = WalError(f"the log's writer broke: {cause!r}")
    error.__cause__ = cause
    return error
