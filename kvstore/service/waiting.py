"""Whose turn is it? What locks and elections share: a queue of keys under a name.

Every candidate has one key, the name, a slash, and its lease in hexadecimal. The oldest key (the
one of lowest create revision) has its turn; every other candidate waits for the next older key to
go. So a release wakes one of them, and whoever came first is next.

::

    lock/694d8f5c2c1a   created at 12   has its turn
    lock/4d             created at 15   waits for lock/694d8f5c2c1a to go
    lock/51             created at 19   waits for lock/4d to go

All of it is made of the other calls, with the caller's own token: whoever may not read or write the
keys cannot wait here either.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from kvstore.commands import Kind
from kvstore.errors import Code, ErrorKind, KvError, UnknownOutcomeError
from kvstore.service.presence import Ear, Presence, ask
from kvstore.types import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    FilterType,
    KeyValue,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseId,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    ResponseHeader,
    SortOrder,
    SortTarget,
    TxnRequest,
    TxnResponse,
    WatchCreateRequest,
)

if TYPE_CHECKING:
    from kvstore.service.caller import Caller
    from kvstore.service.service import Service

TURNS_MAX: Final = 10_000
LEASE_SECONDS: Final = 60
"""What a caller without a lease of its own gets; nobody renews it."""
TIDY_SECONDS: Final = 1.0
"""How long an error may be held back for the key to be gone first.

Whoever tries again under the same lease would else find it, and lose it a moment later.
"""
STOP_SECONDS: Final = 1.0


class Turn(msgspec.Struct, frozen=True):
    """It is the candidate's turn.

    ``header`` is as of when that was known, ``entered`` as of when the wait began. ``revision`` is
    the create revision of the key: it is higher than that of whoever had the turn before, and so
    tells their late words from the new owner's.
    """

    header: ResponseHeader
    entered: ResponseHeader
    key: bytes
    revision: int
    lease: int


def prefix_of(name: bytes) -> tuple[bytes, bytes]:
    """The keys of a name's candidates, as a key and a range end."""
    return name + b"/", name + b"0"


def first_of(name: bytes, revision: int = 0) -> RangeRequest:
    """Ask for the oldest key under a name, now or as of a revision."""
    return RangeRequest(
        *prefix_of(name),
        limit=1,
        revision=revision,
        sort_order=SortOrder.ASCEND,
        sort_target=SortTarget.CREATE,
    )


def created_at(key: bytes, revision: int) -> Compare:
    """Whether a key is the very one that was created then (0: whether there is none)."""
    return Compare(CompareResult.EQUAL, CompareTarget.CREATE, key=key, create_revision=revision)


def told(error: KvError) -> KvError:
    """An inner call's error as these services tell it: etcd gives its text, and code Unknown.

    Only the end of the caller's own patience keeps its code.
    """
    if error.code in (Code.CANCELED, Code.DEADLINE_EXCEEDED, Code.UNKNOWN):
        return error
    if isinstance(error, UnknownOutcomeError):
        return UnknownOutcomeError(Code.UNKNOWN, error.message)
    return KvError(Code.UNKNOWN, error.message, retryable=error.retryable)


def nothing() -> None:
    """What calls off a call that is answered already."""


