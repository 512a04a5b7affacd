"""A range in pieces: RangeStream of the KV service."""

from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from kvstore.auth.check import NOBODY, Identity
from kvstore.errors import Code, ErrorKind, KvError
from kvstore.mvcc.checks import check_range
from kvstore.server.pacing import in_turns
from kvstore.service.base import Calls
from kvstore.service.caller import Caller
from kvstore.service.presence import ask
from kvstore.types import (
    KeyValue,
    RangeRequest,
    RangeResponse,
    RangeStreamResponse,
    SortOrder,
    SortTarget,
)

if TYPE_CHECKING:
    from kvstore.budget import Budget

FIRST_PIECE_RECORDS: Final = 10
"""The first piece is small, so that whoever asked sees soon that something comes."""

PIECE_RECORDS_MAX: Final = 10_000


class RangeStreamCalls(Calls):
    """All pieces are as of one revision, and none is held here once it is sent.

    History is not held back for a client that takes its time: if the revision is compacted before
    the last piece, the stream ends with that error, as a range from then on would.
    """

    async def range_stream(
        self, request: RangeRequest, caller: Caller
    ) -> AsyncGenerator[RangeStreamResponse, None]:
        """The records of a range in key order, in pieces of about the largest request's size.

        Only the last piece has a header, whether there is more, and the count. Its header's
        revision is the store's as of the start.

        Raises:
            KvError: it cannot be asked for (UNIMPLEMENTED for orders and revision filters), or
                breaks off.
        """
        _check(request)
        await ask(self._when_current, request, caller)
        identity = self._reader(request, caller)
        store = self.machine.store
        header = self.header()
        asked = replace(
            request,
            revision=store.readable(request.revision),
            # Also a single key is a range from now on, for its beginning moves.
            range_end=request.range_end or request.key + b"\0",
        )
        budget = self.node.read_budget()
        left = request.limit if request.limit > 0 and not request.count_only else None
        passed = count = 0
        records = FIRST_PIECE_RECORDS
        kvs: list[KeyValue] = []
        behind: bytes | None = request.key
        while behind is not None and left != 0 and not request.count_only:
            if passed:
                yield RangeStreamResponse(RangeResponse(kvs=kvs))
                self._check_going_on(identity)
            wanted = records if left is None else min(records, left)
            kvs, behind = await self._piece(asked, wanted, budget)
            records = PIECE_RECORDS_MAX
            passed += 1
            count += len(kvs)
            if left is not None:
                left -= len(kvs)
            if behind is not None:
                asked = _behind(asked, behind)
        uncounted = 0
        if behind is not None:
            uncounted = await self._count(asked, budget)
        self._check_going_on(identity)
        last = RangeResponse(header, kvs, bool(uncounted) and left == 0, count + uncounted)
        yield RangeStreamResponse(last)

    def _when_current(
        self, request: RangeRequest, caller: Caller, reply: Callable[[KvError | None], None]
    ) -> None:
        """Reply with nothing once what is here is good enough to answer with."""
        if request.serializable:
            self._admit(request, caller, reply, lambda _: reply(None))
        else:
            self._read(caller, reply, lambda: reply(None))

    def _reader(self, request: RangeRequest, caller: Caller) -> Identity:
        """Who reads, judged by the state that is read."""
        return self._judge(request, caller) if self.machine.auth.enabled else NOBODY

    def _check_going_on(self, identity: Identity) -> None:
        """Whether the stream may go on after a while.

        Raises:
            KvError: this member rebuilds its state, or users have changed.
        """
        if self.node.rebuild.active:
            raise ErrorKind.REBUILDING.error()
        refusal = self._still(identity)
        if refusal is not None:
            raise refusal

    async def _piece(
        self, request: RangeRequest, records_max: int, budget: "Budget"
    ) -> tuple[list[KeyValue], bytes | None]:
        bytes_max = self._limits.max_request_bytes
        work = self.machine.store.piece(request, budget, records_max, bytes_max)
        return await in_turns(self.node.rota, work, budget)

    async def _count(self, request: RangeRequest, budget: "Budget") -> int:
        """How many keys there are in the rest of a range."""
        rest = replace(request, count_only=True, limit=0)
        store = self.machine.store
        work = store.range(rest, budget, self._limits.response_bytes_max)
        return (await in_turns(self.node.rota, work, budget)).count


def _check(request: RangeRequest) -> None:
    check_range(request)
    by_key = request.sort_order in (SortOrder.NONE, SortOrder.ASCEND)
    if not by_key or request.sort_target != SortTarget.KEY:
        raise KvError(Code.UNIMPLEMENTED, "RangeStream does not support custom sort orders")
    if (
        request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    ):
        raise KvError(Code.UNIMPLEMENTED, "RangeStream does not support revision filters")


def _behind(request: RangeRequest, key: bytes) -> RangeRequest:
    """The rest of a range behind a key; the next key that there can be is longer by a zero."""
    return replace(request, key=key + b"\0")
