"""The one table from errors to what a caller sees of them.

A unary error's body carries the union of the keys that old and new clients read: ``error`` and
``message`` (up to etcd 3.5), ``code`` and ``message`` (from 3.6 on). The last line of a stream
carries both forms as well: ``grpc_code``, ``http_code``, ``http_status`` (up to 3.5), ``code``.
"""

import re
from http import HTTPStatus
from typing import Final

import msgspec

from kvstore.errors import Code, KvError

HTTP_STATUS: Final[dict[Code, int]] = {
    Code.OK: 200,
    Code.CANCELED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}
"""google.rpc.Code's canonical mapping, as grpc-gateway applies it; 499 has no name in RFC 9110."""

_REASONS: Final = {499: "Client Closed Request"}

_LINE_BREAKS: Final = re.compile(r"[\x00-\x1f\x7f]+")


def http_status(code: Code) -> int:
    """The HTTP status that a gRPC code is answered with."""
    return HTTP_STATUS[code]


def reason(status: int) -> str:
    """The words behind a status, for the status line and for ``http_status`` in stream errors."""
    return _REASONS.get(status) or HTTPStatus(status).phrase


def error_body(code: Code, message: str) -> bytes:
    """The body of a unary error, readable by clients of every version."""
    return msgspec.json.encode({"error": message, "message": message, "code": int(code)})


def stream_error_line(error: KvError) -> bytes:
    """The line that ends a stream, readable by clients of every version."""
    status = http_status(error.code)
    fields = {
        "grpc_code": int(error.code),
        "http_code": status,
        "message": error.message,
        "http_status": reason(status),
        "code": int(error.code),
    }
    return msgspec.json.encode({"error": fields}) + b"\n"


def header_text(message: str) -> str:
    """An error's words as a header value: no control character may end the header early."""
    return _LINE_BREAKS.sub(" ", message)
