"""What is wrong with this JSON, in the words that callers of etcd know.

The words are those of Go's encoding/json, which its gateway uses. This runs only on text that a
parser has already refused; it scans once, without recursion.
"""

import re
from typing import Final, NoReturn

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_PLAIN: Final = re.compile(r'[^"\\\x00-\x1f]*')
_HEX: Final = re.compile(r"[0-9a-fA-F]*")
_DIGITS: Final = re.compile(r"[0-9]*")
_ESCAPED: Final = {
    "'": "\\'",
    "\\": "\\\\",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\b": "\\b",
    "\f": "\\f",
    "\v": "\\v",
    "\a": "\\a",
}
_LITERALS: Final = {"t": "true", "f": "false", "n": "null"}

TRUNCATED: Final = "unexpected EOF"


class _Fault(Exception):
    """The scan found what is wrong."""


def explain(text: str) -> str:
    """Name the first fault of a text whose first JSON value is malformed or cut short."""
    try:
        _Scan(text).value()
    except _Fault as fault:
        return str(fault)
    return "invalid JSON"


class _Scan:
    """One pass over a text, up to the end of its first value."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def value(self) -> None:
        """Scan the first value; the brackets that are open are a list, not the call stack."""
        open_brackets: list[str] = []
        expects_value = True
        while True:
            if expects_value:
                expects_value = self._begin(open_brackets)
            elif not open_brackets:
                return
            else:
                expects_value = self._after_value(open_brackets)

    def _begin(self, open_brackets: list[str]) -> bool:
        """Scan a scalar, or open a bracket; true if a value has to follow."""
        char = self._next()
        if char in "{[":
            return self._open(char, open_brackets)
        if char == '"':
            self._string()
        elif char in "-0123456789":
            self._number(char)
        elif char in _LITERALS:
            self._literal(_LITERALS[char])
        else:
            self._fail(char, "looking for beginning of value")
        return False

    def _open(self, char: str, open_brackets: list[str]) -> bool:
        following = self._next()
        if following == ("}" if char == "{" else "]"):
            return False
        self._at -= 1
        open_brackets.append(char)
        if char == "{":
            self._key()
        return True

    def _after_value(self, open_brackets: list[str]) -> bool:
        char = self._next()
        in_object = open_brackets[-1] == "{"
        if char == ",":
            if in_object:
                self._key()
            return True
        if char != ("}" if in_object else "]"):
            after = "object key:value pair" if in_object else "array element"
            self._fail(char, f"after {after}")
        open_brackets.pop()
        return False

    def _key(self) -> None:
        char = self._next()
        if char != '"':
            self._fail(char, "looking for beginning of object key string")
        self._string()
        char = self._next()
        if char != ":":
            self._fail(char, "after object key")

    def _string(self) -> None:
        while True:
            self._skip(_PLAIN)
            char = self._take()
            if char == '"':
                return
            if char != "\\":
                self._fail(char, "in string literal")
            escape = self._take()
            if escape == "u":
                self._hex()
            elif escape not in '"\\/bfnrt':
                self._fail(escape, "in string escape code")

    def _hex(self) -> None:
        for _ in range(4):
            char = self._take()
            if not _HEX.fullmatch(char):
                self._fail(char, "in \\u hexadecimal character escape")

    def _number(self, char: str) -> None:
        if char == "-":
            char = self._digit("in numeric literal")
        if char != "0":
            self._skip(_DIGITS)
        if self._peek() == ".":
            self._at += 1
            self._digit("after decimal point in numeric literal")
            self._skip(_DIGITS)
        if self._peek() in ("e", "E"):
            self._at += 1
            if self._peek() in ("+", "-"):
                self._at += 1
            self._digit("in exponent of numeric literal")
            self._skip(_DIGITS)

    def _digit(self, where: str) -> str:
        char = self._take()
        if char not in "0123456789":
            self._fail(char, where)
        return char

    def _literal(self, word: str) -> None:
        for wanted in word[1:]:
            char = self._take()
            if char != wanted:
                self._fail(char, f"in literal {word} (expecting '{wanted}')")

    def _next(self) -> str:
        self._skip(_SPACE)
        return self._take()

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._text, self._at)
        assert match is not None, "a pattern that may be empty always matches"
        self._at = match.end()

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        if self._at >= len(self._text):
            raise _Fault(TRUNCATED)
        char = self._text[self._at]
        self._at += 1
        return char

    def _fail(self, char: str, where: str) -> NoReturn:
        raise _Fault(f"invalid character {_quoted(char)} {where}")


def _quoted(char: str) -> str:
    """A character as Go prints it: bytewise, so of a longer one only the first byte."""
    first = chr(char.encode("utf-8", "surrogateescape")[0])
    return f"'{_ESCAPED.get(first) or _visible(first)}'"


def _visible(char: str) -> str:
    return char if char.isprintable() else f"\\x{ord(char):02x}"
