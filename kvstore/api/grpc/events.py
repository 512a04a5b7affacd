"""What a watch stream says, as messages; events that many watch are encoded once."""

from typing import Final

from kvstore.api.grpc.encode import delimited, encode, encode_key_value, varint
from kvstore.api.grpc.prepared import Prepared
from kvstore.types import Event, EventType, WatchResponse

_EVENT: Final = b"\x5a"
"""WatchResponse.events: field 11."""

_SHARED_EVENTS_MAX: Final = 1024
_SHARED_EVENT_BYTES_MAX: Final = 4096


class SharedEvents:
    """Events that were encoded a moment ago: watchers of the same key get the same bytes.

    Bounded: small events only, and all are forgotten when it is full.
    """

    __slots__ = ("_encoded",)

    def __init__(self) -> None:
        # The record is kept beside its bytes, so that its id cannot become another one's.
        self._encoded: dict[int, tuple[Event, bytes]] = {}

    def encode(self, event: Event) -> bytes:
        """The event as one field of a response."""
        item = event.kv
        if item is None or event.prev_kv is not None:
            return delimited(_EVENT, encode(event))
        name = id(item)
        known = self._encoded.get(name)
        if known is not None:
            return known[1]
        change = delimited(b"\x12", encode_key_value(item))
        if event.type is EventType.DELETE:
            change = b"\x08\x01" + change
        encoded = delimited(_EVENT, change)
        if len(encoded) <= _SHARED_EVENT_BYTES_MAX:
            if len(self._encoded) >= _SHARED_EVENTS_MAX:
                self._encoded.clear()
            self._encoded[name] = (event, encoded)
        return encoded


def encode_head(prepared: Prepared, response: WatchResponse) -> bytes:
    """All of a response but its events, which come behind it."""
    if not (response.created or response.canceled or response.compact_revision):
        header = prepared.header(response.header)
        watch_id = b"\x10" + varint(response.watch_id) if response.watch_id else b""
        return b"%b%b%b" % (header, watch_id, b"\x38\x01" if response.fragment else b"")
    return encode(
        WatchResponse(
            response.header,
            response.watch_id,
            response.created,
            response.canceled,
            response.compact_revision,
            response.cancel_reason,
            response.fragment,
        )
    )