class Candidate:
    """One call that waits for its turn; ``run`` answers it, once.

    Args:
        waiting: Where it waits.
        name: What it is a candidate for.
        lease: Its key's lease; 0 for a new one.
        value: What its key shall say; None to leave what is there.
        lost: The error if its key vanishes while it waits.
        caller: On whose behalf.
        reply: Gets the ``Turn`` or the error.
    """

    def __init__(
        self,
        waiting: "Waiting",
        name: bytes,
        lease: int,
        value: bytes | None,
        lost: ErrorKind,
        caller: "Caller",
        reply: Callable[[Turn | KvError], None],
    ) -> None:
        self.presence = Presence()
        self._waiting = waiting
        self._service = waiting.service
        self._name = name
        self._lease = lease
        self._lease_is_own = lease == 0
        self._value = value
        self._lost = lost
        # The caller's patience bounds the whole wait, not the steps: a step that was begun has an
        # outcome, and what has to be tidied up depends on it.
        self._caller = msgspec.structs.replace(caller, timeout_seconds=None, has_leader=False)
        self._reply = reply
        self._answered = False
        self._key = b""
        self._revision = 0

    async def run(self) -> None:
        """Wait, and answer."""
        try:
            turn = await self._take_turn()
        except KvError as error:
            await self._leave(error)
        else:
            self.answer(turn)

    def answer(self, result: Turn | KvError) -> None:
        """Tell the caller, unless they were told."""
        if not self._answered:
            self._answered = True
            self._reply(result)

    # --- getting there ----------------------------------------------------------------------------

    async def _take_turn(self) -> Turn:
        """Have a key, and wait until there is none that is older.

        Raises:
            KvError: It cannot be had, or the wait is over.
        """
        entered, first = await self._enter()
        header = entered
        while not first:
            self.presence.check()
            header, older = await self._look()
            if not older:
                break
            await self._await_change(older, header.revision + 1)
        if self._lease_is_own:
            # Nobody else knows the lease, so whoever left during the last step cannot give back
            # what they would be told in vain.
            self.presence.check()
        return Turn(header, entered, self._key, self._revision, self._lease)

    async def _enter(self) -> tuple[ResponseHeader, bool]:
        """Put the key, unless this lease has one under the name; whether it is the oldest.

        Both in one transaction, so that an uncontended turn costs no more than a put.
        """
        if self._lease == 0:
            granted: LeaseGrantResponse = await ask(
                self._service.lease_grant, LeaseGrantRequest(LEASE_SECONDS), self._caller
            )
            self._lease = granted.ID
            self.presence.check()
        key = b"%b/%b" % (self._name, f"{self._lease:x}".encode())
        first = RequestOp(request_range=first_of(self._name))
        put = RequestOp(request_put=PutRequest(key, self._value or b"", self._lease))
        request = TxnRequest(
            compare=[created_at(key, 0)],
            success=[put, first],
            failure=[RequestOp(request_range=RangeRequest(key)), first],
        )
        response: TxnResponse = await ask(self._service.txn, request, self._caller)
        header = _header_of(response)
        self._key = key
        if response.succeeded:
            self._revision = header.revision
        else:
            present = _kvs_of(response, 0)[0]
            self._revision = present.create_revision
            if self._value is not None and present.value != self._value:
                await self._proclaim(self._value)
            self._check_lease()
        return header, _kvs_of(response, 1)[0].create_revision == self._revision

    async def _proclaim(self, value: bytes) -> None:
        put = RequestOp(request_put=PutRequest(self._key, value, self._lease))
        request = TxnRequest(compare=[created_at(self._key, self._revision)], success=[put])
        response: TxnResponse = await ask(self._service.txn, request, self._caller)
        if not response.succeeded:
            raise ErrorKind.ELECTION_NOT_LEADER.error()

    def _check_lease(self) -> None:
        """A key can outlive its lease, if somebody put it again without; a turn does not."""
        if not self._service.machine.lessor.exists(LeaseId(self._lease)):
            raise self._lost.error()

    async def _look(self) -> tuple[ResponseHeader, bytes]:
        """The youngest of the keys that are older, as of now; empty if there is none.

        Raises:
            KvError: The own key is gone, and with it the place in the queue. A turn must not be
                announced to one whose lease has ended: the next has it already.
        """
        older = RangeRequest(
            *prefix_of(self._name),
            limit=1,
            sort_order=SortOrder.DESCEND,
            sort_target=SortTarget.CREATE,
            keys_only=True,
            max_create_revision=self._revision - 1,
        )
        own = RangeRequest(self._key, keys_only=True)
        request = TxnRequest(success=[RequestOp(request_range=own), RequestOp(request_range=older)])
        response: TxnResponse = await ask(self._service.txn, request, self._caller)
        present = _kvs_of(response, 0)
        if not present or present[0].create_revision != self._revision:
            self._key = b""
            raise self._lost.error()
        self._check_lease()
        found = _kvs_of(response, 1)
        return _header_of(response), found[0].key if found else b""

    async def _await_change(self, older: bytes, revision: int) -> None:
        """Wait until the older key or the own one is deleted, from a revision on."""
        watches = [
            WatchCreateRequest(key, start_revision=revision, filters=[FilterType.NOPUT])
            for key in (older, self._key)
        ]
        ear = Ear(self._service, self._caller, self.presence, watches)
        try:
            # History that was compacted meanwhile is made up for by looking again.
            await ear.hear()
        finally:
            ear.close()

    # --- leaving ----------------------------------------------------------------------------------

    async def _leave(self, error: KvError) -> None:
        """Tidy up, and tell the caller, who does not have to wait for ever for that."""
        answer = error if error is self.presence.ended else told(error)
        if self._key and not isinstance(answer, UnknownOutcomeError):
            # Something was written, if only for a while: nothing may pass for never having begun.
            answer = UnknownOutcomeError(answer.code, _after_the_fact(answer.message))
        late = self._waiting.loop.call_later(TIDY_SECONDS, self.answer, answer)
        await self._tidy_up(lost=error == self._lost.error())
        late.cancel()
        self.answer(answer)

    async def _tidy_up(self, *, lost: bool) -> None:
        """Take the key away again, however long that takes while this member runs.

        It is the member that does it, not the caller: their token may have run out.

        Args:
            lost: Whether the lease has ended, so that its key cannot be anybody's. Else a key whose
                turn it is stays: another call under the same lease may have been told so, here or
                on another member, and who holds a lock must not lose it because of a call that
                failed elsewhere, perhaps long ago. (It ends with its lease.)
        """
        if self._lease_is_own:
            if self._lease == 0:
                return
            # Nobody else knows the lease. A put that may yet happen fails without it.
            kind: Kind = Kind.LEASE_REVOKE
            body: LeaseRevokeRequest | TxnRequest = LeaseRevokeRequest(self._lease)
        elif self._key:
            kind, body = Kind.TXN, self._deletion(spare_first=not lost)
        else:
            return
        propose = self._service.node.propose
        while not self._waiting.closed:
            outcome = await propose(kind, body)
            if self._waiting.stopped or not isinstance(outcome, KvError):
                return
            if outcome.code not in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED):
                return

    def _deletion(self, *, spare_first: bool) -> TxnRequest:
        own = [created_at(self._key, self._revision)]
        delete = [RequestOp(request_delete_range=DeleteRangeRequest(self._key))]
        if not spare_first:
            return TxnRequest(compare=own, success=delete)
        key, range_end = prefix_of(self._name)
        none_is_older = Compare(
            CompareResult.GREATER,
            CompareTarget.CREATE,
            key=key,
            range_end=range_end,
            create_revision=self._revision - 1,
        )
        nested = RequestOp(request_txn=TxnRequest(compare=own, success=delete))
        return TxnRequest(compare=[none_is_older], failure=[nested])


