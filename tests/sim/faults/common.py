"""What the kinds of faults share."""

from __future__ import annotations


async def nothing() -> None:
    """The fault finds nobody to strike."""
