"""The Watch service: requests in, events out."""

import enum
from typing import Annotated, TypeAlias

import msgspec

from kvstore.types.base import FrozenRecord, Int64, KeyValue, Record, ResponseHeader


class FilterType(enum.IntEnum):
    """WatchCreateRequest.FilterType."""

    NOPUT = 0
    NODELETE = 1


class EventType(enum.IntEnum):
    """Event.EventType."""

    PUT = 0
    DELETE = 1


# Enums that clients send may hold any number (proto3 enums are open): the number is kept, and what
# it means is decided where it is used.
AnyFilterType: TypeAlias = Annotated[int, msgspec.Meta(extra={"wire": FilterType})]


class Event(FrozenRecord, frozen=True):
    """One change, as watchers see it."""

    type: EventType = EventType.PUT
    kv: KeyValue | None = None
    prev_kv: KeyValue | None = None


class WatchCreateRequest(Record):
    """Open a watcher on a stream."""

    key: bytes = b""
    range_end: bytes = b""
    start_revision: Int64 = 0
    progress_notify: bool = False
    filters: list[AnyFilterType] = []
    prev_kv: bool = False
    watch_id: Int64 = 0
    fragment: bool = False


class WatchCancelRequest(Record):
    """Close a watcher."""

    watch_id: Int64 = 0


class WatchProgressRequest(Record):
    """Ask for the stream's progress."""


class WatchRequest(Record):
    """One of three, or none."""

    create_request: WatchCreateRequest | None = None
    cancel_request: WatchCancelRequest | None = None
    progress_request: WatchProgressRequest | None = None


class WatchResponse(Record):
    """Events of one watcher, or word about it."""

    header: ResponseHeader | None = None
    watch_id: Int64 = 0
    created: bool = False
    canceled: bool = False
    compact_revision: Int64 = 0
    cancel_reason: str = ""
    fragment: bool = False
    events: list[Event] = []
