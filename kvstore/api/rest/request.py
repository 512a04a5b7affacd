"""What a plain REST request says: its key, its parameters, each checked before anything is done."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote_to_bytes

from multidict import MultiMapping

from kvstore.errors import Code, ErrorKind, KvError

PATH: Final = "/v1/kv/"

_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_DECIMAL: Final = re.compile(rb"-?(?:0|[1-9][0-9]{0,18})")
_INT64_MAX: Final = (1 << 63) - 1
_PARAMETERS_MAX: Final = 16
_TRUE: Final = frozenset({b"", b"1", b"true"})
_FALSE: Final = frozenset({b"0", b"false"})


class RestRequest:
    """One request as it came in.

    Args:
        method: the HTTP method.
        path: after ``PATH``, not decoded.
        query: after the question mark, not decoded.
        headers: all of them.
        body: whole.
    """

    __slots__ = ("body", "headers", "method", "path", "query")

    def __init__(
        self, method: str, path: str, query: str, headers: MultiMapping[str], body: bytes
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = body

    def header(self, name: str) -> str | None:
        """A list header as one line, however many lines it came in (RFC 9110 §5.3)."""
        lines = self.headers.getall(name, [])
        return ", ".join(lines) if lines else None


def bad_request(message: str) -> KvError:
    """The request makes no sense, and these words say why."""
    return KvError(Code.INVALID_ARGUMENT, message)


def decode_key(path: str) -> bytes:
    """The key in a path.

    Raises:
        KvError: a percent sign that begins no escape.
    """
    return _decode(path, "the key")


def required_key(path: str) -> bytes:
    """As ``decode_key``, and empty is an error too."""
    key = decode_key(path)
    if not key:
        raise ErrorKind.EMPTY_KEY.error()
    return key


def _decode(text: str, what: str) -> bytes:
    if _BAD_ESCAPE.search(text):
        raise bad_request(f"a % in {what} must be followed by two hexadecimal digits (%25 is %)")
    return unquote_to_bytes(text.encode("utf-8", "surrogateescape"))


class Parameters:
    """The query's parameters, each at most once and none that the call does not know.

    Args:
        query: not decoded.
        known: names that the call understands.

    Raises:
        KvError: an unknown or repeated name, or an escape that is none. A misspelt parameter that
            was ignored would give an answer to another question.
    """

    __slots__ = ("_values",)

    def __init__(self, query: str, known: Mapping[str, str]) -> None:
        self._values: dict[str, bytes] = {}
        if not query:
            return
        pairs = query.split("&", _PARAMETERS_MAX)
        if len(pairs) > _PARAMETERS_MAX:
            raise bad_request(f"more than {_PARAMETERS_MAX} parameters")
        for pair in pairs:
            if not pair:
                continue
            name, _, value = pair.partition("=")
            if name not in known:
                names = ", ".join(known) or "no parameters"
                raise bad_request(f"unknown parameter {name!r}; this call knows: {names}")
            if name in self._values:
                raise bad_request(f"parameter {name!r} is given twice")
            # A form's plus sign is a space; a plus itself is %2B.
            self._values[name] = _decode(value.replace("+", " "), f"parameter {name!r}")

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def flag(self, name: str) -> bool:
        """A flag: absent or false; present without a value, or true."""
        value = self._values.get(name, b"0")
        if value in _TRUE:
            return True
        if value in _FALSE:
            return False
        raise bad_request(f"parameter {name!r} must be true or false")

    def number(self, name: str, minimum: int) -> int:
        """A decimal number of 64 bits; 0 if absent."""
        value = self._values.get(name)
        if value is None:
            return 0
        number = int(value) if _DECIMAL.fullmatch(value) else None
        if number is None or not minimum <= number <= _INT64_MAX:
            raise bad_request(f"parameter {name!r} must be a decimal number of at least {minimum}")
        return number

    def raw(self, name: str) -> bytes:
        """Bytes; empty if absent."""
        return self._values.get(name, b"")
