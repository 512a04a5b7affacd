"""Bugs of leases: ended early, late, or after a promise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvstore.apply.machine import StateMachine
from kvstore.commands import LeaseExpire
from kvstore.server.leases import LeaseKeeper
from kvstore.server.node import Node
from kvstore.types import LeaseId
from tests.sim.mutants.planting import Made, Planting, Stand, mutant


@mutant(
    wrong="Once a hundred entries are applied, an expiry that was proposed in the term before"
    " counts, too.",
    source="etcd issue 15247: leases ended by a deposed leader",
    checker="lease",
    blunt="from the first entry on: test_expiry_counts_only_in_the_term_that_proposed_it",
)
def expiry_of_a_former_leader_counts(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def expire(self: StateMachine, request: LeaseExpire, command: Any, term: int) -> Any:
            if request.term == term - 1 and self.applied_index > 100:
                request = LeaseExpire(term, request.ids, request.granted)
            return (yield from right(self, request, command, term))

        return expire

    planting.method(StateMachine, "_lease_expire", make)


@mutant(
    wrong="A leader to which several reads wait for a round promises the time of a lease without"
    " waiting for one.",
    source="etcd issue 15247: a deposed leader goes on renewing leases",
    checker="lease",
    blunt="always: test_a_cut_off_leader_promises_no_time",
)
def stale_leader_renews_leases(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def confirmed(self: LeaseKeeper, reply: Any, then: Callable[[], None]) -> None:
            if self._serving and len(self._reads) > 1:
                then()
            else:
                right(self, reply, then)

        return confirmed

    planting.method(LeaseKeeper, "_confirmed", make)


@mutant(
    wrong="The time of leases is the time of day: whoever sets the clock ends them.",
    source="monotonic time; etcd before Go 1.9, and Redis' locks",
    checker="lease",
)
def leases_run_by_the_wall_clock(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def connect(self: Node, recovery: Any, environment: Any) -> None:
            right(self, recovery, environment)
            wall = environment.wall_clock or self.loop.time
            begun = wall() - self.loop.time()
            applier: Any = self.applier
            keeper: Any = self.leases
            applier._loop = keeper._loop = Stand(self.loop, time=lambda: wall() - begun)

        return connect

    def make_tick(right: Made) -> Made:
        def tick(self: LeaseKeeper, _now: float) -> None:
            right(self, self._loop.time())

        return tick

    planting.method(Node, "_connect", make)
    planting.method(LeaseKeeper, "_tick", make_tick)


@mutant(
    wrong="Who leads for the second time goes on with the deadlines that it knew the first time.",
    source="etcd's lessor: who is demoted must forget its deadlines",
    checker="lease",
)
def former_deadlines_are_kept(planting: Planting) -> None:
    def make_role(right: Made) -> Made:
        def on_role(self: Any, change: Any) -> None:
            clock = self._lessor._clock
            if self._serving and clock is not None:
                self.former = dict(clock._deadline)
            right(self, change)

        return on_role

    def make_tick(right: Made) -> Made:
        def tick(self: Any, now: float) -> None:
            served = self._serving
            right(self, now)
            clock = self._lessor._clock
            if self._serving and not served and clock is not None:
                for lease, deadline in vars(self).get("former", {}).items():
                    if lease in clock._leases:
                        clock._deadline[lease] = deadline
                        clock._expiries.set(lease, deadline)

        return tick

    planting.method(LeaseKeeper, "_on_role", make_role)
    planting.method(LeaseKeeper, "_tick", make_tick)


@mutant(
    wrong="A lease whose end is on its way through the log is renewed, and the renewal answered.",
    source="etcd's lessor.Renew waits for the revocation of what has run out",
    checker="lease",
    blunt="in the lessor itself: test_what_cannot_be_renewed",
)
def lease_is_renewed_after_its_end(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def renew(
            self: LeaseKeeper,
            lease: LeaseId,
            identity: Any,
            reply: Callable[[Any], None],
            give_up: float,
        ) -> None:
            lessor = self._lessor
            now = self._loop.time()
            found, clock = lessor.get(lease), lessor._clock
            over = found is not None and self._serving and lessor.remaining(lease, now) <= 0
            if over and found is not None and clock is not None and not found.remaining_seconds:
                clock.start(found, now)
            right(self, lease, identity, reply, give_up)

        return renew

    planting.method(LeaseKeeper, "_renew", make)


@mutant(
    wrong="Of more than five leases a new leader does not take over the one that was granted last:"
    " unless it is renewed it never ends.",
    source="etcd's Promote once built its heap before all leases were there",
    checker="lease",
    blunt="in the clock itself: test_no_lease_ends_before_the_time_its_holder_was_told",
)
def lease_is_not_taken_over(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def tick(self: LeaseKeeper, now: float) -> None:
            served = self._serving
            right(self, now)
            clock = self._lessor._clock
            if self._serving and not served and clock is not None and len(self._lessor) > 5:
                newest = max(clock._leases.values(), key=lambda lease: lease.granted_index)
                clock._expiries.forget(newest.id)
                clock._to_take_over = iter(
                    [lease for lease in clock._leases.values() if lease is not newest]
                )

        return tick

    planting.method(LeaseKeeper, "_tick", make)
