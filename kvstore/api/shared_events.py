"""Events that many watch are encoded once, whatever the language of the face."""

from collections.abc import Callable
from typing import Final

from kvstore.types import Event

EVENTS_MAX: Final = 1024
EVENT_BYTES_MAX: Final = 4096


class SharedEvents:
    """Events that were encoded a moment ago: watchers of the same key get the same bytes.

    Bounded: small events only, and all are forgotten when it is full.

    Args:
        encode: makes an event's bytes, in the form that a face sends.
    """

    __slots__ = ("_encode", "_encoded")

    def __init__(self, encode: Callable[[Event], bytes]) -> None:
        self._encode = encode
        # The record is kept beside its bytes, so that its id cannot become another one's.
        self._encoded: dict[int, tuple[Event, bytes]] = {}

    def encode(self, event: Event) -> bytes:
        """The event's bytes."""
        item = event.kv
        if item is None or event.prev_kv is not None:
            return self._encode(event)
        name = id(item)
        known = self._encoded.get(name)
        if known is not None:
            return known[1]
        encoded = self._encode(event)
        if len(encoded) <= EVENT_BYTES_MAX:
            if len(self._encoded) >= EVENTS_MAX:
                self._encoded.clear()
            self._encoded[name] = (event, encoded)
        return encoded
