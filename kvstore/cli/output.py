"""Printing: bytes as they are, answers as JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import msgspec

from kvstore.types import KeyValue


def write_line(*parts: bytes) -> None:
    """Write bytes and a line end to standard output."""
    sys.stdout.buffer.write(b"".join(parts) + b"\n")


def write_pair(pair: KeyValue, *, keys: bool = True, values: bool = True) -> None:
    """Write a key and its value, each on a line of its own."""
    if keys:
        write_line(pair.key)
    if values:
        write_line(pair.value)


def write_json(message: msgspec.Struct) -> None:
    """Write a whole answer as one line of v3 JSON."""
    from kvstore.client import json_codec

    write_line(json_codec.encode(message))


def write_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write rows in a frame, as etcdctl's ``-w table``."""
    lines = [[head.upper() for head in heads], *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    shown = [
        "|" + "|".join(f" {cell:<{width}} " for cell, width in zip(line, widths, strict=True)) + "|"
        for line in lines
    ]
    print("\n".join([rule, shown[0], rule, *shown[1:], *([rule] if rows else [])]))


def size_text(size_bytes: int) -> str:
    """A number of bytes for people, in decimal units."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def took_text(seconds: float) -> str:
    """A time that something took, as Go writes durations."""
    return f"{seconds:.3f}s" if seconds >= 1 else f"{seconds * 1000:.3f}ms"
