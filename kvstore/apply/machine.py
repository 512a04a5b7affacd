"""The state machine: committed entries in, changed state and outcomes out.

Equal entries make equal state on every member (that is all that Raft promises to hold together).
So nothing here asks a clock, chance, a local limit or the order of a set; ``now`` only starts the
local deadlines of leases, and a budget only says where long work pauses.
"""

from itertools import zip_longest
from typing import TYPE_CHECKING, Final, Protocol

from kvstore.apply.admin import administer
from kvstore.apply.capture import Capture
from kvstore.apply.effects import extend_by_command, extend_by_error, extend_by_version
from kvstore.apply.origins import Origins, Verdict
from kvstore.apply.outcome import Outcome
from kvstore.apply.quota import LEASE_BYTES, StateLimits
from kvstore.apply.roster import Roster
from kvstore.auth.check import authorise
from kvstore.auth.identity import Identity
from kvstore.auth.store import AuthStore
from kvstore.budget import Budget, Sliced
from kvstore.commands import (
    Body,
    Command,
    Downgrade,
    LeaseCheckpoint,
    LeaseExpire,
    decode,
    decode_body,
)
from kvstore.errors import ErrorKind, KvError
from kvstore.mvcc.store import Store
from kvstore.mvcc.txn import delete_keys, delete_range, execute_txn, has_puts, has_writes, put
from kvstore.types import (
    AlarmMember,
    AlarmType,
    CompactionRequest,
    CompactionResponse,
    DeleteRangeRequest,
    DeleteRangeResponse,
    KeyValue,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseId,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    Member,
    MemberId,
    PutRequest,
    PutResponse,
    Record,
    TxnRequest,
    TxnResponse,
)

if TYPE_CHECKING:
    from kvstore.auth.tokens import TokenSink
    from kvstore.lease.lessor import Lessor
    from raft.types import Entry

_STEP: Final = 64
"""Versions hashed between two questions to the budget."""


class Publisher(Protocol):
    """Who is told of each new revision: the hub of the watchers."""

    def publish(self, revision: int, records: list[KeyValue]) -> None:
        """A revision was published; these are its versions, in order."""

    def publish_range(self, revision: int) -> None:
        """A revision was published that is too large to hand around: it is in the log."""


