"""What can go wrong in the core: peers' and disks' faults raise, our own mistakes assert."""

import enum


class RejectReason(enum.IntEnum):
    """Why a proposal or a read was not taken. None means that it was done; all but ``TOO_LARGE``
    may be tried again.
    """

    NO_LEADER = 1
    LEADERSHIP_LOST = 2
    TRANSFERRING = 3
    UNCOMMITTED_LIMIT = 4
    MEMBERSHIP_PENDING = 5
    NOT_READY = 6
    TOO_LARGE = 7


class RaftError(Exception):
    """Root of everything raised by this package."""


class CodecError(RaftError):
    """Bytes from a peer or a disk are not what they claim to be."""


class ConfigError(RaftError):
    """A configuration that cannot work; the message names the field and what it may be."""


class PeerError(RaftError):
    """A peer said what no correct peer can say. The node took nothing from it; hang up on it."""


class StorageError(RaftError):
    """This node's own disk gave back less than was acknowledged, or what does not hold together.

    Fatal: a member that may have forgotten a vote or an entry must not take part again under its
    id, since a majority could otherwise be counted twice (Raft §5.2, §5.4).
    """
