"""A proposal that was sent twice counts once."""

import random

import pytest

from kvstore.apply.origins import Origins, Verdict
from kvstore.errors import ErrorKind, StateError
from kvstore.types import PutRequest
from tests.kvstore.apply.support import Rig


def test_every_sequence_counts_once_however_often_and_late_it_comes():
    rng = random.Random(3)
    origins = Origins()
    counted: dict[int, int] = {}
    unresolved: set[int] = set()
    sent = 0
    for _ in range(5000):
        if len(unresolved) < 40 and rng.random() < 0.5:
            sent += 1
            unresolved.add(sent)
        if not unresolved:
            continue
        low = min(unresolved)
        sequence = rng.choice(sorted(unresolved))
        if origins.admit(7, 1, sequence, rng.choice([0, low])) == Verdict.FRESH:
            counted[sequence] = counted.get(sequence, 0) + 1
        if rng.random() < 0.7:
            unresolved.discard(sequence)
    assert counted
    assert set(counted.values()) == {1}
    (row,) = origins.rows()
    # What is remembered is bounded by what was in flight.
    assert len(row[3]) <= 120


def test_below_the_watermark_everything_is_a_duplicate():
    origins = Origins()
    assert origins.admit(7, 1, 5, 3) == Verdict.FRESH
    assert origins.admit(7, 1, 2, 3) == Verdict.DUPLICATE
    assert origins.admit(7, 1, 3, 3) == Verdict.FRESH
    assert list(origins.rows()) == [(7, 1, 3, (3, 5))]


def test_a_watermark_may_leap():
    origins = Origins()
    for sequence in range(1, 300):
        origins.admit(7, 1, sequence, 0)
    assert origins.admit(7, 1, 1 << 60, (1 << 60) - 1) == Verdict.FRESH
    assert list(origins.rows()) == [(7, 1, (1 << 60) - 1, (1 << 60,))]


def test_a_command_that_hangs_leaves_little_to_let_go_of_when_it_is_settled():
    origins = Origins()
    for sequence in range(2, 20_001):
        assert origins.admit(7, 1, sequence, 1) == Verdict.FRESH
    # The watermark's step looks at each of these, and at nothing else.
    assert len(origins._origins[7].blocks) <= 20
    assert origins.admit(7, 1, 1, 1) == Verdict.FRESH
    assert origins.admit(7, 1, 20_001, 19_990) == Verdict.FRESH
    assert list(origins.rows()) == [(7, 1, 19_990, tuple(range(19_990, 20_002)))]
    assert len(origins._origins[7].blocks) == 1
    assert origins.admit(7, 1, 19_989, 1) == Verdict.DUPLICATE


def test_what_was_restored_counts_once_more_and_comes_out_again():
    row = (7, 1, 1000, (1000, 1023, 1024, 5000))
    origins = Origins()
    origins.restore(row)
    assert list(origins.rows()) == [row]
    for sequence in (1, 999, 1000, 1024, 5000):
        assert origins.has_applied(7, 1, sequence)
        assert origins.admit(7, 1, sequence, 0) == Verdict.DUPLICATE
    for sequence in (1001, 1025, 5001):
        assert not origins.has_applied(7, 1, sequence)
        assert origins.admit(7, 1, sequence, 0) == Verdict.FRESH


def test_a_new_life_starts_anew_and_the_old_one_is_stale():
    origins = Origins()
    origins.admit(7, 1, 1, 0)
    assert origins.admit(7, 2, 1, 0) == Verdict.FRESH
    assert origins.admit(7, 1, 2, 0) == Verdict.STALE
    assert origins.admit(9, 1, 1, 0) == Verdict.FRESH
    assert origins.has_applied(7, 2, 1)
    assert not origins.has_applied(7, 2, 2)


def test_a_member_is_named_once():
    origins = Origins()
    origins.restore((7, 1, 0, ()))
    with pytest.raises(StateError):
        origins.restore((7, 1, 0, ()))


def test_a_duplicate_has_no_effect_and_says_so():
    rig = Rig()
    first = rig.run(PutRequest(b"a", b"1"), sequence=5)
    again = rig.run(PutRequest(b"a", b"1"), sequence=5)
    assert (first.duplicate, again.duplicate) == (False, True)
    assert again.response is None
    assert (again.member, again.incarnation, again.sequence, again.index) == (7, 1, 5, 2)
    assert rig.machine.store.revision == first.revision == again.revision == 2
    assert rig.machine.applied_index == 2


def test_a_command_of_an_earlier_life_is_refused():
    rig = Rig()
    rig.run(PutRequest(b"a"), incarnation=2)
    stale = rig.run(PutRequest(b"b"), incarnation=1)
    assert stale.response == ErrorKind.STOPPED.error()
    assert not stale.duplicate
    assert rig.machine.store.key_count == 1
