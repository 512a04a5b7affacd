"""Bugs of applying: commands, ids, snapshots of the state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kvstore.apply.capture import Capture
from kvstore.apply.loader import SnapshotLoader
from kvstore.apply.machine import StateMachine
from kvstore.apply.origins import Origins
from kvstore.lease.lessor import Lessor
from kvstore.server import bootstrap
from kvstore.server.snapshots import SnapshotKeeper
from kvstore.types import LeaseId
from tests.sim.mutants.planting import AGED, Made, Planting, mutant


@mutant(
    wrong="A member that starts from a snapshot has forgotten which commands it has applied.",
    source="thesis §6.3: the sessions are part of the state",
    checker="equality",
    blunt="in every loaded state: test_a_snapshot_is_the_state_as_of_its_index",
)
def snapshot_without_the_ids(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def load(disk: Any, file: Any, loader: SnapshotLoader) -> StateMachine:
            machine: StateMachine = right(disk, file, loader)
            machine.origins = Origins()
            return machine

        return load

    planting.function(bootstrap._load, make)


@mutant(
    wrong="Of an installed snapshot's leases those with several keys keep only their first.",
    source="a restore that takes a lease's first key for its only one",
    checker="equality",
    blunt="in every loaded state: test_leases_follow_their_keys",
)
def snapshot_loses_attachments(planting: Planting) -> None:
    def make(right: Made) -> Made:
        async def load(self: SnapshotKeeper, file: Any) -> StateMachine:
            machine: StateMachine = await right(self, file)
            _keep_first_keys(machine.lessor)
            return machine

        return load

    def make_disk(right: Made) -> Made:
        def load(disk: Any, file: Any, loader: SnapshotLoader) -> StateMachine:
            machine: StateMachine = right(disk, file, loader)
            _keep_first_keys(machine.lessor)
            return machine

        return load

    planting.method(SnapshotKeeper, "_load", make)
    planting.function(bootstrap._load, make_disk)


@mutant(
    wrong="A snapshot that is installed lacks a lease: of those without keys the last one granted.",
    source="a restore that knows leases by their keys",
    checker="equality",
    blunt="of any state: tests/kvstore/apply/test_state_format.py",
)
def snapshot_loses_a_lease(planting: Planting) -> None:
    def make(right: Made) -> Made:
        async def load(self: SnapshotKeeper, file: Any) -> StateMachine:
            machine: StateMachine = await right(self, file)
            _forget_newest(machine.lessor)
            return machine

        return load

    planting.method(SnapshotKeeper, "_load", make)


def _keep_first_keys(lessor: Lessor) -> None:
    for lease in sorted(lessor.holders()):
        for key in lessor.keys(lease)[1:]:
            lessor.detach(lease, key)


def _forget_newest(lessor: Lessor) -> None:
    bare = [lease for lease in lessor._leases.values() if not lessor.keys(lease.id)]
    if bare:
        newest = max(bare, key=lambda lease: lease.granted_index)
        lessor.revoke(LeaseId(newest.id))


@mutant(
    wrong="A snapshot's leases are read when it is written out, not when it is captured.",
    source="Raft §7: a snapshot is the state as of one index; a copy that is not one",
    checker="equality",
)
def snapshot_of_leases_is_taken_later(planting: Planting) -> None:
    lessors: dict[int, tuple[Capture, Lessor]] = {}

    def make_init(right: Made) -> Made:
        def init(self: Capture, machine: StateMachine) -> None:
            right(self, machine)
            lessors[id(self)] = (self, machine.lessor)

        return init

    def make_groups(right: Made) -> Made:
        def groups(self: Capture) -> Iterator[bytes]:
            self._leases = lessors.pop(id(self))[1].export()
            yield from right(self)

        return groups

    planting.method(Capture, "__init__", make_init)
    planting.method(Capture, "_groups", make_groups)


@mutant(
    wrong="A snapshot of a store with many revisions says that its last entry is applied, and lacks"
    " what that entry wrote.",
    source="etcd's v3.5 data inconsistency, 2022: the consistent index and the data did not go"
    " together",
    checker="equality",
    blunt="of few revisions: test_a_snapshot_is_the_state_as_of_its_index",
)
def applied_index_is_not_atomic(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def capture(self: StateMachine) -> Capture:
            captured: Capture = right(self)
            if self.store.revision > AGED and captured._log_end:
                captured._log_end -= 1
            return captured

        return capture

    planting.method(StateMachine, "capture", make)