def _after_the_fact(message: str) -> str:
    """Words that promise that nothing was done do not fit any more once something was."""
    if message == ErrorKind.TOO_MANY_REQUESTS.message:
        return "kvstore: too many callers wait on this member"
    if message == ErrorKind.NO_LEADER.message:
        return ErrorKind.TIMEOUT_LEADER_FAIL.message
    return message


def _header_of(response: TxnResponse) -> ResponseHeader:
    assert response.header is not None, "an answer has a header"
    return response.header


def _kvs_of(response: TxnResponse, place: int) -> list[KeyValue]:
    found = response.responses[place].response_range
    assert found is not None, "a range is answered by a range"
    return found.kvs


class Waiting:
    """All who wait on this member.

    Args:
        service: The calls that waiting is made of.
    """

    def __init__(self, service: "Service") -> None:
        self.service = service
        self.loop = service.node.loop
        self.stopped = False
        self.closed = False
        """Whether this member proposes nothing more."""
        self._present: dict[Presence, None] = {}
        self._tasks: dict[asyncio.Task[None], None] = {}

    def __len__(self) -> int:
        return len(self._present)

    def join(self, presence: Presence) -> None:
        """Somebody waits from now on.

        Raises:
            KvError: This member stops, or too many wait already; nothing was done.
        """
        if self.stopped:
            raise ErrorKind.STOPPED.error()
        if len(self._present) >= TURNS_MAX:
            raise ErrorKind.TOO_MANY_REQUESTS.error()
        self._present[presence] = None

    def part(self, presence: Presence) -> None:
        """And waits no more."""
        self._present.pop(presence, None)

    def begin(self, candidate: Candidate, patience_seconds: float | None) -> Callable[[], None]:
        """Let a candidate wait for its turn.

        Args:
            candidate: It answers its caller itself.
            patience_seconds: How long the caller waits at most; None for ever.

        Returns:
            To be called if the caller goes away; harmless later on.

        """
        presence = candidate.presence
        try:
            self.join(presence)
        except KvError as error:
            candidate.answer(error)
            return nothing
        task = self.loop.create_task(candidate.run())
        self._tasks[task] = None
        late: asyncio.TimerHandle | None = None
        if patience_seconds is not None:
            late = self.loop.call_later(
                patience_seconds, presence.end, ErrorKind.DEADLINE_EXCEEDED.error()
            )

        def done(task: asyncio.Task[None]) -> None:
            del self._tasks[task]
            self.part(presence)
            if late is not None:
                late.cancel()

        task.add_done_callback(done)
        return lambda: presence.end(ErrorKind.CANCELED.error())

    async def stop(self) -> None:
        """This member stops: nobody waits any more, and their keys go, as far as there is time."""
        self.stopped = True
        for presence in list(self._present):
            presence.end(ErrorKind.STOPPED.error())
        tasks = list(self._tasks)
        if tasks and not self.service.node.failed.done():
            await asyncio.wait(tasks, timeout=STOP_SECONDS)
        self.closed = True
