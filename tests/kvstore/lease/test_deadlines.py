"""The heap of deadlines against a plain dict."""

import hypothesis.strategies as st
from hypothesis import given

from kvstore.lease.deadlines import STALE_ENTRIES_MIN, Deadlines
from kvstore.types import LeaseId

steps = st.lists(
    st.tuples(st.sampled_from(["set", "forget", "pop"]), st.integers(1, 6), st.integers(0, 50))
)


@given(steps)
def test_what_is_due_comes_once_and_the_earliest_first(steps):
    deadlines = Deadlines()
    model: dict[LeaseId, float] = {}
    for step, number, at in steps:
        lease_id = LeaseId(number)
        if step == "set":
            deadlines.set(lease_id, at)
            model[lease_id] = at
        elif step == "forget":
            deadlines.forget(lease_id)
            model.pop(lease_id, None)
        else:
            due = sorted((when, which) for which, when in model.items() if when <= at)
            assert deadlines.pop_due(at) == (due[0][1] if due else None)
            if due:
                del model[due[0][1]]
        assert len(deadlines) == len(model)
        assert (lease_id in deadlines) == (lease_id in model)


def test_churn_does_not_grow_the_heap():
    deadlines = Deadlines()
    for number in range(10_000):
        deadlines.set(LeaseId(number), 1e9 - number)
        deadlines.forget(LeaseId(number))
    assert len(deadlines._heap) <= STALE_ENTRIES_MIN
    for number in range(10_000):
        deadlines.set(LeaseId(1), 1e9 - number)
    assert len(deadlines._heap) <= STALE_ENTRIES_MIN + 2


def test_a_renewal_leaves_the_heap_alone():
    deadlines = Deadlines()
    deadlines.set(LeaseId(1), 10)
    for number in range(1000):
        deadlines.set(LeaseId(1), 11 + number)
    assert len(deadlines._heap) == 1
    assert deadlines.pop_due(1009) is None
    assert deadlines.pop_due(1010) == 1
