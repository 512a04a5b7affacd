"""When is which lease due? A heap whose entries may be early, so that a renewal is cheap.

Clients renew far more often than leases run out. A renewal only notes the new time; the entry in
the heap stays where it is, and is put back at the noted time once it comes up. Each lease has about
one entry: when stale ones outnumber the living, the heap is built anew.
"""

from heapq import heapify, heappop, heappush
from typing import Final

from kvstore.budget import Budget, Sliced
from kvstore.mvcc.dismantling import empty_dict, empty_list
from kvstore.types import LeaseId

STALE_ENTRIES_MIN: Final = 64


class Deadlines:
    """Times in monotonic seconds, by lease."""

    __slots__ = ("_at", "_heap")

    def __init__(self) -> None:
        self._at: dict[LeaseId, float] = {}
        self._heap: list[tuple[float, LeaseId]] = []

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, lease_id: LeaseId) -> bool:
        return lease_id in self._at

    def set(self, lease_id: LeaseId, at: float) -> None:
        """Note when a lease is due, whether it was known before or not."""
        noted = self._at.get(lease_id)
        self._at[lease_id] = at
        if noted is None or at < noted:
            # The entry of a later time stays behind and is dropped or put back when it comes up.
            heappush(self._heap, (at, lease_id))
            self._drop_stale()

    def forget(self, lease_id: LeaseId) -> None:
        """This lease is no longer due at any time."""
        if self._at.pop(lease_id, None) is not None:
            self._drop_stale()

    def pop_due(self, now: float) -> LeaseId | None:
        """Take out one lease that is due, the earliest first; none: None."""
        heap = self._heap
        at_of = self._at
        while heap and heap[0][0] <= now:
            at, lease_id = heappop(heap)
            noted = at_of.get(lease_id)
            if noted is None or noted < at:
                continue
            if noted > at:
                heappush(heap, (noted, lease_id))
                continue
            del at_of[lease_id]
            return lease_id
        return None

    def dismantle(self, budget: Budget) -> Sliced[None]:
        """Let go of everything, piece by piece."""
        yield from empty_list(self._heap, budget)
        yield from empty_dict(self._at, budget)

    def _drop_stale(self) -> None:
        # Without this, grants and revokes of long leases would grow the heap for ever.
        if len(self._heap) > 2 * len(self._at) + STALE_ENTRIES_MIN:
            self._heap = [(at, lease_id) for lease_id, at in self._at.items()]
            heapify(self._heap)
