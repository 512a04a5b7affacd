"""What commands mean, written for reading: plain dicts, no slices, no index.

Transactions are executed by the letter: choose by the state before, try on a copy, keep it or not.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from kvstore.commands import LeaseExpire
from kvstore.errors import ErrorKind, KvError
from kvstore.types import (
    CompactionRequest,
    CompactionResponse,
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    KeyValue,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    ResponseHeader,
    ResponseOp,
    TxnRequest,
    TxnResponse,
)
from tests.kvstore.mvcc.model import Model, answer, in_range

if TYPE_CHECKING:
    from kvstore.commands import Body
    from kvstore.types import Record


class Naive:
    def __init__(self) -> None:
        self.model = Model()
        self.leases: dict[int, int] = {}

    def run(self, body: Body, term: int = 1) -> Record | KvError | None:
        before = copy.deepcopy((self.model, self.leases))
        try:
            response = self.execute(body, term)
        except KvError as error:
            self.model, self.leases = before
            return error
        self.model.publish()
        return response

    def lease_keys(self, lease: int) -> list[bytes]:
        return sorted(key for key, record in self.model.state.items() if record.lease == lease)

    def execute(self, body: Body, term: int) -> Record | None:
        match body:
            case PutRequest():
                if body.lease and body.lease not in self.leases:
                    raise ErrorKind.LEASE_NOT_FOUND.error()
                return self.put(body)
            case DeleteRangeRequest():
                return self.delete(body)
            case TxnRequest():
                start = dict(self.model.state)
                self.check(body, start)
                return self.txn(body, start)
            case CompactionRequest():
                self.model.compact(body.revision)
                return CompactionResponse()
            case LeaseGrantRequest():
                if body.ID in self.leases:
                    raise ErrorKind.LEASE_EXIST.error()
                self.leases[body.ID] = max(body.TTL, 2)
                return LeaseGrantResponse(None, body.ID, max(body.TTL, 2))
            case LeaseRevokeRequest():
                if body.ID not in self.leases:
                    raise ErrorKind.LEASE_NOT_FOUND.error()
                self.end(body.ID)
                return LeaseRevokeResponse()
            case LeaseExpire():
                for lease in body.ids if body.term == term else []:
                    if lease in self.leases:
                        self.end(lease)
                        self.model.publish()
                return None
            case _:
                raise AssertionError(f"no plain meaning for {body}")

    def end(self, lease: int) -> None:
        for key in self.lease_keys(lease):
            self.model.delete(key)
        del self.leases[lease]

    def put(self, request: PutRequest) -> PutResponse:
        old = self.model.state.get(request.key)
        value, lease = request.value, request.lease
        if request.ignore_value or request.ignore_lease:
            if old is None:
                raise ErrorKind.KEY_NOT_FOUND.error()
            value = old.value if request.ignore_value else value
            lease = old.lease if request.ignore_lease else lease
        self.model.put(request.key, value, lease)
        return PutResponse(None, old if request.prev_kv else None)

    def delete(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        state = self.model.state
        gone = [
            state[key] for key in sorted(state) if in_range(key, request.key, request.range_end)
        ]
        for record in gone:
            self.model.delete(record.key)
        return DeleteRangeResponse(None, len(gone), gone if request.prev_kv else [])

    def branch(self, request: TxnRequest, start: dict[bytes, KeyValue]) -> tuple[bool, list]:
        succeeded = all(holds(compare, start) for compare in request.compare)
        return succeeded, request.success if succeeded else request.failure

    def check(self, request: TxnRequest, start: dict[bytes, KeyValue]) -> None:
        for op in self.branch(request, start)[1]:
            if op.request_txn is not None:
                self.check(op.request_txn, start)
            elif op.request_put is not None:
                put = op.request_put
                if (put.ignore_value or put.ignore_lease) and put.key not in start:
                    raise ErrorKind.KEY_NOT_FOUND.error()
                if put.lease and put.lease not in self.leases:
                    raise ErrorKind.LEASE_NOT_FOUND.error()
            elif op.request_range is not None:
                revision = op.request_range.revision
                if revision > self.model.revision:
                    raise ErrorKind.FUTURE_REVISION.error()
                if revision and revision < self.model.compacted:
                    raise ErrorKind.COMPACTED.error()

    def txn(self, request: TxnRequest, start: dict[bytes, KeyValue]) -> TxnResponse:
        succeeded, operations = self.branch(request, start)
        response = TxnResponse(None, succeeded, [])
        for op in operations:
            done = ResponseOp()
            if op.request_txn is not None:
                done.response_txn = inner = self.txn(op.request_txn, start)
                inner.header = ResponseHeader()
            else:
                answered: Any
                if op.request_put is not None:
                    answered = done.response_put = self.put(op.request_put)
                elif op.request_delete_range is not None:
                    answered = done.response_delete_range = self.delete(op.request_delete_range)
                else:
                    answered = done.response_range = self.range(op.request_range)
                revision = self.model.revision + bool(self.model.pending)
                answered.header = ResponseHeader(revision=revision)
            response.responses.append(done)
        return response

    def range(self, request: RangeRequest | None) -> Any:
        assert request is not None
        old = request.revision > 0
        state = self.model.states[request.revision] if old else self.model.state
        found = [state[k] for k in sorted(state) if in_range(k, request.key, request.range_end)]
        return answer(found, request)


def holds(compare: Compare, state: dict[bytes, KeyValue]) -> bool:
    found = [state[k] for k in state if in_range(k, compare.key, compare.range_end)]
    if not found and compare.target == 3:
        return False
    for record in found or [KeyValue()]:
        sides: dict[int, tuple[Any, Any]] = {
            0: (record.version, compare.version or 0),
            1: (record.create_revision, compare.create_revision or 0),
            2: (record.mod_revision, compare.mod_revision or 0),
            3: (record.value, compare.value or b""),
            4: (record.lease, compare.lease or 0),
        }
        left, right = sides.get(compare.target, (0, 0))
        verdict = {0: left == right, 1: left > right, 2: left < right, 3: left != right}
        if not verdict.get(compare.result, True):
            return False
    return True
