"""What all groups of calls share: a message goes out as JSON, and its answer comes back typed."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from kvstore.client import json_codec
from kvstore.client.transport import Endpoint, Transport, error_for
from kvstore.errors import Code, KvError
from kvstore.types import OPEN_END, Record

R = TypeVar("R", bound=Record)


def prefix_end(prefix: bytes) -> bytes:
    """The ``range_end`` of all keys that begin with ``prefix`` (of all keys, if it is empty)."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else OPEN_END


class Calls:
    """Base of the groups of calls."""

    __slots__ = ("transport",)

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def _read(
        self, path: str, request: Record, answer: type[R], *, only: Endpoint | None = None
    ) -> R:
        body = self.transport.call(path, json_codec.encode(request), safe=True, only=only)
        return json_codec.decode(answer, body)

    def _write(
        self, path: str, request: Record, answer: type[R], *, only: Endpoint | None = None
    ) -> R:
        body = self.transport.call(path, json_codec.encode(request), safe=False, only=only)
        return json_codec.decode(answer, body)


def stream_line(line: bytes) -> Any:
    """The result in one line of a stream.

    Raises:
        KvError: The line is an error, or nothing of ours.
    """
    try:
        content = msgspec.json.decode(line)
        if "error" in content:
            error = content["error"]
            code = Code(int(error.get("code", error.get("grpc_code", Code.UNKNOWN))))
            raise error_for(code, str(error.get("message", "")), safe=True)
        return content["result"]
    except (msgspec.DecodeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise KvError(Code.INTERNAL, f"the answer is no stream: {error}") from error
