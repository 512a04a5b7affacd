"""How much time has each lease left? Kept by the leader alone, from a monotonic clock.

Followers do not count: a lease's replicated part is its TTL and, for long ones, the remaining time
that the leader wrote down through the log now and then (a checkpoint). A new leader starts from
these, and adds what may have been promised to clients that it has not heard of.
"""

from itertools import islice
from math import ceil
from typing import TYPE_CHECKING, Final

from kvstore.budget import Budget, Sliced
from kvstore.lease.deadlines import Deadlines
from kvstore.mvcc.dismantling import empty_dict
from kvstore.types import LeaseId

if TYPE_CHECKING:
    from kvstore.lease.lessor import Lease

TAKE_OVER_BATCH: Final = 4096
"""Leases a look: with 100,000 of them, taking all over at once would hold the loop for 40 ms."""


class LeaseClock:
    """The deadlines of one leadership.

    Args:
        leases: The lessor's, by id; changes are told by ``start`` and ``stop``.
        now: Monotonic seconds at which leadership began.
        extend_seconds: Added to every lease taken over, see ``Lessor.promote``.
        checkpoint_seconds: How often the remaining time of a long lease is written down.
        retry_seconds: How long to wait before an expiry is handed out again.
    """

    __slots__ = (
        "_base",
        "_checkpoint_seconds",
        "_checkpoints",
        "_deadline",
        "_expiries",
        "_held_back",
        "_in_flight",
        "_leases",
        "_promoted_at",
        "_retry_seconds",
        "_to_take_over",
    )

    def __init__(
        self,
        leases: "dict[LeaseId, Lease]",
        now: float,
        extend_seconds: float,
        checkpoint_seconds: float,
        retry_seconds: float,
    ) -> None:
        self._leases = leases
        self._promoted_at = now
        self._base = now + extend_seconds
        self._checkpoint_seconds = checkpoint_seconds
        self._retry_seconds = retry_seconds
        # Only leases that were renewed or granted since are listed: the others' follow from _base.
        self._deadline: dict[LeaseId, float] = {}
        self._expiries = Deadlines()
        self._checkpoints = Deadlines()
        self._in_flight: set[LeaseId] = set()
        self._held_back: set[LeaseId] = set()
        self._to_take_over = iter(list(leases.values()))

    def deadline(self, lease: "Lease") -> float:
        """When a lease runs out."""
        deadline = self._deadline.get(lease.id)
        if deadline is None:
            return self._base + (lease.remaining_seconds or lease.ttl_seconds)
        return deadline

    def left(self, leases: "list[Lease]", now: float) -> list[tuple[float, LeaseId]]:
        """The seconds that each of these leases has left, at least 0, with its id.

        As ``deadline`` tells them, without a call for each: a client may ask for 100,000.
        """
        listed = self._deadline.get
        base = self._base
        deadlines = [
            (listed(x.id, base + (x.remaining_seconds or x.ttl_seconds)), x.id) for x in leases
        ]
        return [(at - now if at > now else 0.0, lease_id) for at, lease_id in deadlines]

    def dismantle(self, budget: Budget) -> Sliced[None]:
        """Let go of all deadlines, piece by piece; unusable from the first slice on."""
        yield from empty_dict(self._deadline, budget)
        yield from self._expiries.dismantle(budget)
        yield from self._checkpoints.dismantle(budget)

    def start(self, lease: "Lease", now: float) -> None:
        """A lease was granted or renewed: its whole TTL lies before it."""
        lease_id = lease.id
        deadline = now + lease.ttl_seconds
        self._deadline[lease_id] = deadline
        self._expiries.set(lease_id, deadline)
        self._held_back.discard(lease_id)
        self._plan_checkpoint(lease, now)

    def stop(self, lease_id: LeaseId) -> None:
        """A lease is gone."""
        self._deadline.pop(lease_id, None)
        self._expiries.forget(lease_id)
        self._checkpoints.forget(lease_id)
        self._in_flight.discard(lease_id)
        self._held_back.discard(lease_id)

    def pin(self, lease: "Lease") -> None:
        """Its checkpoint is about to change; the deadline of this leadership stays."""
        self._deadline[lease.id] = self.deadline(lease)

    def checkpoint_applied(self, lease_id: LeaseId) -> None:
        """What was handed out, if anything was, has come back through the log, or never will."""
        self._in_flight.discard(lease_id)

    def hold_back_checkpoint(self, lease: "Lease") -> bool:
        """See ``Lessor.needs_checkpoint_clear``."""
        if not lease.remaining_seconds and lease.id not in self._in_flight:
            return False
        self._held_back.add(lease.id)
        return True

    def expired(self, now: float, limit: int) -> list[LeaseId]:
        """See ``Lessor.expired``."""
        self._take_over()
        found: list[LeaseId] = []
        while len(found) < limit and (lease_id := self._expiries.pop_due(now)) is not None:
            found.append(lease_id)
        for lease_id in found:
            self._expiries.set(lease_id, now + self._retry_seconds)
        return found

    def due_checkpoints(self, now: float, limit: int) -> list[tuple[LeaseId, int]]:
        """See ``Lessor.due_checkpoints``."""
        self._take_over()
        found: list[tuple[LeaseId, int]] = []
        while len(found) < limit and (lease_id := self._checkpoints.pop_due(now)) is not None:
            lease = self._leases[lease_id]
            remaining = self.deadline(lease) - now
            if lease_id not in self._held_back and remaining > 0:
                self._in_flight.add(lease_id)
                # Rounded up: a next leader may end the lease late, not early. Never more than was
                # granted, though after a take-over more than that may be left.
                found.append((lease_id, min(ceil(remaining), lease.ttl_seconds)))
            self._plan_checkpoint(lease, now)
        return found

    def _plan_checkpoint(self, lease: "Lease", now: float) -> None:
        # With less than an interval left a full restart costs little, and most leases are short:
        # they must not fill the log.
        if self.deadline(lease) - now > self._checkpoint_seconds:
            self._checkpoints.set(lease.id, now + self._checkpoint_seconds)
        else:
            self._checkpoints.forget(lease.id)

    def _take_over(self) -> None:
        """List some more of the leases that were there before this leadership began."""
        for lease in islice(self._to_take_over, TAKE_OVER_BATCH):
            current = self._leases.get(lease.id)
            # Revoked since; or renewed, or granted anew under the same id, and listed by that.
            if current is None or lease.id in self._expiries:
                continue
            self._expiries.set(lease.id, self.deadline(current))
            self._plan_checkpoint(current, self._promoted_at)
