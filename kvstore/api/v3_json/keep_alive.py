"""The stream of a single keep-alive: what a client that renews a lease now and then sends.

A body that is one request, and whole, has one answer: it needs no conversation to be had.
"""

from typing import Final

import msgspec

from kvstore.api.answer import V3_HEAD, Answer, Outcome, Reply
from kvstore.api.backend import Service
from kvstore.api.error_map import http_status, stream_error_line
from kvstore.api.v3_json.encode import encode
from kvstore.api.v3_json.table import PREFIXES
from kvstore.errors import KvError
from kvstore.service.caller import Caller
from kvstore.types import LeaseKeepAliveRequest

_DIGITS_MAX: Final = 18
"""A decimal number of so many digits fits 64 bits."""


class _KeepAlive(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    ID: str | int


_read: Final = msgspec.json.Decoder(_KeepAlive).decode


class SingleKeepAlive:
    """A keep-alive asked and answered once.

    Args:
        service: what is asked.
    """

    __slots__ = ("_ask",)

    def __init__(self, service: Service) -> None:
        self._ask = service.lease_keep_alive

    def begin(self, body: bytes, caller: Caller, reply: Reply) -> bool:
        """Ask for what a body asks for; False if it is not one plain request."""
        try:
            text = str(_read(body).ID)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return False
        # A field that comes twice is seen by its colon, which a number has none of.
        if body.count(b":") != 1 or not (text.isdecimal() and text.isascii()):
            return False
        if len(text) > _DIGITS_MAX or (text[0] == "0" and text != "0"):
            return False
        self._ask(LeaseKeepAliveRequest(int(text)), caller, reply)
        return True

    def finish(self, outcome: Outcome) -> Answer:
        """The only line of the stream, or what it ends with instead."""
        if isinstance(outcome, KvError):
            return Answer(stream_error_line(outcome), None, http_status(outcome.code), V3_HEAD)
        return Answer(b'{"result":%b}\n' % encode(outcome))


def single_calls(service: Service) -> dict[str, SingleKeepAlive]:
    """The streaming calls that may have a single answer, by path."""
    call = SingleKeepAlive(service)
    return {prefix + "/lease/keepalive": call for prefix in PREFIXES}
