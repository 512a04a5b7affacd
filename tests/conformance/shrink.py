"""The shortest sequence that still fails: calls are left out as long as the failure stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

T = TypeVar("T")

ATTEMPTS_MAX: Final = 400
"""How often a sequence is tried again: a failure that comes and goes ends the search."""


def shortest(
    items: Sequence[T], fails: Callable[[Sequence[T]], bool], attempts_max: int = ATTEMPTS_MAX
) -> list[T]:
    """Items of a failing sequence without which it would not fail (Zeller's ddmin, by halves).

    Args:
        items: a sequence that fails.
        fails: whether a shorter one does.
        attempts_max: how often to ask.

    Returns:
        A failing sequence of which no single item can be left out, or the best one after
        ``attempts_max`` attempts.
    """
    kept = list(items)
    attempts = 0
    size = max(len(kept) // 2, 1)
    while kept:
        start = 0
        shrunk = False
        while start < len(kept):
            if attempts == attempts_max:
                return kept
            candidate = kept[:start] + kept[start + size :]
            attempts += 1
            if candidate and fails(candidate):
                kept = candidate
                shrunk = True
            else:
                start += size
        if size > 1:
            size = max(min(size // 2, len(kept)), 1)
        elif not shrunk:
            break
    return kept
