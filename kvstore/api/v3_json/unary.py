"""The unary calls: which path is which message and which method of the service."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from kvstore.api.answer import Answer, Outcome, Pending, error_answer
from kvstore.api.backend import Service
from kvstore.api.v3_json.decode import VALUES_MAX, decode
from kvstore.api.v3_json.encode import encode, encode_slices, is_big
from kvstore.api.v3_json.fast import decode_delete_range, decode_put, decode_range, decode_txn
from kvstore.api.v3_json.prepared import Prepared
from kvstore.errors import KvError
from kvstore.service.caller import Caller
from kvstore.types import (
    AlarmRequest,
    CompactionRequest,
    LeaseGrantRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    MemberListRequest,
    Record,
    StatusRequest,
)

PREFIXES: Final = ("/v3", "/v3beta")
"""The second is an old name of the first, still served."""

_Decode = Callable[[bytes], Any]
_Encode = Callable[[Any], bytes]

_ORDINARY: Final[tuple[tuple[str, type[Record], str], ...]] = (
    ("/kv/compaction", CompactionRequest, "compact"),
    ("/lease/grant", LeaseGrantRequest, "lease_grant"),
    ("/lease/revoke", LeaseRevokeRequest, "lease_revoke"),
    ("/kv/lease/revoke", LeaseRevokeRequest, "lease_revoke"),
    ("/lease/timetolive", LeaseTimeToLiveRequest, "lease_time_to_live"),
    ("/kv/lease/timetolive", LeaseTimeToLiveRequest, "lease_time_to_live"),
    ("/lease/leases", LeaseLeasesRequest, "lease_leases"),
    ("/kv/lease/leases", LeaseLeasesRequest, "lease_leases"),
    ("/cluster/member/list", MemberListRequest, "member_list"),
    ("/maintenance/status", StatusRequest, "status"),
    ("/maintenance/alarm", AlarmRequest, "alarm"),
)
"""Path below the prefix, request, and the service's method."""


class UnaryCall:
    """One path."""

    __slots__ = ("_decode", "_encode", "_method")

    def __init__(self, method: Callable[..., None], decoder: _Decode, encoder: _Encode) -> None:
        self._method = method
        self._decode = decoder
        self._encode = encoder

    def pending(self, body: bytes, caller: Caller) -> Pending:
        """The call that a body asks for.

        Raises:
            Malformed: the body is not this call's request.
        """
        return Pending(partial(self._method, self._decode(body), caller), self.finish)

    def finish(self, outcome: Outcome) -> Answer:
        """The answer to whatever the service replied; long ones are encoded while they are sent."""
        if isinstance(outcome, KvError):
            return error_answer(outcome)
        if is_big(outcome):
            return Answer(b"", encode_slices(outcome))
        return Answer(self._encode(outcome))


def unary_calls(service: Service, values_max: int = VALUES_MAX) -> dict[str, UnaryCall]:
    """All unary paths. ``values_max`` bounds the JSON values of a request."""
    prepared = Prepared(service.cluster_id, service.member_id)
    calls = {
        "/kv/range": UnaryCall(service.range, decode_range, prepared.range),
        "/kv/put": UnaryCall(service.put, decode_put, prepared.put),
        "/kv/deleterange": UnaryCall(
            service.delete_range, decode_delete_range, prepared.delete_range
        ),
        "/kv/txn": UnaryCall(service.txn, partial(decode_txn, values_max=values_max), encode),
    }
    for path, message, method in _ORDINARY:
        decoder = partial(decode, message, values_max=values_max)
        calls[path] = UnaryCall(getattr(service, method), decoder, encode)
    return {prefix + path: call for prefix in PREFIXES for path, call in calls.items()}
