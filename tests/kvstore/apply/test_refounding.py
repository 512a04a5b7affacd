"""A state that becomes another cluster's: nothing of the keys is lost, nothing of members stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.apply import StateMachine, refound
from kvstore.apply.refounding import REVISION_MAX
from kvstore.budget import CountedBudget, finish
from kvstore.errors import ErrorKind, KvError, StateError
from kvstore.types import (
    AlarmAction,
    AlarmMember,
    AlarmRequest,
    AlarmType,
    LeaseId,
    Member,
    MemberId,
    PutRequest,
)
from tests.kvstore.apply.support import MEMBERS, Rig, captured, noop
from tests.kvstore.apply.test_model import commands, everything_at, surface
from tests.kvstore.auth.support import BOTH, user
from tests.kvstore.mvcc.model import small_blocks

NEW = [Member(7, "a", ("http://new:1",)), Member(11, "b", ("http://new:2",))]
LOG_IDS = {MemberId(7): 70, MemberId(11): 110}
STATE = slice(0, 7)
"""Of ``surface``: keys at every revision, the log, leases with their keys."""


def kept(machine: StateMachine) -> tuple:
    """All that does not tell of members."""
    return (
        *surface(machine)[STATE],
        machine.cluster_version,
        machine.effects_hash,
        machine.applied_index,
        machine.applied_term,
        machine.auth.enabled,
        machine.auth.revision,
        list(machine.auth.export_users()),
        list(machine.auth.export_roles()),
    )


def furnished(bodies: list, *, swept: bool = False) -> Rig:
    rig = Rig()
    for body in [*user("ann", (BOTH, b"a", b"b")), *bodies]:
        rig.run(body)
    if swept:
        finish(rig.machine.store.sweep(CountedBudget(1)), CountedBudget(1))
    return rig


@given(commands, commands, st.booleans())
def test_whatever_the_state_it_is_the_same_but_for_the_members(bodies, after, swept):
    with small_blocks():
        rig = furnished(bodies, swept=swept)
        before = kept(rig.machine)
        loaded = rig.reload(captured(rig.machine))
        refound(loaded.machine, NEW, LOG_IDS)
        again = loaded.reload(captured(loaded.machine))
        assert kept(again.machine) == before
        assert again.machine.roster.listed() == NEW
        assert again.machine.roster.log_ids == LOG_IDS
        assert (again.machine.roster.removed, again.machine.roster.version) == ({}, 0)
        # It goes on as the old one would have, also for members whose ids came again with a lower
        # incarnation.
        for body in after:
            rig.run(body)
            again.run(body, incarnation=0)
        assert kept(again.machine) == kept(rig.machine)


@given(commands, commands, st.integers(1, 1 << 40), st.booleans())
def test_a_revision_that_rises_is_compacted_below(bodies, after, bump, swept):
    with small_blocks():
        rig = furnished(bodies, swept=swept)
        store = rig.machine.store
        last = store.revision
        newest = everything_at(store, last)
        refound(rig.machine, NEW, LOG_IDS, bump_revision=bump)
        again = rig.reload(captured(rig.machine))
        for machine in (rig.machine, again.machine):
            store = machine.store
            assert (store.revision, store.compacted_revision) == (last + bump, last + bump)
            assert everything_at(store, last + bump).kvs == newest.kvs
            with pytest.raises(KvError) as refusal:
                store.readable(last)
            assert refusal.value == ErrorKind.COMPACTED.error()
        for body in after:
            assert rig.run(body) == again.run(body)
        finish(rig.machine.store.sweep(CountedBudget(1)), CountedBudget(1))
        assert captured(again.machine) == captured(rig.machine)


def test_alarms_and_commands_of_the_old_members_go_with_them():
    rig = furnished([AlarmRequest(AlarmAction.ACTIVATE, 7, AlarmType.NOSPACE)])
    assert list(rig.machine.alarms) == [AlarmMember(7, AlarmType.NOSPACE)]
    assert rig.ask(PutRequest(b"a")) == ErrorKind.NO_SPACE.error()
    refound(rig.machine, NEW, LOG_IDS)
    assert not rig.machine.alarms
    assert list(rig.machine.origins.rows()) == []
    assert not isinstance(rig.ask(PutRequest(b"a"), incarnation=0, sequence=1), KvError)


def test_a_state_of_no_entry_counts_as_of_the_first():
    rig = Rig()
    refound(rig.machine, NEW, LOG_IDS)
    assert (rig.machine.applied_index, rig.machine.applied_term) == (1, 1)
    rig.apply(noop(2))


def test_a_revision_beyond_what_can_be_counted_is_refused_and_changes_nothing():
    rig = furnished([])
    last = rig.machine.store.revision
    with pytest.raises(StateError, match="cannot rise"):
        refound(rig.machine, NEW, LOG_IDS, bump_revision=REVISION_MAX)
    assert rig.machine.store.revision == last
    assert rig.machine.roster.listed() == MEMBERS
    refound(rig.machine, NEW, LOG_IDS, bump_revision=REVISION_MAX - last)
    assert rig.machine.lessor.keys(LeaseId(1)) == []
