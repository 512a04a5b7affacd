"""Is this the head of a call that the lean lane can answer, and which call is it?

httptools parses each head once. What it said is remembered by the head's very bytes, since a client
sends the same ones again and again: the same bytes can mean nothing else the second time.

A head is lean if all of it is known to be harmless here: the path of a call with one answer, a
length, and headers from a list. Whatever else there is (another path, a chunked body, Expect,
Upgrade, a deadline, a header twice, a line that does not end in CRLF) may mean something, so that
its connection goes to whoever knows all of HTTP/1.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import httptools
from multidict import CIMultiDict

from kvstore.api.answer import Answer, Outcome, Reply
from kvstore.api.caller_headers import caller_of
from kvstore.service.caller import Caller

BODY_BYTES_MAX: Final = 256 * 1024
"""A longer body is read by whoever has deadlines and room for long ones."""
HEAD_BYTES_MAX: Final = 8 * 1024
"""A longer head is not looked at: nobody needs one for these calls."""

_REMEMBERED_BYTES_MAX: Final = 1024
_REMEMBERED_HEADS_MAX: Final = 1024
"""All are forgotten when there are so many: who sends new ones each time gains nothing."""

_LENGTH: Final = re.compile(r"0|[1-9][0-9]{0,8}")

_HARMLESS: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "accept-language",
        "authorization",
        "cache-control",
        "connection",
        "content-length",
        "content-type",
        "dnt",
        "forwarded",
        "grpc-metadata-authorization",
        "grpc-metadata-token",
        "host",
        "origin",
        "pragma",
        "referer",
        "traceparent",
        "tracestate",
        "user-agent",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
        "x-request-id",
    }
)
"""Headers that say who calls, or nothing that changes an answer of these calls."""


class LeanCall(Protocol):
    """A call with one answer, which is not long in coming."""

    def begin(self, body: bytes, caller: Caller, reply: Reply) -> bool:
        """Begin it; False, and nothing is begun, if this body needs more than one answer."""

    def finish(self, outcome: Outcome) -> Answer:
        """The answer to what the reply was given."""


class LeanHead:
    """What a lean head says.

    Args:
        call: what is called.
        body_bytes: how long the body is.
        caller: who calls.
    """

    __slots__ = ("body_bytes", "call", "caller")

    def __init__(self, call: LeanCall, body_bytes: int, caller: Caller) -> None:
        self.call = call
        self.body_bytes = body_bytes
        self.caller = caller


class Heads:
    """Reads heads, and remembers them.

    Args:
        calls: the calls by their paths.
    """

    __slots__ = ("_calls", "_remembered", "known")

    def __init__(self, calls: Mapping[str, LeanCall]) -> None:
        self._calls = {path.encode(): call for path, call in calls.items()}
        self._remembered: dict[bytes, LeanHead] = {}
        self.known: Callable[[bytes], LeanHead | None] = self._remembered.get
        """What a head says, if it was read before."""

    def read(self, head: bytes) -> LeanHead | None:
        """What a head says; None if it is not lean.

        Args:
            head: from its first byte to the empty line, which is the first one there is.
        """
        found = self._parse(head)
        if found is not None and len(head) <= _REMEMBERED_BYTES_MAX:
            if len(self._remembered) >= _REMEMBERED_HEADS_MAX:
                self._remembered.clear()
            self._remembered[head] = found
        return found

    def _parse(self, head: bytes) -> LeanHead | None:
        if len(head) > HEAD_BYTES_MAX or not _has_plain_lines(head):
            return None
        parsed = _Parsed()
        parser = httptools.HttpRequestParser(parsed)
        try:
            parser.feed_data(head)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            # Whoever gets it next knows what is wrong with it, or how to speak otherwise.
            return None
        call = self._calls.get(parsed.url)
        if (
            call is None
            or not parsed.is_complete
            or parser.get_method() != b"POST"
            or parser.get_http_version() != "1.1"
            or not parser.should_keep_alive()
        ):
            return None
        return _lean(call, parsed.headers)


def _lean(call: LeanCall, headers: CIMultiDict[str]) -> LeanHead | None:
    length = headers.get("content-length", "")
    if (
        len(headers) != len(set(headers))
        or not _HARMLESS.issuperset(headers)
        or headers.get("connection", "keep-alive").lower() != "keep-alive"
        or not _LENGTH.fullmatch(length)
        or int(length) > BODY_BYTES_MAX
    ):
        return None
    return LeanHead(call, int(length), caller_of(headers))


def _has_plain_lines(head: bytes) -> bool:
    """Whether its lines end in CRLF, none is folded, and all is ASCII.

    Only then is the first empty line its end for every parser.
    """
    ends = head.count(b"\r\n")
    return (
        ends == head.count(b"\r") == head.count(b"\n")
        and not head.startswith(b"\r")
        and b"\n " not in head
        and b"\n\t" not in head
        and head.isascii()
    )


class _Parsed:
    """What httptools calls back with."""

    __slots__ = ("headers", "is_complete", "url")

    def __init__(self) -> None:
        self.url = b""
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.is_complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.add(name.decode("ascii").lower(), value.decode("ascii"))

    def on_headers_complete(self) -> None:
        self.is_complete = True
