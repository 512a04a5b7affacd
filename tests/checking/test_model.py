"""What judges take the store to mean is what the store does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.budget import CountedBudget, finish
from kvstore.commands import LeaseExpire
from kvstore.errors import ErrorKind, KvError
from kvstore.types import DeleteRangeRequest, LeaseId, PutRequest, TxnRequest
from tests.checking.model import Effect, LeaseEnd, State, without_headers
from tests.kvstore.apply.strategies import bodies
from tests.kvstore.apply.support import Rig
from tests.kvstore.apply.test_model import EVERYTHING, commands, proposable

if TYPE_CHECKING:
    from kvstore.commands import Body

NOT_MODELLED = (ErrorKind.LEASE_NOT_FOUND.error(), ErrorKind.COMPACTED.error())
"""Whether a lease is there, and what was compacted, is judged elsewhere."""
LEASES = (1, 2, 3)


class Pair:
    """A machine, and the model beside it."""

    def __init__(self) -> None:
        self.rig = Rig()
        self.state = State()

    def run(self, body: Body) -> None:
        lessor = self.rig.machine.lessor
        there = [lease for lease in LEASES if lessor.exists(LeaseId(lease))]
        told = self.rig.run(body).response
        ended = [lease for lease in there if not lessor.exists(LeaseId(lease))]
        if isinstance(body, LeaseExpire):
            # In the order in which they were named.
            ended.sort(key=body.ids.index)
        for lease in ended:
            self._apply(self.state.execute(LeaseEnd(lease)))
        if isinstance(body, PutRequest | DeleteRangeRequest | TxnRequest):
            self._compare(body, told)

    def _compare(self, body: PutRequest | DeleteRangeRequest | TxnRequest, told: object) -> None:
        if told in NOT_MODELLED:
            return
        effect = self.state.execute(body)
        if isinstance(told, KvError):
            assert effect.refusal is not None, f"{body} is refused: {told}"
            assert told == effect.refusal.error()
        else:
            assert effect.refusal is None, f"{body} is not refused"
            assert without_headers(told, body) == effect.response
            self._apply(effect)

    def _apply(self, effect: Effect) -> None:
        if effect.changes:
            revision = self.state.revision + 1
            self.state.apply(effect.changes, revision)
            assert dict(self.rig.hub.published)[revision] == effect.changes

    def check(self) -> None:
        """Both hold the same."""
        store = self.rig.machine.store
        assert store.revision == self.state.revision
        found = finish(store.range(EVERYTHING, CountedBudget(1), 1 << 40), CountedBudget(1))
        assert found == self.state.execute(EVERYTHING).response
        for lease in LEASES:
            assert self.rig.machine.lessor.keys(LeaseId(lease)) == self.state.attached(lease)


@settings(max_examples=150)
@given(commands)
def test_a_command_does_in_the_model_what_it_does_in_a_member(bodies: list[Body]) -> None:
    pair = Pair()
    for body in bodies:
        pair.run(body)
        pair.check()


@given(commands, st.lists(bodies.filter(proposable), max_size=10))
def test_what_was_done_is_taken_back(bodies: list[Body], more: list[Body]) -> None:
    pair = Pair()
    for body in bodies:
        pair.run(body)
    state = pair.state
    before, held = dict(state.keys), [state.attached(lease) for lease in LEASES]
    undone = [
        state.apply(state.execute(body).changes, state.revision + 1)
        for body in more
        if isinstance(body, PutRequest | DeleteRangeRequest | TxnRequest)
    ]
    for undo in reversed(undone):
        state.take_back(undo, state.revision - 1)
    assert dict(state.keys) == before
    assert [state.attached(lease) for lease in LEASES] == held
    pair.check()
