"""A body that is a sequence of JSON objects, cut into them while it comes in."""

import re
from typing import Final

_STRUCTURE: Final = re.compile(rb'["{}\[\]]')
_STRING_STOP: Final = re.compile(rb'["\\]')
_SPACE: Final = re.compile(rb"[ \t\r\n]*")


class JsonSequence:
    """Cuts a stream of bytes into objects; each byte is looked at once, however they are cut up.

    Args:
        object_bytes_max: how long one object may be.

    ``is_broken`` tells that something else than objects came, or too long a one: what follows has
    no meaning any more, and is dropped.
    """

    __slots__ = ("_buffer", "_depth", "_in_string", "_object_bytes_max", "_scanned", "is_broken")

    def __init__(self, object_bytes_max: int) -> None:
        self._object_bytes_max = object_bytes_max
        self._buffer = bytearray()
        self._scanned = 0
        self._depth = 0
        self._in_string = False
        self.is_broken = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take more bytes; the objects that they complete."""
        objects: list[bytes] = []
        if self.is_broken:
            return objects
        self._buffer += data
        while (end := self._scan()) is not None:
            objects.append(bytes(self._buffer[:end]))
            del self._buffer[:end]
            self._scanned = 0
        if len(self._buffer) > self._object_bytes_max:
            self.is_broken = True
        if self.is_broken:
            self._buffer.clear()
        return objects

    def _scan(self) -> int | None:
        """The end of the object at the start of the buffer; None if it is not there yet."""
        buffer = self._buffer
        if self._depth == 0:
            space = _SPACE.match(buffer)
            assert space is not None, "a pattern that may be empty always matches"
            del buffer[: space.end()]
            if not buffer:
                return None
            if not buffer.startswith(b"{"):
                self.is_broken = True
                return None
            self._depth = 1
            self._scanned = 1
        at = self._scanned
        while at <= len(buffer):
            pattern = _STRING_STOP if self._in_string else _STRUCTURE
            match = pattern.search(buffer, at)
            if match is None:
                at = len(buffer)
                break
            at = match.end()
            char = match[0]
            if char == b"\\":
                # Whatever is escaped is skipped, even if it has not come in yet.
                at += 1
            elif char == b'"':
                self._in_string = not self._in_string
            elif char in b"{[":
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth == 0:
                    return at
        self._scanned = at
        return None
