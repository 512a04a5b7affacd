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


class LostStateError(StateError):
    """What the log stands on is damaged beyond repair; nothing is wrong with this version."""


class DivergedError(StateError):
    """This member's state differs from that of a majority."""


class RemovedError(KvstoreError):
    """This member was taken out of its cluster, and its process ends."""


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
    INVALID_CLIENT_API_VERSION = (Code.INVALID_ARGUMENT, "etcdserver: invalid client api version")
    REQUEST_TOO_LARGE = (Code.INVALID_ARGUMENT, "etcdserver: request is too large")
    MEMBER_BAD_URLS = (Code.INVALID_ARGUMENT, "etcdserver: given member URLs are invalid")
    USER_EMPTY = (Code.INVALID_ARGUMENT, "etcdserver: user name is empty")
    ROLE_EMPTY = (Code.INVALID_ARGUMENT, "etcdserver: role name is empty")
    AUTH_FAILED = (
        Code.INVALID_ARGUMENT,
        "etcdserver: authentication failed, invalid user ID or password",
    )
    PERMISSION_NOT_GIVEN = (Code.INVALID_ARGUMENT, "etcdserver: permission not given")
    INVALID_AUTH_MANAGEMENT = (Code.INVALID_ARGUMENT, "etcdserver: invalid auth management")
    AUTH_OLD_REVISION = (Code.INVALID_ARGUMENT, "etcdserver: revision of auth store is old")
    WRONG_DOWNGRADE_VERSION_FORMAT = (
        Code.INVALID_ARGUMENT,
        "etcdserver: wrong downgrade target version format",
    )
    INVALID_DOWNGRADE_TARGET_VERSION = (
        Code.INVALID_ARGUMENT,
        "etcdserver: invalid downgrade target version",
    )
    LEASE_NOT_FOUND = (Code.NOT_FOUND, "etcdserver: requested lease not found")
    MEMBER_NOT_FOUND = (Code.NOT_FOUND, "etcdserver: member not found")
    LEASE_EXIST = (Code.FAILED_PRECONDITION, "etcdserver: lease already exists")
    MEMBER_EXIST = (Code.FAILED_PRECONDITION, "etcdserver: member ID already exist")
    PEER_URL_EXIST = (Code.FAILED_PRECONDITION, "etcdserver: Peer URLs already exists")
    MEMBER_NOT_LEARNER = (Code.FAILED_PRECONDITION, "etcdserver: can only promote a learner member")
    LEARNER_NOT_READY = (
        Code.FAILED_PRECONDITION,
        "etcdserver: can only promote a learner member which is in sync with leader",
    )
    TOO_MANY_LEARNERS = (
        Code.FAILED_PRECONDITION,
        "etcdserver: too many learner members in cluster",
    )
    CLUSTER_ID_MISMATCH = (Code.FAILED_PRECONDITION, "etcdserver: cluster ID mismatch")
    ROOT_USER_NOT_EXIST = (Code.FAILED_PRECONDITION, "etcdserver: root user does not exist")
    ROOT_ROLE_NOT_EXIST = (
        Code.FAILED_PRECONDITION,
        "etcdserver: root user does not have root role",
    )
    USER_ALREADY_EXIST = (Code.FAILED_PRECONDITION, "etcdserver: user name already exists")
    USER_NOT_FOUND = (Code.FAILED_PRECONDITION, "etcdserver: user name not found")
    ROLE_ALREADY_EXIST = (Code.FAILED_PRECONDITION, "etcdserver: role name already exists")
    ROLE_NOT_FOUND = (Code.FAILED_PRECONDITION, "etcdserver: role name not found")
    ROLE_NOT_GRANTED = (Code.FAILED_PRECONDITION, "etcdserver: role is not granted to the user")
    PERMISSION_NOT_GRANTED = (
        Code.FAILED_PRECONDITION,
        "etcdserver: permission is not granted to the role",
    )
    AUTH_NOT_ENABLED = (Code.FAILED_PRECONDITION, "etcdserver: authentication is not enabled")
    NOT_LEADER = (Code.FAILED_PRECONDITION, "etcdserver: not leader")
    BAD_LEADER_TRANSFEREE = (Code.FAILED_PRECONDITION, "etcdserver: bad leader transferee")
    NOT_CAPABLE = (Code.FAILED_PRECONDITION, "etcdserver: not capable")
    NOT_SUPPORTED_FOR_LEARNER = (
        Code.FAILED_PRECONDITION,
        "etcdserver: rpc not supported for learner",
    )
    CLUSTER_VERSION_UNAVAILABLE = (
        Code.FAILED_PRECONDITION,
        "etcdserver: cluster version not found during downgrade",
    )
    DOWNGRADE_IN_PROCESS = (
        Code.FAILED_PRECONDITION,
        "etcdserver: cluster has a downgrade job in progress",
    )
    NO_INFLIGHT_DOWNGRADE = (Code.FAILED_PRECONDITION, "etcdserver: no inflight downgrade job")
    COMPACTED = (Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")
    FUTURE_REVISION = (
        Code.OUT_OF_RANGE,
        "etcdserver: mvcc: required revision is a future revision",
    )
    LEASE_TTL_TOO_LARGE = (Code.OUT_OF_RANGE, "etcdserver: too large lease TTL")
    NO_SPACE = (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")
    RESPONSE_TOO_LARGE = (
        Code.RESOURCE_EXHAUSTED,
        "kvstore: the answer would exceed the memory limit of a request; use limit and page on",
    )
    PERMISSION_DENIED = (Code.PERMISSION_DENIED, "etcdserver: permission denied")
    INVALID_AUTH_TOKEN = (Code.UNAUTHENTICATED, "etcdserver: invalid auth token")
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
    REBUILDING = (
        Code.UNAVAILABLE,
        "kvstore: this member is rebuilding its state from the leader's, ask another",
    )
    UNHEALTHY = (Code.UNAVAILABLE, "etcdserver: unhealthy cluster")
    CORRUPT = (Code.DATA_LOSS, "etcdserver: corrupt cluster")
    WATCH_CANCELED = (Code.CANCELED, "etcdserver: watch canceled")
    CANCELED = (Code.CANCELED, "etcdserver: request canceled")
    DEADLINE_EXCEEDED = (Code.DEADLINE_EXCEEDED, "context deadline exceeded")
    MEMBER_NOT_ENOUGH_STARTED = (
        Code.UNKNOWN,
        "etcdserver: re-configuration failed due to not enough started members",
    )
    TOO_MANY_REQUESTS = (Code.UNKNOWN, "etcdserver: too many requests")
    NO_PASSWORD_USER = (
        Code.UNKNOWN,
        "auth: authentication failed, password was given for no password user",
    )
    TIMEOUT_LEADER_TRANSFER = (
        Code.UNKNOWN,
        "etcdserver: request timed out, leader transfer took too long",
    )
    UNKNOWN_METHOD = (Code.UNKNOWN, "etcdserver: unknown method")
    NOT_PRIMARY_LESSOR = (Code.UNKNOWN, "not a primary lessor")
    PASSWORD_TOO_LONG = (Code.UNKNOWN, "bcrypt: password length exceeds 72 bytes")
    MUTEX_SESSION_EXPIRED = (Code.UNKNOWN, "mutex: session is expired")
    ELECTION_NO_LEADER = (Code.UNKNOWN, "election: no leader")
    ELECTION_NOT_LEADER = (Code.UNKNOWN, "election: not leader")
    ELECTION_LEADER_MISSING = (Code.UNKNOWN, '"leader" field must be provided')

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
        ErrorKind.REBUILDING,
        ErrorKind.TOO_MANY_REQUESTS,
        ErrorKind.TIMEOUT_WAIT_APPLIED,
    }
)
