"""What can go wrong in the core. Peers' and disks' faults raise; our own mistakes are assertions."""

import enum


class RejectReason(enum.IntEnum):
    """Why a proposal or a read was not taken. All may be tried again; none means that it was done."""

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
