"""A huge command runs in slices, shows as a whole or not at all, and is bounded a slice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kvstore.apply import Outcome
from kvstore.budget import CountedBudget, finish
from kvstore.errors import ErrorKind
from kvstore.types import (
    Compare,
    DeleteRangeRequest,
    KeyValue,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from kvstore.watch.hub import WatchHub
from tests.kvstore.apply.support import Rig, captured, command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvstore.commands import Body

KEYS = 1000
ALL = RangeRequest(b"k", b"l", count_only=True)
DELETE_ALL = RequestOp(request_delete_range=DeleteRangeRequest(b"k", b"l"))


def filled(lease: int = 0, hub: Any = None) -> Rig:
    rig = Rig(steps=1, hub=hub)
    if lease:
        rig.run(LeaseGrantRequest(60, lease))
    for n in range(KEYS):
        rig.run(PutRequest(b"k%04d" % n, b"v", lease=lease))
    return rig


def slices(rig: Rig, body: Body) -> Iterator[Outcome | None]:
    """The slices of a command, then its outcome."""
    work = rig.machine.apply(command(rig.next_index, body), 0.0)
    assert not isinstance(work, Outcome)
    while True:
        yield None
        try:
            next(work)
        except StopIteration as stop:
            yield stop.value
            return


def count(rig: Rig, revision: int = 0) -> int:
    request = RangeRequest(b"k", b"l", count_only=True, revision=revision)
    work = rig.machine.store.range(request, CountedBudget(1), 1 << 30)
    return finish(work, CountedBudget(1)).count


@pytest.mark.parametrize(
    "body",
    [
        DeleteRangeRequest(b"k", b"l"),
        LeaseRevokeRequest(5),
        TxnRequest([], [DELETE_ALL, RequestOp(request_put=PutRequest(b"z", b"v"))]),
    ],
    ids=["delete", "revoke", "txn"],
)
def test_readers_see_the_last_published_revision_until_all_is_done(body):
    rig = filled(lease=5)
    before = rig.machine.store.revision
    seen = 0
    for outcome in slices(rig, body):
        seen += 1
        if outcome is None:
            assert rig.machine.store.revision == before
            assert rig.machine.applied_index == KEYS + 1
            assert count(rig) == KEYS
            assert rig.machine.store.get(b"k0000") is not None
            assert rig.machine.store.get(b"z") is None
            assert len(rig.machine.store.history(b"k0000", 0)) == 1
            assert rig.machine.store.log_end == KEYS
            assert rig.hub.published[-1][0] == before
        else:
            assert outcome.revision == before + 1
    assert seen > KEYS // 64
    assert count(rig) == 0
    assert count(rig, before) == KEYS
    # Too many to hand around: watchers read the log.
    assert rig.hub.published[-1] == (before + 1, None)
    assert rig.machine.applied_index == KEYS + 2


@pytest.mark.parametrize(("keys", "handed"), [(100, True), (101, False), (140, False)])
def test_a_revision_is_handed_to_watchers_whole_or_not_at_all(keys, handed):
    rig = Rig(watch_records_max=100)
    for n in range(keys):
        rig.run(PutRequest(b"k%04d" % n))
    rig.run(DeleteRangeRequest(b"k", b"l"))
    revision, records = rig.hub.published[-1]
    assert revision == keys + 2
    if handed:
        assert records == [KeyValue(b"k%04d" % n, 0, revision) for n in range(keys)]
    else:
        assert records is None


def test_nothing_else_is_applied_or_captured_in_the_middle():
    rig = filled()
    work = slices(rig, DeleteRangeRequest(b"k", b"l"))
    next(work)
    with pytest.raises(AssertionError):
        rig.machine.apply(command(rig.next_index, PutRequest(b"a")), 0.0)
    with pytest.raises(AssertionError):
        rig.machine.capture()
    for _ in work:
        pass
    rig.run(PutRequest(b"a"))


def test_an_error_after_a_pause_changes_nothing():
    rig = filled()
    compare = Compare(0, 0, b"k", version=1, range_end=b"l")
    keep = RequestOp(request_put=PutRequest(b"missing", ignore_value=True))
    *_, outcome = slices(rig, TxnRequest([compare], [DELETE_ALL, keep]))
    assert outcome is not None
    assert outcome.response == ErrorKind.KEY_NOT_FOUND.error()
    assert count(rig) == KEYS
    rig.run(PutRequest(b"a"))


def test_a_small_command_never_pauses():
    rig = Rig(steps=1)
    for n in range(63):
        rig.run(PutRequest(b"k%04d" % n))
    for body in (
        TxnRequest([Compare(0, 0, b"k0000", version=1)], [RequestOp(request_range=ALL)]),
        DeleteRangeRequest(b"k", b"l"),
    ):
        assert isinstance(rig.machine.apply(command(rig.next_index, body), 0.0), Outcome)


def test_sweeping_goes_on_beside_a_huge_command():
    rig = filled()
    other = filled()
    for machine in (rig.machine, other.machine):
        machine.store.compact(KEYS)
    sweeping = rig.machine.store.sweep(CountedBudget(1))
    for outcome in slices(rig, DeleteRangeRequest(b"k", b"l")):
        if outcome is None:
            next(sweeping, None)
    other.run(DeleteRangeRequest(b"k", b"l"))
    assert rig.machine.effects_hash == other.machine.effects_hash
    assert captured(rig.machine) == captured(other.machine)


def test_a_half_applied_command_can_be_thrown_away():
    rig = filled()
    work = rig.machine.apply(
        command(
            rig.next_index,
            TxnRequest([], [RequestOp(request_range=RangeRequest(b"k", b"l")), DELETE_ALL]),
        ),
        0.0,
    )
    assert not isinstance(work, Outcome)
    work.close()
    assert count(rig) == KEYS


def test_the_hub_of_watchers_takes_what_is_published():
    hub = WatchHub()
    rig = filled(hub=hub)
    hub.rebase(rig.machine.store)
    rig.run(PutRequest(b"a"))
    rig.run(DeleteRangeRequest(b"k", b"l"))
    assert hub.reader is rig.machine.store
