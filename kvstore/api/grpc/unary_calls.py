"""The calls with one request and one answer: which bytes are which message and which method."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias

from kvstore.api.answer import Leave, Outcome, Reply
from kvstore.api.backend import Service
from kvstore.api.grpc.calls import Unary
from kvstore.api.grpc.decode import decode
from kvstore.api.grpc.encode import encode, encode_sliced, is_big
from kvstore.api.grpc.fast import decode_delete_range, decode_put, decode_range
from kvstore.api.grpc.long_answers import Long
from kvstore.api.grpc.prepared import Prepared
from kvstore.api.grpc.table import RPCS
from kvstore.api.v3_json.table import Shape
from kvstore.budget import Budget
from kvstore.errors import ErrorKind, KvError
from kvstore.service.caller import Caller
from kvstore.types import TxnRequest

_Method: TypeAlias = Callable[[Any, Caller, Reply], Leave | None]

_LONG: Final = frozenset({"range", "delete_range", "txn", "lease_time_to_live", "lease_leases"})
"""Methods whose answers may be long."""


class UnaryCall:
    """One call.

    The reply gets a long answer as ``Long``: whoever carries it knows when its bytes can leave.

    Args:
        method: the service's.
        decoder: reads a message.
        new_budget: makes the budget of a slice of work; None: its answers are short.
    """

    __slots__ = ("_decode", "_method", "_new_budget")

    def __init__(
        self,
        method: _Method,
        decoder: Callable[[bytes], Any],
        new_budget: Callable[[], Budget] | None,
    ) -> None:
        self._method = method
        self._decode = decoder
        self._new_budget = new_budget

    def begin(self, data: bytes, caller: Caller, reply: Reply) -> Leave | None:
        """Ask the service what a message asks for."""
        try:
            request = self._decode(data)
        except KvError as error:
            reply(error)
            return None
        if caller.timeout_seconds == 0.0:
            reply(ErrorKind.DEADLINE_EXCEEDED.error())
            return None
        if self._new_budget is not None:
            reply = partial(self._answer, reply, self._new_budget)
        return self._method(request, caller, reply)

    def _answer(self, reply: Reply, new_budget: Callable[[], Budget], outcome: Outcome) -> None:
        if isinstance(outcome, KvError) or not is_big(outcome):
            reply(outcome)
            return
        budget = new_budget()
        reply(Long(encode_sliced(outcome, budget), budget))


def unary_calls(
    service: Service, prepared: Prepared, new_budget: Callable[[], Budget], fields_max: int
) -> dict[str, Unary]:
    """All calls with one answer, by path; a transaction may have so many fields."""
    decoders: dict[str, Callable[[bytes], Any]] = {
        "put": decode_put,
        "range": decode_range,
        "delete_range": decode_delete_range,
        "txn": partial(decode, TxnRequest, fields_max=fields_max),
    }
    encoders: dict[str, Callable[[Any], bytes]] = {
        "put": prepared.put,
        "range": prepared.range,
        "delete_range": prepared.delete_range,
        "txn": prepared.txn,
    }
    calls: dict[str, Unary] = {}
    for path, row in RPCS.items():
        if row.shape in (Shape.UNARY, Shape.PATIENT):
            call = UnaryCall(
                getattr(service, row.method),
                decoders.get(row.method) or partial(decode, row.request),
                new_budget if row.method in _LONG else None,
            )
            calls[path] = Unary(
                call.begin, encoders.get(row.method, encode), row.shape is Shape.PATIENT
            )
    return calls
