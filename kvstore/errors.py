"""Everything that can go wrong and that somebody outside is told of, with etcd's codes and texts.

``KvError`` carries a gRPC status code and etcd's exact message, because client libraries tell
errors apart by both. The faces map the code to their own status (``kvstore/api/error_map.py``).
``UnknownOutcomeError`` marks the one case where a write may or may not have happened.
"""

import enum
from typing import Final


class Code(enum.IntEnum):
    """gRPC status codes."""

    OK = 0
    CANCELED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class KvstoreError(Exception):
    """Root of everything raised by this package."""


class CommandError(KvstoreError):
    """A replicated command cannot be understood.

    Fatal: the member stops rather than differ from its peers.
    """


class StateError(KvstoreError):
    """A snapshot or a recovered state does not hold together. Fatal."""


class ConfigError(KvstoreError):
    """A flag, variable or file entry cannot be used.

    The message names it and says what it may be.
    """


class KvError(KvstoreError):
    """An answer that is an error.

    Equal by code and message; ``retryable`` says whether the same call may simply be sent again.
    """

    def __init__(self, code: Code, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KvError) and (self.code, self.message) == (
            other.code,
            other.message,
        )

    def __hash__(self) -> int:
        return hash((self.code, self.message))


class UnknownOutcomeError(KvError):
    """The call was proposed and its fate is not known.

    It may have happened, may happen later, or never.
    """


class ErrorKind(enum.Enum):
    """etcd's errors by name: (code, message).

    ``ErrorKind.X.error()`` makes one to raise or to return.
    """

    EMPTY_KEY = (Code.INVALID_ARGUMENT, "etcdserver: key is not provided")
    KEY_NOT_FOUND = (Code.INVALID_ARGUMENT, "etcdserver: key not found")
    VALUE_PROVIDED = (Code.INVALID_ARGUMENT, "etcdserver: value is provided")
    LEASE_PROVIDED = (Code.INVALID_ARGUMENT, "etcdserver: lease is provided")
    TOO_MANY_OPS = (Code.INVALID_ARGUMENT, "etcdserver: too many operations in txn request")
    DUPLICATE_KEY = (Code.INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request")
    INVALID_SORT_OPTION = (Code.INVALID_ARGUMENT, "etcdserver: invalid sort option")
    REQUEST_TOO_LARGE = (Code.INVALID_ARGUMENT, "etcdserver: request is too large")
    LEASE_NOT_FOUND = (Code.NOT_FOUND, "etcdserver: requested lease not found")
    MEMBER_NOT_FOUND = (Code.NOT_FOUND, "etcdserver: member not found")
    LEASE_EXIST = (Code.FAILED_PRECONDITION, "etcdserver: lease already exists")
    COMPACTED = (Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")
    FUTURE_REVISION = (
        Code.OUT_OF_RANGE,
        "etcdserver: mvcc: required revision is a future revision",
    )
    LEASE_TTL_TOO_LARGE = (Code.OUT_OF_RANGE, "etcdserver: too large lease TTL")
    NO_SPACE = (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")
    CORRUPT = (Code.DATA_LOSS, "etcdserver: corrupt cluster")
    NO_LEADER = (Code.UNAVAILABLE, "etcdserver: no leader")
    LEADER_CHANGED = (Code.UNAVAILABLE, "etcdserver: leader changed")
    STOPPED = (Code.UNAVAILABLE, "etcdserver: server stopped")
    TIMEOUT = (Code.UNAVAILABLE, "etcdserver: request timed out")
    TIMEOUT_LEADER_FAIL = (
        Code.UNAVAILABLE,
        "etcdserver: request timed out, possibly due to previous leader failure",
    )
    TIMEOUT_CONNECTION_LOST = (
        Code.UNAVAILABLE,
        "etcdserver: request timed out, possibly due to connection lost",
    )
    TIMEOUT_WAIT_APPLIED = (
        Code.UNAVAILABLE,
        "etcdserver: request timed out, waiting for the applied index took too long",
    )
    TOO_MANY_REQUESTS = (Code.UNKNOWN, "etcdserver: too many requests")
    DEADLINE_EXCEEDED = (Code.DEADLINE_EXCEEDED, "context deadline exceeded")
    CANCELED = (Code.CANCELED, "etcdserver: request canceled")
    RESPONSE_TOO_LARGE = (
        Code.RESOURCE_EXHAUSTED,
        "kvstore: the answer would exceed the memory limit of a request; use limit and page on",
    )

    @property
    def code(self) -> Code:
        """The gRPC code."""
        return self.value[0]

    @property
    def message(self) -> str:
        """etcd's exact text."""
        return self.value[1]

    def error(self) -> KvError:
        """A fresh error of this kind: exceptions carry tracebacks, so they are not shared."""
        return KvError(self.code, self.message, retryable=self in RETRYABLE)

    def unknown_outcome(self) -> UnknownOutcomeError:
        """The same answer, marked: the call had been proposed."""
        return UnknownOutcomeError(self.code, self.message)


RETRYABLE: Final = frozenset(
    {
        ErrorKind.NO_LEADER,
        ErrorKind.LEADER_CHANGED,
        ErrorKind.STOPPED,
        ErrorKind.TOO_MANY_REQUESTS,
        ErrorKind.TIMEOUT_WAIT_APPLIED,
    }
)
