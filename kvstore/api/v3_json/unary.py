"""The unary calls: which path is which message and which method of the service."""

from collections.abc import Callable
from functools import partial
from typing import Any

from kvstore.api.answer import Answer, Leave, Outcome, Pending, Reply, error_answer
from kvstore.api.backend import Service
from kvstore.api.caller_headers import in_time
from kvstore.api.v3_json.decode import VALUES_MAX, decode
from kvstore.api.v3_json.encode import encode, encode_slices, is_big
from kvstore.api.v3_json.fast import decode_delete_range, decode_put, decode_range, decode_txn
from kvstore.api.v3_json.prepared import Prepared
from kvstore.api.v3_json.table import PREFIXES, UNARY, Shape
from kvstore.errors import KvError
from kvstore.service.caller import Caller

_Decode = Callable[[bytes], Any]
_Encode = Callable[[Any], bytes]


class UnaryCall:
    """One path.

    Args:
        method: the service's.
        decoder: reads a body.
        encoder: writes a response.
        is_patient: whether the answer may be long in coming.
    """

    __slots__ = ("_decode", "_encode", "_method", "is_patient")

    def __init__(
        self,
        method: Callable[..., Leave | None],
        decoder: _Decode,
        encoder: _Encode,
        *,
        is_patient: bool = False,
    ) -> None:
        self.is_patient = is_patient
        self._method = method
        self._decode = decoder
        self._encode = encoder

    def begin(self, body: bytes, caller: Caller, reply: Reply) -> bool:
        """Ask the service what a body asks for, for a caller without a deadline."""
        try:
            request = self._decode(body)
        except KvError as error:
            reply(error)
        else:
            self._method(request, caller, reply)
        return True

    def pending(self, body: bytes, caller: Caller) -> Pending:
        """The call that a body asks for.

        Raises:
            Malformed: the body is not this call's request.
            KvError: the caller's time is over.
        """
        request = self._decode(body)
        return Pending(partial(self._method, request, in_time(caller)), self.finish)

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
        "/kv/txn": UnaryCall(service.txn, partial(decode_txn, values_max=values_max), prepared.txn),
    }
    for row in UNARY:
        if row.path not in calls:
            decoder = partial(decode, row.request, values_max=values_max)
            calls[row.path] = UnaryCall(
                getattr(service, row.method),
                decoder,
                encode,
                is_patient=row.shape is Shape.PATIENT,
            )
    return {prefix + path: call for prefix in PREFIXES for path, call in calls.items()}
