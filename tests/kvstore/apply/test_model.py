"""Random commands against their plain meaning; determinism; snapshots in the middle of it all."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.apply import StateMachine
from kvstore.budget import CountedBudget, finish
from kvstore.errors import KvError, StateError
from kvstore.mvcc.checks import check_txn
from kvstore.mvcc.store import Store
from kvstore.types import LeaseGrantRequest, LeaseId, RangeRequest, RangeResponse, TxnRequest
from tests.kvstore.apply.naive import Naive
from tests.kvstore.apply.strategies import bodies
from tests.kvstore.apply.support import Rig, captured, command
from tests.kvstore.mvcc.model import small_blocks

EVERYTHING = RangeRequest(b"\0", b"\0")


def proposable(body: object) -> bool:
    """Whether the service would let it through."""
    if isinstance(body, TxnRequest):
        try:
            check_txn(body, 128)
        except KvError:
            return False
    return True


# With leases to begin with, for most commands need one to do anything with it.
GRANTS = [LeaseGrantRequest(60, 1), LeaseGrantRequest(60, 2)]
commands = st.lists(bodies.filter(proposable), max_size=25).map(lambda more: GRANTS + more)


def everything_at(store: Store, revision: int) -> RangeResponse:
    request = RangeRequest(b"\0", b"\0", revision=revision)
    return finish(store.range(request, CountedBudget(1), 1 << 40), CountedBudget(1))


def surface(machine: StateMachine) -> tuple:
    """All that can be seen of a machine."""
    store = machine.store
    first = max(store.compacted_revision, 1)
    return (
        store.revision,
        store.compacted_revision,
        store.key_count,
        [
            finish(
                store.range(
                    RangeRequest(b"\0", b"\0", revision=revision), CountedBudget(1), 1 << 40
                ),
                CountedBudget(1),
            )
            for revision in range(first, store.revision + 1)
        ],
        store.log_slice(store.log_position(first), 1 << 30)[0],
        list(machine.lessor.export()),
        [machine.lessor.keys(LeaseId(row[0])) for row in machine.lessor.export()],
        machine.members,
        machine.alarms,
        machine.cluster_version,
        machine.effects_hash,
        machine.applied_index,
        machine.applied_term,
        list(machine.origins.rows()),
    )


@settings(max_examples=120)
@given(commands)
def test_commands_do_what_they_say(bodies):
    with small_blocks():
        rig = Rig()
        naive = Naive()
        for body in bodies:
            expected = naive.run(body)
            outcome = rig.run(body)
            assert outcome.response == expected
            model = naive.model
            store = rig.machine.store
            assert outcome.revision == store.revision == model.revision
            found = store.range(EVERYTHING, CountedBudget(1), 1 << 40)
            assert finish(found, CountedBudget(1)) == model.range(EVERYTHING)
            for lease in map(LeaseId, (1, 2, 3)):
                assert rig.machine.lessor.exists(lease) == (lease in naive.leases)
                assert rig.machine.lessor.keys(lease) == (
                    naive.lease_keys(lease) if lease in naive.leases else []
                )
        heard = [(revision, records) for revision, records in rig.hub.published]
        revisions = sorted({record.mod_revision for record in naive.model.log})
        assert heard == [
            (revision, [r for r in naive.model.log if r.mod_revision == revision])
            for revision in revisions
        ]


@given(commands, st.integers(1, 3), st.data())
def test_equal_entries_make_equal_members_whatever_their_budgets(bodies, steps, data):
    with small_blocks():
        first, second = Rig(), Rig(steps=steps)
        for body in bodies:
            entry = command(first.next_index, body)
            assert first.apply(entry) == second.apply(entry)
            assert first.machine.effects_hash == second.machine.effects_hash
            if data.draw(st.booleans()):
                finish(second.machine.store.sweep(CountedBudget(1)), CountedBudget(1))
        assert b"".join(captured(first.machine)) == b"".join(captured(second.machine))


@given(commands, commands, st.data())
def test_a_snapshot_is_the_state_as_of_its_index(before, after, data):
    with small_blocks():
        rig = Rig()
        for body in before:
            rig.run(body)
        if data.draw(st.booleans()):
            finish(rig.machine.store.sweep(CountedBudget(1)), CountedBudget(1))
        expected = surface(rig.machine)
        capture = rig.machine.capture()
        assert (capture.index, capture.term) == (rig.machine.applied_index, 1)
        chunks = []
        reading = capture.chunks()
        more = list(after)
        # The state goes on changing while it is written out.
        for chunk in reading:
            chunks.append(chunk)
            if more:
                rig.run(more.pop(0))
            finish(rig.machine.store.sweep(CountedBudget(1)), CountedBudget(1))
        for body in more:
            rig.run(body)
        capture.close()
        loaded = rig.reload(chunks)
        assert surface(loaded.machine) == expected
        # And goes on as the original did.
        for body in after:
            loaded.run(body)
        assert surface(loaded.machine) == surface(rig.machine)


@given(commands, st.data())
def test_a_cut_snapshot_is_refused(bodies, data):
    rig = Rig()
    for body in bodies:
        rig.run(body)
    stream = b"".join(captured(rig.machine))
    cut = data.draw(st.integers(0, len(stream) - 1))
    with pytest.raises(StateError):
        rig.reload([stream[:cut]])
