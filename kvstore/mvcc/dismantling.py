"""How is much let go of without holding the loop? A few hundred objects at a time.

Dropping the last reference to a store of 300,000 keys frees a million objects in one go, and takes
100 ms. Emptied in pieces, what is dropped in the end is only the containers.
"""

from collections.abc import Iterable
from typing import Final, TypeVar

from kvstore.budget import Budget, Sliced

_K = TypeVar("_K")
_V = TypeVar("_V")

FREE_STEP: Final = 256
"""Items let go between two questions to the budget: a tenth of a millisecond's."""


def empty_list(items: list[_V], budget: Budget) -> Sliced[None]:
    """Let go of a list's items, from the end."""
    while items:
        del items[-FREE_STEP:]
        if budget.spent():
            yield


def empty_dict(items: dict[_K, _V], budget: Budget) -> Sliced[None]:
    """Let go of a dict's items, from the end."""
    yield from empty_dicts((items,), budget)


def empty_dicts(dicts: Iterable[dict[_K, _V]], budget: Budget) -> Sliced[None]:
    """Let go of the items of several dicts.

    When the budget is asked depends on how many there are in all, and not on which dict has which:
    where that is decided by hashes it differs from process to process.
    """
    left = FREE_STEP
    for items in dicts:
        while items:
            count = min(left, len(items))
            for _ in range(count):
                items.popitem()
            left -= count
            if not left:
                left = FREE_STEP
                if budget.spent():
                    yield
    if left < FREE_STEP and budget.spent():
        yield
