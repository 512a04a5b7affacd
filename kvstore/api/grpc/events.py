"""What a watch stream says, as messages."""

from typing import Final

from kvstore.api.grpc.encode import delimited, encode, encode_key_value, varint
from kvstore.api.grpc.prepared import Prepared
from kvstore.types import Event, EventType, WatchResponse

_EVENT: Final = b"\x5a"
"""WatchResponse.events: field 11."""


def encode_event(event: Event) -> bytes:
    """An event as one field of a response."""
    item = event.kv
    if item is None or event.prev_kv is not None:
        return delimited(_EVENT, encode(event))
    change = delimited(b"\x12", encode_key_value(item))
    if event.type is EventType.DELETE:
        change = b"\x08\x01" + change
    return delimited(_EVENT, change)


def encode_head(prepared: Prepared, response: WatchResponse) -> bytes:
    """All of a response but its events, which come behind it."""
    if not (
        response.created or response.canceled or response.compact_revision or response.cancel_reason
    ):
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
