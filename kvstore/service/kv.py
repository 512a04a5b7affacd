"""The KV service: Range, Put, DeleteRange, Txn, Compact."""

from collections.abc import Callable
from functools import partial
from typing import Any

from kvstore.apply import request_cost
from kvstore.auth.check import NOBODY, Identity
from kvstore.commands import Body, Kind
from kvstore.errors import ErrorKind, KvError
from kvstore.mvcc.checks import check_delete_range, check_put, check_range, check_txn
from kvstore.mvcc.txn import is_read_only, read_txn
from kvstore.service.base import Calls
from kvstore.service.caller import Caller
from kvstore.service.limits import (
    ENVELOPE_BYTES,
    PUT_FRAMING_BYTES_MAX,
    put_bytes,
    too_large,
    txn_bytes,
)
from kvstore.types import (
    AlarmType,
    CompactionRequest,
    CompactionResponse,
    DeleteRangeRequest,
    DeleteRangeResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
)


class KvCalls(Calls):
    """Reads are linearizable unless the request says otherwise.

    Writes are on a majority's disks before they are answered.
    """

    def range(
        self,
        request: RangeRequest,
        caller: Caller,
        reply: Callable[[RangeResponse | KvError], None],
    ) -> None:
        """Read one key or a range of keys."""
        try:
            check_range(request)
        except KvError as error:
            reply(error)
            return
        if not request.serializable:
            self._read(caller, reply, lambda: self._range_here(request, caller, reply))
        elif self.machine.auth.enabled or self.node.rebuild.active:
            self._admit(request, caller, reply, lambda _: self._range_here(request, caller, reply))
        else:
            self._range_here(request, caller, reply)

    def _range_here(
        self, request: RangeRequest, caller: Caller, reply: Callable[[Any], None]
    ) -> None:
        machine = self.machine
        store = machine.store
        identity = NOBODY
        try:
            # Judged by the state that is read, not by the one that was there when it was asked.
            if machine.auth.enabled:
                identity = self._judge(request, caller)
            response = store.range_now(request)
        except KvError as error:
            reply(error)
            return
        if response is not None:
            response.header = self.header()
            reply(response)
            return

        budget = self.node.read_budget()
        work = store.range(request, budget, self._limits.response_bytes_max)
        self._run(work, budget, reply, identity)

    def put(
        self, request: PutRequest, caller: Caller, reply: Callable[[PutResponse | KvError], None]
    ) -> None:
        """Write one key."""
        try:
            check_put(request)
        except KvError as error:
            reply(error)
            return
        limit = self._limits.max_request_bytes
        # Only what comes near the limit is measured exactly.
        if len(request.key) + len(request.value) + PUT_FRAMING_BYTES_MAX > limit:
            size = put_bytes(request)
            if size + ENVELOPE_BYTES > limit:
                reply(too_large(size, limit))
                return
        if self.machine.auth.enabled:
            # Not by a closure, whose cells every put would pay for.
            self._admit(
                request, caller, reply, partial(self._write, Kind.PUT, request, caller, reply)
            )
        else:
            self._write(Kind.PUT, request, caller, reply, NOBODY)

    def delete_range(
        self,
        request: DeleteRangeRequest,
        caller: Caller,
        reply: Callable[[DeleteRangeResponse | KvError], None],
    ) -> None:
        """Delete one key or a range of keys, as one revision."""
        try:
            check_delete_range(request)
        except KvError as error:
            reply(error)
            return
        size = len(request.key) + len(request.range_end)
        if size + ENVELOPE_BYTES > self._limits.max_request_bytes:
            reply(too_large(size, self._limits.max_request_bytes))
        elif self.machine.auth.enabled:
            self._admit(
                request,
                caller,
                reply,
                lambda who: self._propose(Kind.DELETE_RANGE, request, caller, reply, identity=who),
            )
        else:
            self._propose(Kind.DELETE_RANGE, request, caller, reply)

    def txn(
        self, request: TxnRequest, caller: Caller, reply: Callable[[TxnResponse | KvError], None]
    ) -> None:
        """Compare, then do one of two lists of operations, as one revision."""
        try:
            check_txn(request, self._limits.max_txn_ops)
        except KvError as error:
            reply(error)
            return
        read_only = is_read_only(request)
        # What only reads is not replicated: the face's limit is enough for it.
        size = 0 if read_only else txn_bytes(request)
        if size + ENVELOPE_BYTES > self._limits.max_request_bytes:
            reply(too_large(size, self._limits.max_request_bytes))
        elif read_only and not _all_serializable(request):
            self._read(caller, reply, lambda: self._txn_here(request, caller, reply))
        elif self.machine.auth.enabled:
            self._admit(
                request,
                caller,
                reply,
                lambda who: self._do_txn(request, caller, reply, who, read_only=read_only),
            )
        else:
            self._do_txn(request, caller, reply, NOBODY, read_only=read_only)

    def _do_txn(
        self,
        request: TxnRequest,
        caller: Caller,
        reply: Callable[[Any], None],
        identity: Identity,
        *,
        read_only: bool,
    ) -> None:
        if read_only:
            self._txn_here(request, caller, reply)
        else:
            self._write(Kind.TXN, request, caller, reply, identity)

    def _txn_here(self, request: TxnRequest, caller: Caller, reply: Callable[[Any], None]) -> None:
        identity = NOBODY
        if self.machine.auth.enabled:
            try:
                identity = self._judge(request, caller)
            except KvError as error:
                reply(error)
                return
        budget = self.node.read_budget()
        work = read_txn(self.machine.store, request, budget, self._limits.response_bytes_max)
        self._run(work, budget, reply, identity)

    def _write(
        self,
        kind: Kind,
        request: Body,
        caller: Caller,
        reply: Callable[[Any], None],
        identity: Identity,
    ) -> None:
        """Propose what may grow the store.

        What would exceed the quota is refused, and raises the alarm that makes every member refuse.
        """
        if self.machine.would_exceed(request_cost(request)):
            self.node.upkeep.raise_alarm(AlarmType.NOSPACE)
            reply(ErrorKind.NO_SPACE.error())
        else:
            self._propose(kind, request, caller, reply, identity=identity)

    def compact(
        self,
        request: CompactionRequest,
        caller: Caller,
        reply: Callable[[CompactionResponse | KvError], None],
    ) -> None:
        """Forget history below a revision; ``physical`` waits until the memory is free."""
        answer = self._when_swept(reply) if request.physical else reply
        self._admit(
            request,
            caller,
            reply,
            lambda who: self._propose(Kind.COMPACT, request, caller, answer, identity=who),
        )

    def _when_swept(self, reply: Callable[[Any], None]) -> Callable[[Any], None]:
        def compacted(result: CompactionResponse | KvError) -> None:
            if isinstance(result, KvError):
                reply(result)
            else:
                self.node.upkeep.when_swept(lambda: reply(result))

        return compacted


def _all_serializable(request: TxnRequest) -> bool:
    """Whether no operation asks for what is current.

    A transaction without operations still compares, and so does.
    """
    ops = (*request.success, *request.failure)
    return bool(ops) and all(
        op.request_range is not None and op.request_range.serializable for op in ops
    )