class StateMachine:
    """All replicated state, and how entries change it.

    Args:
        members: The members at bootstrap.
        hub: Told of every published revision. Bind it to ``store`` before applying.
        lessor: The leases; empty.
        limits: Local limits.
        budget: Where a huge command's slices end. Whoever drives one renews it before each step.
        tokens: Told of tokens that come and go. They are no part of the state.

    Attributes:
        store: Keys and their versions.
        lessor: The leases.
        roster: Who is in the cluster.
        auth: Users, roles, permissions, and whether anybody is asked for them.
        alarms: Raised alarms, by member and type in order.
        cluster_version: The lowest version that all members speak; empty until decided.
        downgrade: Whether one is prepared, and to which version.
        applied_index: The last entry that took effect.
        applied_term: Its term.
        effects_hash: The rolling hash over effects, equal between members at an equal applied
            index.
        origins: Which commands have been applied.
    """

    __slots__ = (
        "_budget",
        "_busy",
        "_corrupt",
        "_hub",
        "_limits",
        "_refuses_puts",
        "alarms",
        "applied_index",
        "applied_term",
        "auth",
        "cluster_version",
        "downgrade",
        "effects_hash",
        "lessor",
        "origins",
        "roster",
        "store",
        "tokens",
    )

    def __init__(
        self,
        members: list[Member],
        hub: Publisher,
        lessor: "Lessor",
        limits: StateLimits,
        budget: Budget,
        tokens: "TokenSink",
    ) -> None:
        self.store = Store()
        self.lessor = lessor
        self.roster = Roster(members)
        self.auth = AuthStore()
        self.tokens = tokens
        self.alarms: tuple[AlarmMember, ...] = ()
        self.cluster_version = ""
        self.downgrade = Downgrade(enabled=False)
        self.applied_index = 0
        self.applied_term = 0
        self.effects_hash = 0
        self.origins = Origins()
        self._hub = hub
        self._limits = limits
        self._budget = budget
        self._busy = False
        self._corrupt = False
        self._refuses_puts = False

    # --- what the server asks
    # ----------------------------------------------------------------------

    @property
    def members(self) -> dict[MemberId, Member]:
        """The members by id."""
        return self.roster.members

    @property
    def size_bytes(self) -> int:
        """What the state costs against the quota."""
        return self.store.size_bytes + LEASE_BYTES * len(self.lessor)

    def would_exceed(self, cost: int) -> bool:
        """Whether a request of this cost (``request_cost``) must be refused, and the NOSPACE
        alarm be raised.
        """
        quota = self._limits.quota_bytes
        return cost > 0 and 0 < quota <= self.size_bytes + cost

    def capture(self) -> Capture:
        """The state as of now, in one step; what is applied later does not show in it. Close
        it when it is written.
        """
        assert not self._busy, "the state is captured in the middle of a command"
        return Capture(self)

    # --- applying
    # ----------------------------------------------------------------------------------

    def apply(self, entry: "Entry", now: float) -> Outcome | Sliced[Outcome]:
        """Take the next committed entry.

        Args:
            entry: At ``applied_index + 1``.
            now: Monotonic seconds.

        Returns:
            What it led to; of a huge command work in slices that leads to it, to be driven to its
            end before the next entry.

        Raises:
            CommandError: This member does not understand what its peers may; nothing was changed,
                and it must stop.
        """
        assert entry.index == self.applied_index + 1, "entries are applied one after the other"
        assert not self._busy, "an entry is applied in the middle of another"
        # Only commands (kind 0) mean anything here; the others are Raft's own.
        if entry.kind:
            self._advance(entry)
            return Outcome(0, 0, 0, entry.index, None, self.store.revision)
        command = decode(entry.data)
        body = decode_body(command)
        verdict = self.origins.admit(
            command.member, command.incarnation, command.sequence, command.low_watermark
        )
        response: Record | KvError | None
        if verdict:
            response = None if verdict == Verdict.DUPLICATE else ErrorKind.STOPPED.error()
            outcome = self._conclude(command, entry, response)
            outcome.duplicate = verdict == Verdict.DUPLICATE
            return outcome
        try:
            if self.auth.enabled:
                asking = Identity(command.user, command.auth_revision)
                authorise(self.auth, asking, body, self.lessor)
            if type(body) is PutRequest:
                response = self._put(body)
            else:
                work = self._work(command, body, entry, now)
                try:
                    next(work)
                except StopIteration as stop:
                    response = stop.value
                else:
                    self._busy = True
                    return self._rest(work, command, entry)
        except KvError as error:
            response = self._refused(error)
        return self._conclude(command, entry, response)

    def _rest(
        self, work: Sliced[Record | None], command: Command, entry: "Entry"
    ) -> Sliced[Outcome]:
        """The slices of a command after its first."""
        response: Record | KvError | None
        try:
            response = yield from work
        except KvError as error:
            response = self._refused(error)
        self._busy = False
        return self._conclude(command, entry, response)

    def _conclude(
        self, command: Command, entry: "Entry", response: Record | KvError | None
    ) -> Outcome:
        self._advance(entry)
        return Outcome(
            command.member,
            command.incarnation,
            command.sequence,
            entry.index,
            response,
            self.store.revision,
        )

    def _advance(self, entry: "Entry") -> None:
        assert not self.store.dirty, "an entry is done and has not published what it wrote"
        self.applied_index = entry.index
        self.applied_term = entry.term

    def _refused(self, error: KvError) -> KvError:
        assert not self.store.dirty, "a refused command has changed something"
        self.effects_hash = extend_by_error(self.effects_hash, self.store.revision, error)
        # The traceback holds this frame, which holds the error: a cycle that only the collector
        # would undo.
        return error.with_traceback(None)

    def _work(
        self, command: Command, body: Body, entry: "Entry", now: float
    ) -> Sliced[Record | None]:
        """Everything but a put, by its kind."""
        match body:
            case TxnRequest():
                return (yield from self._txn(body))
            case DeleteRangeRequest():
                return (yield from self._delete_range(body))
            case LeaseRevokeRequest():
                self._refuse_if_corrupt()
                yield from self._end_lease(LeaseId(body.ID))
                self._hash_command(command)
                return LeaseRevokeResponse()
            case LeaseExpire():
                return (yield from self._lease_expire(body, command, entry.term))
            case CompactionRequest():
                self._refuse_if_corrupt()
                self.store.compact(body.revision)
                response: Record | None = CompactionResponse()
            case LeaseGrantRequest():
                self._refuse_if_full()
                lease = self.lessor.grant(LeaseId(body.ID), body.TTL, now, entry.index)
                response = LeaseGrantResponse(None, lease.id, lease.ttl_seconds)
            case LeaseCheckpoint():
                self._lease_checkpoint(body, entry.term)
                response = None
            case PutRequest():
                raise AssertionError("a put needs no slices")
            case _:
                response = administer(self, body, entry.index)
        self._hash_command(command)
        return response

    # --- keys
    # --------------------------------------------------------------------------------------

    def _put(self, request: PutRequest) -> PutResponse:
        if self._refuses_puts:
            self._refuse_if_full()
        previous = put(self.store, self.lessor, request)
        self._publish_one()
        return PutResponse(None, previous if request.prev_kv else None)

    def _delete_range(self, request: DeleteRangeRequest) -> Sliced[DeleteRangeResponse]:
        self._refuse_if_corrupt()
        if not request.key:
            raise ErrorKind.EMPTY_KEY.error()
        deleted = yield from delete_range(self.store, self.lessor, request, self._budget)
        yield from self._publish()
        return DeleteRangeResponse(None, len(deleted), deleted if request.prev_kv else [])

    def _txn(self, request: TxnRequest) -> Sliced[TxnResponse]:
        if self._corrupt and has_writes(request):
            raise ErrorKind.CORRUPT.error()
        if self._refuses_puts and has_puts(request):
            raise ErrorKind.NO_SPACE.error()
        response = yield from execute_txn(self.store, self.lessor, request, self._budget)
        yield from self._publish()
        return response

    def _publish_one(self) -> None:
        """Make the only version that was written visible."""
        store = self.store
        record = store.last
        store.publish()
        assert record is not None, "nothing was written"
        self.effects_hash = extend_by_version(self.effects_hash, record)
        self._hub.publish(record.mod_revision, [record])

    def _publish(self) -> Sliced[None]:
        """Make what was written visible at once, having hashed it in slices."""
        store = self.store
        if store.unpublished_count < 2:
            if store.dirty:
                self._publish_one()
            return
        handed: list[KeyValue] = []
        too_many = False
        records, ordinal = store.log_unpublished(store.log_end, _STEP)
        while records:
            crc = self.effects_hash
            for record in records:
                crc = extend_by_version(crc, record)
            self.effects_hash = crc
            too_many = too_many or len(handed) + len(records) > self._limits.watch_records_max
            if not too_many:
                handed += records
            if len(records) < _STEP:
                break
            if self._budget.spent():
                yield
            records, ordinal = store.log_unpublished(ordinal, _STEP)
        store.publish()
        if too_many:
            self._hub.publish_range(store.revision)
        else:
            self._hub.publish(store.revision, handed)

    # --- leases
    # ------------------------------------------------------------------------------------

    def _end_lease(self, lease_id: LeaseId) -> Sliced[None]:
        """End a lease and delete its keys, in key order, at one revision."""
        keys = self.lessor.revoke(lease_id)
        yield from delete_keys(self.store, self.lessor, keys, self._budget)
        yield from self._publish()

    def _lease_expire(
        self, request: LeaseExpire, command: Command, term: int
    ) -> Sliced[Record | None]:
        self._refuse_if_corrupt()
        # A leader that was paused must not end what its successor has renewed meanwhile.
        if request.term != term:
            return None
        for place, (number, granted) in enumerate(zip_longest(request.ids, request.granted)):
            if place and self._budget.spent():
                yield
            if self._is_lease(number, granted):
                yield from self._end_lease(LeaseId(number))
        self._hash_command(command)
        return None

    def _lease_checkpoint(self, request: LeaseCheckpoint, term: int) -> None:
        # For the same reason: by now the lease may have been renewed, and this would shorten it.
        if request.term != term:
            return
        rows = zip_longest(request.ids, request.remaining_seconds, request.granted)
        for number, remaining, granted in rows:
            if remaining is not None and self._is_lease(number, granted):
                self.lessor.checkpoint(LeaseId(number), remaining)

    def _is_lease(self, number: int | None, granted: int | None) -> bool:
        """Whether this lease is there, and is the one that was meant.

        Without this, what was decided about a lease could befall another one that was granted under
        the same id while the command was on its way.
        """
        lease = None if number is None else self.lessor.get(LeaseId(number))
        return lease is not None and granted in (None, lease.granted_index)

    # --- cluster
    # -----------------------------------------------------------------------------------

    def set_alarms(self, alarms: tuple[AlarmMember, ...]) -> None:
        """Let these alarms, and what they forbid, hold from now on."""
        self.alarms = tuple(sorted(alarms, key=lambda alarm: (alarm.memberID, alarm.alarm)))
        types = {alarm.alarm for alarm in self.alarms}
        self._corrupt = AlarmType.CORRUPT in types
        self._refuses_puts = self._corrupt or AlarmType.NOSPACE in types

    # --- refusals and the hash
    # ---------------------------------------------------------------------

    def _refuse_if_corrupt(self) -> None:
        if self._corrupt:
            raise ErrorKind.CORRUPT.error()

    def _refuse_if_full(self) -> None:
        self._refuse_if_corrupt()
        if self._refuses_puts:
            raise ErrorKind.NO_SPACE.error()

    def _hash_command(self, command: Command) -> None:
        self.effects_hash = extend_by_command(
            self.effects_hash, self.store.revision, command.kind, bytes(command.body)
        )
