"""How log records look: one line an entry, as text or as JSON, on standard error."""

from __future__ import annotations

import logging
import time
from typing import Final, TextIO

import msgspec

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    # etcd's two above error; what is logged there ends the process here too.
    "panic": logging.CRITICAL,
    "fatal": logging.CRITICAL,
}

_NAMES: Final = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warn",
    logging.ERROR: "error",
    logging.CRITICAL: "fatal",
}

_ESCAPES: Final = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) != "\t"
}
"""Control characters: what a client sent may be logged, and must not forge a line or a colour."""


def set_up(level: str, form: str, stream: TextIO) -> None:
    """Send all records of ``level`` and above to ``stream``, as ``text`` or ``json``."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])


def _timestamp(record: logging.LogRecord) -> str:
    seconds = time.gmtime(record.created)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', seconds)}.{int(record.msecs):03d}Z"


class TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.000Z info kvstore.server: message``; a stack follows indented."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        level = _NAMES.get(record.levelno, record.levelname.lower())
        message = record.getMessage().translate(_ESCAPES)
        line = f"{_timestamp(record)} {level} {record.name}: {message}"
        if record.exc_info:
            stack = self.formatException(record.exc_info)
            line += "".join(f"\n    {part.translate(_ESCAPES)}" for part in stack.splitlines())
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``ts``, ``level``, ``logger``, ``msg``; after an error ``stack``."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        entry = {
            "ts": _timestamp(record),
            "level": _NAMES.get(record.levelno, record.levelname.lower()),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        if record.exc_info:
            entry["stack"] = self.formatException(record.exc_info)
        # A lone surrogate, of a file name that is no UTF-8, would make the encoder refuse.
        clean = {
            key: text.encode(errors="backslashreplace").decode() for key, text in entry.items()
        }
        return msgspec.json.encode(clean).decode()
