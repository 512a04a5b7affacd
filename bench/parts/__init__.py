"""What is measured: one module a part, each with ``measure(options, base_dir) -> Section``."""

from __future__ import annotations

import msgspec


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How much of it. Each part says how long it takes at most."""

    rounds: int = 5
    """How often the systems take turns."""
    seconds: int = 3
    """How long each turn of a steady load lasts."""
    quick: bool = False
    """A look of a few seconds a part, not a measurement: smaller data, fewer points."""


def say(line: str) -> None:
    """Show how far it is: long work is not silent."""
    print(line, flush=True)
