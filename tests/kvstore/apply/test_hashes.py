"""What is hashed and captured is the state of one moment, whatever is written meanwhile."""

from kvstore.apply.hashes import hash_state, hash_versions
from kvstore.budget import CountedBudget, finish
from kvstore.types import CompactionRequest, PutRequest
from tests.kvstore.apply.support import Rig, captured

VERSIONS = 200
COMPACTED = 195


def swept_rig() -> Rig:
    """Few versions at the end of a log that is full of holes."""
    rig = Rig()
    for number in range(VERSIONS):
        rig.run(PutRequest(b"k", b"%d" % number))
    rig.run(CompactionRequest(COMPACTED))
    budget = CountedBudget(10)
    finish(rig.machine.store.sweep(budget), budget)
    return rig


def test_a_capture_of_a_log_with_holes_ends_where_it_was_captured():
    rig = swept_rig()
    before = captured(rig.machine)
    capture = rig.machine.capture()
    for number in range(VERSIONS):
        rig.run(PutRequest(b"k", b"later %d" % number))
    assert b"".join(capture.chunks()) == b"".join(before)
    capture.close()
    assert rig.reload(before).machine.store.revision == VERSIONS + 1


def test_a_hash_of_a_log_with_holes_ends_at_its_revision():
    rig = swept_rig()
    store = rig.machine.store
    budget = CountedBudget(1)
    before = finish(hash_versions(store, VERSIONS, budget), budget)
    for number in range(VERSIONS):
        rig.run(PutRequest(b"k", b"later %d" % number))
    work = hash_versions(store, VERSIONS, budget)
    next(work)
    assert store.is_pinned
    rig.run(CompactionRequest(VERSIONS))
    assert finish(work, budget) == before
    assert not store.is_pinned


def test_hashing_the_state_lets_go_of_it():
    rig = swept_rig()
    budget = CountedBudget(1)
    work = hash_state(rig.machine.capture(), budget)
    next(work)
    assert rig.machine.store.is_pinned, "it is done within a slice"
    work.close()
    finish(hash_state(rig.machine.capture(), budget), budget)
    assert not rig.machine.store.is_pinned, "somebody still holds it"
