"""What the headers of a request mean to gRPC: which call, by whom, until when; or what is wrong."""

import re
from typing import Final

import msgspec

from kvstore.api.caller_headers import BEARER, is_unicode
from kvstore.api.grpc.answers import ACCEPTED_ENCODINGS
from kvstore.api.grpc.calls import Call, Calls
from kvstore.api.grpc.header_blocks import Field
from kvstore.errors import Code, ErrorKind, KvError
from kvstore.service.caller import ANYBODY, Caller

_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_SECONDS: Final = {
    b"H": 3600.0,
    b"M": 60.0,
    b"S": 1.0,
    b"m": 1e-3,
    b"u": 1e-6,
    b"n": 1e-9,
}
_CONTENT_TYPE: Final = re.compile(rb"application/grpc(?:[+;].*)?")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_QUICKEST_SECONDS: Final = 1e-4
"""No call is answered sooner: whoever gives less has had it when the call begins."""


class Refusal:
    """An answer that needs no message.

    Args:
        error: what to say.
        status: the HTTP status.
        more: further fields of the answer, encoded.
    """

    __slots__ = ("error", "more", "status")

    def __init__(self, error: KvError, status: int = 200, more: bytes = b"") -> None:
        self.error = error
        self.status = status
        self.more = more


class Head:
    """The head of a call. ``call`` is None where there is a ``refusal``."""

    __slots__ = ("call", "caller", "content_length", "is_gzip", "refusal", "seconds")

    def __init__(self) -> None:
        self.call: Call | None = None
        self.refusal: Refusal | None = None
        self.caller: Caller = ANYBODY
        self.seconds: float | None = None
        """How long the caller waits."""
        self.is_gzip = False
        self.content_length: int | None = None

    def caller_after(self, waited_seconds: float) -> Caller:
        """The caller, some of whose time is over; 0.0: all of it."""
        seconds = self.seconds
        if seconds is None:
            return self.caller
        left = seconds - waited_seconds
        caller = self.caller
        left = left if left >= _QUICKEST_SECONDS else 0.0
        return Caller(caller.token, left, caller.has_leader, caller.common_name)


class Heads:
    """Reads the heads of calls.

    Args:
        calls: those there are, by path.
    """

    __slots__ = ("_calls", "_services")

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._services = {path[1:].rpartition("/")[0] for path in calls}

    def read(self, fields: list[Field], common_name: str | None = None) -> Head:
        """What a request's headers mean; where one is there twice, the first counts.

        Args:
            fields: the headers.
            common_name: that of the client's certificate.
        """
        found: dict[bytes, bytes] = {}
        for name, value in fields:
            found.setdefault(name, value)
        head = Head()
        head.refusal = self._fill(head, found)
        if common_name is not None:
            head.caller = msgspec.structs.replace(head.caller, common_name=common_name)
        return head

    def _fill(self, head: Head, found: dict[bytes, bytes]) -> Refusal | None:
        length = found.get(b"content-length")
        if length is not None and _LENGTH.fullmatch(length) is not None:
            head.content_length = int(length)
        method = found[b":method"]
        if method != b"POST":
            words = f"a call is a POST, not a {_text(method)}"
            return Refusal(KvError(Code.INTERNAL, words), 405)
        content_type = found.get(b"content-type", b"")
        if _CONTENT_TYPE.fullmatch(content_type) is None:
            words = f'invalid gRPC request content-type "{_text(content_type)}"'
            return Refusal(KvError(Code.INVALID_ARGUMENT, words), 415)
        timeout = found.get(b"grpc-timeout")
        if timeout is not None:
            match = _TIMEOUT.fullmatch(timeout)
            if match is None:
                words = f'malformed grpc-timeout: "{_text(timeout)}"'
                return Refusal(KvError(Code.INTERNAL, words), 400)
            head.seconds = int(match[1]) * _UNIT_SECONDS[match[2]]
        encoding = found.get(b"grpc-encoding", b"identity")
        head.is_gzip = encoding == b"gzip"
        path = _text(found[b":path"])
        head.call = self._calls.get(path)
        if head.call is None:
            return Refusal(KvError(Code.UNIMPLEMENTED, self._unknown(path)))
        if not head.is_gzip and encoding != b"identity":
            words = f'grpc: Decompressor is not installed for grpc-encoding "{_text(encoding)}"'
            return Refusal(KvError(Code.UNIMPLEMENTED, words), 200, ACCEPTED_ENCODINGS)
        version = found.get(b"client-api-version")
        if version is not None and not is_unicode(_text(version)):
            return Refusal(ErrorKind.INVALID_CLIENT_API_VERSION.error())
        token = found.get(b"token", found.get(b"authorization"))
        has_leader = found.get(b"hasleader") == b"true"
        if token or has_leader or head.seconds is not None:
            text = _text(token).removeprefix(BEARER) if token else None
            head.caller = Caller(text, head.seconds, has_leader)
        return None

    def _unknown(self, path: str) -> str:
        service, slash, name = path.removeprefix("/").rpartition("/")
        if not slash:
            return f'malformed method name: "{path}"'
        if service in self._services:
            return f"unknown method {name} for service {service}"
        return f"unknown service {service}"


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
