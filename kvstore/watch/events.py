"""From a record of the log to the event that watchers see."""

from typing import TYPE_CHECKING, Final

from kvstore.errors import ErrorKind, KvError
from kvstore.types import Event, EventType, KeyValue

if TYPE_CHECKING:
    from kvstore.watch.reader import LogReader

EVENT_OVERHEAD_BYTES: Final = 64
"""What an event takes beyond key and value: revisions and tags in any encoding, roughly."""

_PUT: Final = EventType.PUT
_DELETE: Final = EventType.DELETE


def make_event(record: KeyValue) -> Event:
    """The event of a record, without the state before."""
    return Event(_PUT if record.version else _DELETE, record)


def make_event_with_previous(record: KeyValue, reader: "LogReader") -> Event:
    """The event of a record and the key's state one revision before.

    That is absent where the key was created, and where a compaction has taken it meanwhile.
    """
    previous = None
    if record.version != 1:
        try:
            previous = reader.get(record.key, record.mod_revision - 1)
        except KvError as error:
            if error != ErrorKind.COMPACTED.error():
                raise
    return Event(_PUT if record.version else _DELETE, record, previous)


def revision_of(event: Event) -> int:
    """The revision an event belongs to."""
    record = event.kv
    assert record is not None, "an event has a record"
    return record.mod_revision


def size_of(event: Event) -> int:
    """About how many bytes an event takes, in memory and on the wire."""
    record, previous = event.kv, event.prev_kv
    assert record is not None, "an event has a record"
    size = EVENT_OVERHEAD_BYTES + len(record.key) + len(record.value)
    if previous is not None:
        size += EVENT_OVERHEAD_BYTES + len(previous.key) + len(previous.value)
    return size
