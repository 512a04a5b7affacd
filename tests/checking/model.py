"""What the store means, written for judging answers: keys, revisions, and what a call does to them.

A call is executed on a state without changing it. What comes out is the answer that a correct
store gives (without headers of its own) and the changes it makes; ``State.apply`` makes them, and
can take them back, since a search tries many orders.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
from sortedcontainers import SortedDict

from kvstore.errors import ErrorKind
from kvstore.mvcc.keyrange import upper_bound
from kvstore.types import (
    OPEN_END,
    DeleteRangeRequest,
    DeleteRangeResponse,
    KeyValue,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    ResponseHeader,
    ResponseOp,
    TxnRequest,
    TxnResponse,
)
from tests.kvstore.apply.naive import holds
from tests.kvstore.mvcc.model import answer

FIRST_REVISION = 1
"""Of a store in which nothing was ever written."""


class LeaseEnd(msgspec.Struct, frozen=True):
    """A lease ends, revoked or run out: its keys go, at one revision."""

    lease: int


Request: TypeAlias = PutRequest | DeleteRangeRequest | TxnRequest | RangeRequest | LeaseEnd

Undo: TypeAlias = list[tuple[bytes, KeyValue | None]]


class Effect(msgspec.Struct):
    """What a call does.

    Attributes:
        response: The answer; None for what nobody is answered.
        changes: The new versions in order, tombstones (version 0) for deletions.
        refusal: Why it does nothing, if it is refused.
    """

    response: Any = None
    changes: list[KeyValue] = []
    refusal: ErrorKind | None = None


class State:
    """All keys as of one revision."""

    def __init__(self, revision: int = FIRST_REVISION) -> None:
        self.revision = revision
        self.keys: SortedDict[bytes, KeyValue] = SortedDict()
        self._attached: dict[int, set[bytes]] = {}

    def find(self, key: bytes, range_end: bytes) -> list[KeyValue]:
        """The records of a range, in key order."""
        if not range_end:
            record = self.keys.get(key)
            return [] if record is None else [record]
        names = self.keys.irange(key, upper_bound(key, range_end), inclusive=(True, False))
        return [self.keys[name] for name in names]

    def attached(self, lease: int) -> list[bytes]:
        """The keys of a lease, in order."""
        return sorted(self._attached.get(lease, ()))

    def execute(self, request: Request) -> Effect:
        """What a call does to this state, which stays as it is."""
        return _Execution(self).run(request)

    def apply(self, changes: list[KeyValue], revision: int) -> Undo:
        """Go on to a revision that makes these changes; what ``take_back`` needs."""
        self.revision = revision
        undo: Undo = []
        for change in changes:
            undo.append((change.key, self.keys.get(change.key)))
            self._set(change.key, change if change.version else None)
        return undo

    def take_back(self, undo: Undo, revision: int) -> None:
        """Be as before an ``apply``."""
        self.revision = revision
        for key, record in reversed(undo):
            self._set(key, record)

    def _set(self, key: bytes, record: KeyValue | None) -> None:
        old = self.keys.pop(key, None)
        if old is not None and old.lease:
            self._attached[old.lease].discard(key)
        if record is not None:
            self.keys[key] = record
            if record.lease:
                self._attached.setdefault(record.lease, set()).add(key)


class _RefusedError(Exception):
    def __init__(self, kind: ErrorKind) -> None:
        self.kind = kind


class _Execution:
    """One call on a state: what it wrote stands beside it."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._written: dict[bytes, KeyValue | None] = {}
        self._changes: list[KeyValue] = []

    def run(self, request: Request) -> Effect:
        try:
            response = self._do(request)
        except _RefusedError as refused:
            return Effect(refusal=refused.kind)
        return Effect(response, self._changes)

    def _do(self, request: Request) -> Any:
        match request:
            case PutRequest():
                return self._put(request)
            case RangeRequest():
                return answer(self._find(request.key, request.range_end), request)
            case DeleteRangeRequest():
                return self._delete(request)
            case TxnRequest():
                self._check(request)
                return self._txn(request)
            case LeaseEnd():
                for key in self._state.attached(request.lease):
                    self._write(KeyValue(key, 0, self._state.revision + 1))
                return None

    # --- keys

    def _get(self, key: bytes) -> KeyValue | None:
        return self._written[key] if key in self._written else self._state.keys.get(key)

    def _find(self, key: bytes, range_end: bytes) -> list[KeyValue]:
        if not self._written:
            return self._state.find(key, range_end)
        found = {record.key: record for record in self._state.find(key, range_end)}
        high = upper_bound(key, range_end)
        for name, record in self._written.items():
            if name >= key and (high is None or name < high):
                found.pop(name, None)
                if record is not None:
                    found[name] = record
        return [found[name] for name in sorted(found)]

    def _write(self, record: KeyValue) -> None:
        self._written[record.key] = record if record.version else None
        self._changes.append(record)

    def _put(self, request: PutRequest) -> PutResponse:
        old = self._get(request.key)
        value, lease = request.value, request.lease
        if request.ignore_value or request.ignore_lease:
            if old is None:
                raise _RefusedError(ErrorKind.KEY_NOT_FOUND)
            value = old.value if request.ignore_value else value
            lease = old.lease if request.ignore_lease else lease
        revision = self._state.revision + 1
        created, version = (old.create_revision, old.version + 1) if old else (revision, 1)
        self._write(KeyValue(request.key, created, revision, version, value, lease))
        return PutResponse(None, old if request.prev_kv else None)

    def _delete(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        gone = self._find(request.key, request.range_end)
        for record in gone:
            self._write(KeyValue(record.key, 0, self._state.revision + 1))
        return DeleteRangeResponse(None, len(gone), gone if request.prev_kv else [])

    # --- transactions: compares see the state before, nested ones too

    def _branch(self, request: TxnRequest) -> tuple[bool, list[RequestOp]]:
        succeeded = all(
            holds(compare, {r.key: r for r in self._state.find(compare.key, compare.range_end)})
            for compare in request.compare
        )
        return succeeded, request.success if succeeded else request.failure

    def _check(self, request: TxnRequest, erased_from: bytes | None = None) -> bytes | None:
        """Refuse the whole for one operation that cannot be done; nothing has been written yet.

        Returns:
            The lowest key from which on an operation deletes everything, if there is one.
        """
        for operation in self._branch(request)[1]:
            put, found = operation.request_put, operation.request_range
            delete, inner = operation.request_delete_range, operation.request_txn
            if inner is not None:
                erased_from = self._check(inner, erased_from)
            elif put is not None and (put.ignore_value or put.ignore_lease):
                erased = erased_from is not None and put.key >= erased_from
                if erased or put.key not in self._state.keys:
                    raise _RefusedError(ErrorKind.KEY_NOT_FOUND)
            elif found is not None and found.revision > self._state.revision:
                raise _RefusedError(ErrorKind.FUTURE_REVISION)
            elif delete is not None and delete.range_end == OPEN_END:
                erased_from = delete.key if erased_from is None else min(erased_from, delete.key)
        return erased_from

    def _txn(self, request: TxnRequest) -> TxnResponse:
        succeeded, operations = self._branch(request)
        response = TxnResponse(None, succeeded, [])
        for operation in operations:
            done = ResponseOp()
            if operation.request_txn is not None:
                done.response_txn = self._txn(operation.request_txn)
                done.response_txn.header = ResponseHeader()
            elif operation.request_put is not None:
                done.response_put = self._put(operation.request_put)
                done.response_put.header = self._header()
            elif operation.request_delete_range is not None:
                done.response_delete_range = self._delete(operation.request_delete_range)
                done.response_delete_range.header = self._header()
            elif operation.request_range is not None:
                done.response_range = self._range(operation.request_range)
                done.response_range.header = self._header()
            response.responses.append(done)
        return response

    def _range(self, request: RangeRequest) -> RangeResponse:
        """Of a past revision it is judged where that revision is: here nothing is said of it."""
        if request.revision > 0:
            return RangeResponse()
        return answer(self._find(request.key, request.range_end), request)

    def _header(self) -> ResponseHeader:
        return ResponseHeader(revision=self._state.revision + bool(self._changes))


def without_headers(response: Any, request: Any) -> Any:
    """An answer as ``State.execute`` would give it: to be compared with that.

    The header of the whole says where the call has its place, and ranges of the past are judged
    there; both are left out. Headers inside a transaction stay, by their revision.
    """
    if isinstance(request, TxnRequest) and isinstance(response, TxnResponse):
        return _plain_txn(response, request, None)
    copied = msgspec.structs.replace(response)
    copied.header = None
    return copied


def _plain_txn(
    response: TxnResponse, request: TxnRequest, header: ResponseHeader | None
) -> TxnResponse:
    operations = request.success if response.succeeded else request.failure
    plain = TxnResponse(header, response.succeeded, [])
    for place, done in enumerate(response.responses):
        asked = operations[place] if place < len(operations) else RequestOp()
        copied = ResponseOp()
        if done.response_txn is not None and asked.request_txn is not None:
            copied.response_txn = _plain_txn(done.response_txn, asked.request_txn, ResponseHeader())
        for name in ("response_range", "response_put", "response_delete_range"):
            inner = getattr(done, name)
            if inner is None:
                continue
            revision = inner.header.revision if inner.header is not None else 0
            past = asked.request_range is not None and asked.request_range.revision > 0
            kept = RangeResponse() if past else msgspec.structs.replace(inner)
            kept.header = ResponseHeader(revision=revision)
            setattr(copied, name, kept)
        plain.responses.append(copied)
    return plain
