"""Clients whose keys live as long as they do: leases, and locks that are as good as their lease."""

from __future__ import annotations

from typing import Any, Final

from kvstore.types import (
    Compare,
    CompareResult,
    CompareTarget,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    LockRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
    UnlockRequest,
)
from tests.chaos.load import Worker
from tests.checking.history import Operation, Outcome

LEASE_SECONDS: Final = (2, 4)
LOCK_LEASE_SECONDS: Final = 5
LOCK_WAIT_SECONDS: Final = 4.0
LOCKS: Final = 2
ID_BITS: Final = 62


class Leaseholder(Worker):
    """Takes a lease, hangs keys on it, keeps it alive for a while, then ends it or lets it end."""

    calls_per_second = 4.0

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._lease = 0
        self._left = 0
        self._keys: list[bytes] = []
        self._taken = 0

    def turn(self) -> None:
        """The next step in a lease's life."""
        if not self._lease:
            self._take()
        elif self._left > 0:
            self._left -= 1
            self._live()
        else:
            self._let_go()

    def _take(self) -> None:
        # An id of its own: what became of a grant that was never answered can then be told.
        lease = self.rng.getrandbits(ID_BITS) | 1
        granted = self.call(
            "lease_grant", LeaseGrantRequest(self.rng.randint(*LEASE_SECONDS), lease)
        )
        if granted.outcome is not Outcome.OK:
            return
        self._lease, self._left = lease, self.rng.randint(3, 25)
        self._taken += 1
        self._keys = [
            self.prefix + b"s/%d/%d/%d" % (self.caller.number, self._taken, number)
            for number in range(self.rng.randint(1, 3))
        ]
        for key in self._keys:
            self.call("put", PutRequest(key, b"%x" % lease, lease=lease))

    def _live(self) -> None:
        what = self.rng.random()
        if what < 0.6:
            renewed = self.call("lease_keep_alive", LeaseKeepAliveRequest(self._lease))
            if renewed.outcome is Outcome.OK and not renewed.response.TTL:
                self._lease = 0
        elif what < 0.75:
            self.call("lease_time_to_live", LeaseTimeToLiveRequest(self._lease, keys=True))
        else:
            self.call("range", RangeRequest(self.rng.choice(self._keys)))

    def _let_go(self) -> None:
        if self.rng.random() < 0.4:
            self.call("lease_revoke", LeaseRevokeRequest(self._lease))
            for key in self._keys:
                self.call("range", RangeRequest(key))
            self._lease = 0
            return
        found = self.call("range", RangeRequest(self._keys[0]))
        if found.outcome is Outcome.OK and not found.response.kvs:
            for key in self._keys:
                self.call("range", RangeRequest(key))
            self._lease = 0


class Locker(Worker):
    """Waits for a lock, changes what it guards while it holds it, and lets go or just goes."""

    calls_per_second = 10.0

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._lease = 0
        self._written = 0

    def turn(self) -> None:
        """Hold a lock once."""
        if not self._lease and not self._take_lease():
            return
        number = self.rng.randrange(LOCKS)
        name = self.prefix + b"lock/%d" % number
        locked = self.call("lock", LockRequest(name, self._lease), wait_seconds=LOCK_WAIT_SECONDS)
        if locked.outcome is not Outcome.OK:
            self._give_up()
            return
        key = locked.response.key
        held = self.call("range", RangeRequest(key))
        if held.outcome is Outcome.OK and held.response.kvs:
            self._work(number, key, held.response.kvs[0].create_revision)
        if self.rng.random() < 0.8:
            if self.call("unlock", UnlockRequest(key)).outcome is not Outcome.OK:
                self._give_up()
        else:
            self._give_up()

    def _take_lease(self) -> bool:
        lease = self.rng.getrandbits(ID_BITS) | 1
        granted = self.call("lease_grant", LeaseGrantRequest(LOCK_LEASE_SECONDS, lease))
        self._lease = lease if granted.outcome is Outcome.OK else 0
        return self._lease != 0

    def _work(self, number: int, key: bytes, fence: int) -> None:
        mine = Compare(CompareResult.EQUAL, CompareTarget.CREATE, key, create_revision=fence)
        guarded = self.prefix + b"g/%d" % number
        for _ in range(self.rng.randint(1, 4)):
            if self.over.is_set():
                return
            self._written += 1
            value = b"%d.%d" % (self.caller.number, self._written)
            put = RequestOp(request_put=PutRequest(guarded, value))
            if not _succeeded(self.call("txn", TxnRequest([mine], [put], []))):
                return
            self.call("lease_keep_alive", LeaseKeepAliveRequest(self._lease))
            self.over.wait(self.rng.uniform(0.0, 0.1))

    def _give_up(self) -> None:
        """The lock goes with the lease, whether it was ours or not."""
        if self.rng.random() < 0.7:
            self.call("lease_revoke", LeaseRevokeRequest(self._lease))
        self._lease = 0


def _succeeded(done: Operation) -> bool:
    return done.outcome is Outcome.OK and bool(done.response.succeeded)
