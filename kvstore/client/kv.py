"""KV and Watch: read, write, delete, transactions, compaction; and what changes."""

from __future__ import annotations

from collections.abc import Sequence

from kvstore.client.calls import Calls
from kvstore.client.watch import IDLE_SECONDS, Watch
from kvstore.types import (
    CompactionRequest,
    CompactionResponse,
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    FilterType,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    SortOrder,
    SortTarget,
    TxnRequest,
    TxnResponse,
    WatchCreateRequest,
)


class KvCalls(Calls):
    """Keys and their values."""

    __slots__ = ()

    def get(
        self,
        key: bytes,
        range_end: bytes = b"",
        *,
        limit: int = 0,
        revision: int = 0,
        sort_order: SortOrder = SortOrder.NONE,
        sort_target: SortTarget = SortTarget.KEY,
        serializable: bool = False,
        keys_only: bool = False,
        count_only: bool = False,
    ) -> RangeResponse:
        """Read one key, or a range."""
        request = RangeRequest(
            key=key,
            range_end=range_end,
            limit=limit,
            revision=revision,
            sort_order=sort_order,
            sort_target=sort_target,
            serializable=serializable,
            keys_only=keys_only,
            count_only=count_only,
        )
        return self._read("/v3/kv/range", request, RangeResponse)

    def put(
        self,
        key: bytes,
        value: bytes,
        *,
        lease: int = 0,
        prev_kv: bool = False,
        ignore_value: bool = False,
        ignore_lease: bool = False,
    ) -> PutResponse:
        """Write one key."""
        request = PutRequest(
            key=key,
            value=value,
            lease=lease,
            prev_kv=prev_kv,
            ignore_value=ignore_value,
            ignore_lease=ignore_lease,
        )
        return self._write("/v3/kv/put", request, PutResponse)

    def delete(
        self, key: bytes, range_end: bytes = b"", *, prev_kv: bool = False
    ) -> DeleteRangeResponse:
        """Delete one key, or a range."""
        request = DeleteRangeRequest(key=key, range_end=range_end, prev_kv=prev_kv)
        return self._write("/v3/kv/deleterange", request, DeleteRangeResponse)

    def txn(
        self,
        compare: list[Compare],
        success: list[RequestOp],
        failure: list[RequestOp] | None = None,
    ) -> TxnResponse:
        """If all of ``compare`` hold do ``success``, else ``failure``."""
        request = TxnRequest(compare=compare, success=success, failure=failure or [])
        return self._write("/v3/kv/txn", request, TxnResponse)

    def compact(self, revision: int, *, physical: bool = False) -> CompactionResponse:
        """Forget history below a revision."""
        request = CompactionRequest(revision=revision, physical=physical)
        return self._write("/v3/kv/compaction", request, CompactionResponse)

    def watch(
        self,
        key: bytes,
        range_end: bytes = b"",
        *,
        start_revision: int = 0,
        prev_kv: bool = False,
        progress_notify: bool = False,
        filters: Sequence[FilterType] = (),
        idle_seconds: float = IDLE_SECONDS,
    ) -> Watch:
        """Watch one key, or a range. On return the watcher exists: what is written now is seen."""
        request = WatchCreateRequest(
            key=key,
            range_end=range_end,
            start_revision=start_revision,
            progress_notify=progress_notify,
            prev_kv=prev_kv,
            filters=list(filters),
        )
        return Watch(self.transport, request, idle_seconds=idle_seconds)
