"""Who calls, by the headers that etcd's gateway reads (``Grpc-Metadata-X`` is metadata ``x``)."""

import re
from typing import Final

from multidict import MultiMapping, istr

from kvstore.errors import Code, ErrorKind, KvError
from kvstore.service.caller import ANYBODY, Caller

_AUTHORIZATION: Final = istr("Authorization")
_METADATA_AUTHORIZATION: Final = istr("Grpc-Metadata-Authorization")
_TOKEN: Final = istr("Grpc-Metadata-Token")
_TIMEOUT: Final = istr("Grpc-Timeout")
_HAS_LEADER: Final = istr("Grpc-Metadata-Hasleader")
_API_VERSION: Final = istr("Grpc-Metadata-Client-Api-Version")
BEARER: Final = "Bearer "
"""May stand before a token."""

_TIMEOUT_TEXT: Final = re.compile(r"([-+]?[0-9]{1,18})([HMSmun])")
_UNIT_SECONDS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_QUICKEST_SECONDS: Final = 1e-4
"""No call is answered sooner: whoever gives less has had it when the call begins."""


def caller_of(headers: MultiMapping[str], waited_seconds: float = 0.0) -> Caller:
    """The caller behind a request.

    Args:
        headers: the request's.
        waited_seconds: how much of the caller's time is over.

    Raises:
        KvError: the timeout cannot be read, or the version of the client's API is not UTF-8.
    """
    version = headers.get(_API_VERSION)
    if version is not None and not is_unicode(version):
        raise ErrorKind.INVALID_CLIENT_API_VERSION.error()
    token = headers.get(_TOKEN)
    if token is None:
        token = headers.get(_AUTHORIZATION)
    if token is None:
        token = headers.get(_METADATA_AUTHORIZATION)
    timeout = headers.get(_TIMEOUT)
    has_leader = headers.get(_HAS_LEADER)
    if token is None and timeout is None and has_leader is None:
        return ANYBODY
    return Caller(
        token.removeprefix(BEARER) if token else None,
        None if timeout is None else _seconds_left(timeout, waited_seconds),
        has_leader == "true",
    )


def is_unicode(text: str) -> bool:
    """Whether a header was UTF-8: bytes that were not are lone surrogates now."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def in_time(caller: Caller) -> Caller:
    """The caller, if they still wait.

    Raises:
        KvError: DEADLINE_EXCEEDED: their time was over before anything was done.
    """
    if caller.timeout_seconds == 0.0:
        raise ErrorKind.DEADLINE_EXCEEDED.error()
    return caller


def _seconds_left(text: str, waited_seconds: float) -> float | None:
    """What a timeout leaves: 0.0 if nothing; None if it is zero itself, which is no limit."""
    match = _TIMEOUT_TEXT.fullmatch(text)
    if match is None:
        raise KvError(Code.INVALID_ARGUMENT, f"invalid grpc-timeout: {text}")
    seconds = int(match[1]) * _UNIT_SECONDS[match[2]]
    if not seconds:
        return None
    left = seconds - waited_seconds
    return left if left >= _QUICKEST_SECONDS else 0.0
