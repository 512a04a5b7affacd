"""One method a call, typed by ``kvstore.types``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import msgspec

from kvstore.client import json_codec
from kvstore.client.transport import Endpoint, Transport, error_for
from kvstore.client.watch import IDLE_SECONDS, Watch
from kvstore.errors import Code, ErrorKind, KvError
from kvstore.types import (
    OPEN_END,
    AlarmAction,
    AlarmMember,
    AlarmRequest,
    AlarmResponse,
    AlarmType,
    CompactionRequest,
    CompactionResponse,
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    FilterType,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    MemberListRequest,
    MemberListResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    Record,
    RequestOp,
    SortOrder,
    SortTarget,
    StatusRequest,
    StatusResponse,
    TxnRequest,
    TxnResponse,
    WatchCreateRequest,
)

if TYPE_CHECKING:
    from types import TracebackType

TIMEOUT_SECONDS: Final = 10.0
"""Longer than a server takes to give up (5 s and two election timeouts), so that it can say why."""

R = TypeVar("R", bound=Record)


def prefix_end(prefix: bytes) -> bytes:
    """The ``range_end`` of all keys that begin with ``prefix`` (of all keys, if it is empty)."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else OPEN_END


class Client:
    """Calls the cluster over its endpoints; the first that works is kept. Not for several threads.

    Args:
        endpoints: URLs of members, ``http://host:port``.
        timeout: Seconds that one call may take in all, fail-over included.

    Every method raises ``KvError`` for an answer that is an error, ``UnreachableError`` if no
    endpoint took the call, and, if it writes, ``UnknownOutcomeError`` if nobody knows whether it
    happened. Reads are tried again on their own; writes only where nothing can have happened.
    """

    __slots__ = ("transport",)

    def __init__(self, endpoints: Sequence[str], timeout: float = TIMEOUT_SECONDS) -> None:
        self.transport = Transport(endpoints, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self.transport.close()

    # --- KV ---

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

    # --- Watch ---

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

    # --- Leases ---

    def lease_grant(self, ttl: int, lease_id: int = 0) -> LeaseGrantResponse:
        """Grant a lease of ``ttl`` seconds; ``lease_id`` 0 lets the server choose."""
        request = LeaseGrantRequest(TTL=ttl, ID=lease_id)
        return self._write("/v3/lease/grant", request, LeaseGrantResponse)

    def lease_revoke(self, lease_id: int) -> LeaseRevokeResponse:
        """End a lease and delete its keys."""
        return self._write("/v3/lease/revoke", LeaseRevokeRequest(ID=lease_id), LeaseRevokeResponse)

    def lease_keep_alive(self, lease_id: int) -> LeaseKeepAliveResponse:
        """Start a lease's time anew, once.

        Raises:
            KvError: LEASE_NOT_FOUND; it has run out, or never was.
        """
        body = json_codec.encode(LeaseKeepAliveRequest(ID=lease_id))
        answer = self.transport.call("/v3/lease/keepalive", body, safe=True)
        content = _stream_line(answer)
        try:
            response = json_codec.from_object(LeaseKeepAliveResponse, content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise KvError(Code.INTERNAL, f"the answer is no keep-alive: {error}") from error
        if response.TTL <= 0:
            raise ErrorKind.LEASE_NOT_FOUND.error()
        return response

    def lease_time_to_live(self, lease_id: int, *, keys: bool = False) -> LeaseTimeToLiveResponse:
        """Ask after a lease; ``TTL`` -1: there is none."""
        request = LeaseTimeToLiveRequest(ID=lease_id, keys=keys)
        return self._read("/v3/lease/timetolive", request, LeaseTimeToLiveResponse)

    def lease_list(self) -> LeaseLeasesResponse:
        """All leases, the soonest to run out first."""
        return self._read("/v3/lease/leases", LeaseLeasesRequest(), LeaseLeasesResponse)

    # --- Cluster ---

    def member_list(self, *, linearizable: bool = False) -> MemberListResponse:
        """All members."""
        request = MemberListRequest(linearizable=linearizable)
        return self._read("/v3/cluster/member/list", request, MemberListResponse)

    def status(self, endpoint: Endpoint | None = None) -> StatusResponse:
        """How a member is: the given one (of ``client.transport.endpoints``), or any."""
        return self._read("/v3/maintenance/status", StatusRequest(), StatusResponse, only=endpoint)

    def alarm_list(self) -> AlarmResponse:
        """All alarms that are raised."""
        request = AlarmRequest(action=AlarmAction.GET, alarm=AlarmType.NONE)
        return self._read("/v3/maintenance/alarm", request, AlarmResponse)

    def alarm_disarm(self, raised: AlarmMember) -> AlarmResponse:
        """Clear one alarm, as ``alarm_list`` shows it."""
        request = AlarmRequest(AlarmAction.DEACTIVATE, raised.memberID, raised.alarm)
        return self._write("/v3/maintenance/alarm", request, AlarmResponse)

    # --- Both ways ---

    def _read(
        self, path: str, request: Record, answer: type[R], *, only: Endpoint | None = None
    ) -> R:
        body = self.transport.call(path, json_codec.encode(request), safe=True, only=only)
        return json_codec.decode(answer, body)

    def _write(self, path: str, request: Record, answer: type[R]) -> R:
        body = self.transport.call(path, json_codec.encode(request), safe=False)
        return json_codec.decode(answer, body)


def _stream_line(answer: bytes) -> Any:
    """The result in the first line of a stream.

    Raises:
        KvError: The line is an error, or nothing of ours.
    """
    try:
        content = msgspec.json.decode(answer.split(b"\n", 1)[0])
        if "error" in content:
            error = content["error"]
            code = Code(int(error.get("code", error.get("grpc_code", Code.UNKNOWN))))
            raise error_for(code, str(error.get("message", "")), safe=True)
        return content["result"]
    except (msgspec.DecodeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise KvError(Code.INTERNAL, f"the answer is no stream: {error}") from error
