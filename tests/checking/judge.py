"""All judges of what clients saw, in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.checking import leases, linearizability, locks, permissions, watches
from tests.checking.model import FIRST_REVISION
from tests.checking.search import UndecidedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.checking.history import History


def judge(
    history: History,
    *,
    alone: bool = True,
    since: int = FIRST_REVISION,
    drift_share: float = 0.0,
    calm_since: float | None = None,
    compacted: Iterable[int] | None = (),
) -> bool:
    """Judge a history.

    Args:
        history: What clients did and saw.
        alone: Whether only these calls wrote. If not, others write other keys.
        since: The store's revision before the first call; none of the keys was there.
        drift_share: How much faster or slower than the clients' clock a member's may run.
        calm_since: From when on nothing was broken any more; None: not known.
        compacted: Revisions to which the store was compacted without a call; None: not known.

    Returns:
        Whether all could be decided; if not, nothing wrong was found as far as was looked.

    Raises:
        ViolationError: A promise was broken.
    """
    return not doubts_of(
        history,
        alone=alone,
        since=since,
        drift_share=drift_share,
        calm_since=calm_since,
        compacted=compacted,
    )


def doubts_of(
    history: History,
    *,
    alone: bool = True,
    since: int = FIRST_REVISION,
    drift_share: float = 0.0,
    calm_since: float | None = None,
    compacted: Iterable[int] | None = (),
) -> list[str]:
    """As ``judge``; returns what could not be decided, in words.

    Raises:
        ViolationError: A promise was broken.
    """
    watches.check(history, compacted)
    leases.check(history, drift_share=drift_share, calm_since=calm_since)
    locks.check(history, drift_share=drift_share)
    permissions.check(history)
    try:
        linearizability.check(
            history, alone=alone, since=since, drift_share=drift_share, compacted=compacted
        )
    except UndecidedError as doubt:
        return [f"{linearizability.CHECKER}: {doubt}"]
    return []
