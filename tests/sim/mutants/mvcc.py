"""Bugs of the multi-version store: revisions, transactions, compaction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kvstore.mvcc.store import Store
from kvstore.mvcc.txn import _Execution
from kvstore.types import Compare, CompareTarget, KeyValue, TxnRequest
from tests.sim.mutants.planting import AGED, Made, Planting, mutant


@mutant(
    wrong="A transaction in a transaction is published by itself: what was written before it can be"
    " seen, and it has a revision of its own.",
    source="etcd's API: all changes of a transaction have one revision",
    checker="linearizability",
)
def nested_transaction_is_visible_half_way(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def do(self: _Execution, plan: Any) -> Any:
            wrote = self._store.dirty
            result = yield from right(self, plan)
            if wrote and plan.nested == [] and self._store.dirty and len(plan.operations) > 1:
                self._store.publish()
                self._start = self._store.revision
            return result

        return do

    planting.method(_Execution, "_do", make)


@mutant(
    wrong="A state of many revisions that is loaded from a snapshot whose last change was a"
    " deletion has the revision before that.",
    source="etcd's revision after a restore: it must not go back",
    checker="equality",
)
def revision_goes_back_after_recovery(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def restored(self: Store, revision: int, compacted: int) -> None:
            newest = self.last
            if newest is not None and not newest.version and revision > AGED:
                revision -= 1
            right(self, revision, compacted)

        return restored

    planting.method(Store, "restored", make)


@mutant(
    wrong="A compare of the revision that created a key sees the one that deleted it, if it is"
    " gone.",
    source="etcd's API: a key that is not there has create revision 0; locks stand on that",
    checker="linearizability",
)
def compare_sees_a_tombstone(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def choose(self: _Execution, request: TxnRequest, depth: int) -> Any:
            for compare in request.compare:
                if _is_creation(compare) and len(request.compare) > 1:
                    history = self._store.history(compare.key, 0)
                    if history and not history[-1].version and len(history) > 2:
                        request = TxnRequest(request.compare, request.failure, request.failure)
            plan = yield from right(self, request, depth)
            return plan

        return choose

    planting.method(_Execution, "_choose", make)


def _is_creation(compare: Compare) -> bool:
    return compare.target == CompareTarget.CREATE and not compare.create_revision


@mutant(
    wrong="A snapshot that travels lacks the tombstones at the compacted revision.",
    source="etcd's compaction kept no tombstone at its revision: watches from there missed it",
    checker="watch",
)
def tombstone_at_the_compaction_is_lost(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def survivors(self: Store, records: list[KeyValue], compacted: int) -> Iterator[KeyValue]:
            for record in right(self, records, compacted):
                if record.version or record.mod_revision > compacted or compacted < 50:
                    yield record

        return survivors

    planting.method(Store, "survivors", make)
