"""The store against full copies of every revision: writes, sweeps in slices and reads, mixed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kvstore.budget import CountedBudget, Sliced, finish
from kvstore.errors import KvError
from kvstore.mvcc.store import Store
from kvstore.types import KeyValue, RangeRequest
from tests.kvstore.mvcc.model import Model, in_range, small_blocks

if TYPE_CHECKING:
    from collections.abc import Callable

keys = st.sampled_from([b"a", b"aa", b"ab", b"b", b"ba", b"c", b"d\xff", b"e"])
range_ends = st.sampled_from([b"", b"", b"\0", b"ab", b"b", b"c", b"f"])
values = st.binary(max_size=3)
changes = st.one_of(
    st.tuples(st.just("put"), keys, values, st.sampled_from([0, 0, 7])),
    st.tuples(st.just("delete"), keys, range_ends),
)
bounds = st.sampled_from([0, 0, 0, 0, 2, 5, 9])
requests = st.builds(
    RangeRequest,
    key=keys,
    range_end=range_ends,
    limit=st.sampled_from([-1, 0, 0, 1, 2, 3]),
    sort_order=st.integers(0, 2),
    sort_target=st.integers(0, 4),
    keys_only=st.booleans(),
    count_only=st.sampled_from([False, False, True]),
    min_mod_revision=bounds,
    max_mod_revision=bounds,
    min_create_revision=bounds,
    max_create_revision=bounds,
)
BYTES_MAX = 1 << 30


def outcome(call: Callable[..., Any], *arguments: object) -> object:
    """What a call returns, or the error that it raises."""
    try:
        return call(*arguments)
    except KvError as error:
        return error


class StoreMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        # Blocks of eight slots for the whole run of the machine.
        self.blocks = small_blocks()
        self.blocks.__enter__()
        self.store = Store()
        self.model = Model()
        self.sweeping: Sliced[None] | None = None
        self.pins = 0

    def teardown(self) -> None:
        if hasattr(self, "blocks"):
            self.blocks.__exit__(None, None, None)

    def write(self, change: tuple) -> None:
        if change[0] == "put":
            _, key, value, lease = change
            self.check_previous(self.store.put(key, value, lease), key)
            self.model.put(key, value, lease)
            return
        _, low, range_end = change
        for key in sorted(k for k in self.model.state if in_range(k, low, range_end)):
            self.check_previous(self.store.delete(key), key)
            self.model.delete(key)
        if low not in self.model.state:
            assert self.store.delete(low) is None

    def check_previous(self, previous: KeyValue | None, key: bytes) -> None:
        assert previous == self.model.state.get(key)

    def publish(self) -> None:
        assert self.store.dirty == bool(self.model.pending)
        if self.store.dirty:
            self.store.publish()
        self.model.publish()

    @rule(change=changes)
    def one_write(self, change: tuple) -> None:
        self.write(change)
        self.publish()

    @rule(batch=st.lists(changes, max_size=12), request=requests)
    def many_writes_at_one_revision(self, batch: list[tuple], request: RangeRequest) -> None:
        for change in batch:
            self.write(change)
            # What is not published shows to nobody.
            assert self.store.revision == self.model.revision
            assert self.store.range_now(RangeRequest(change[1])) == self.model.range(
                RangeRequest(change[1])
            )
            assert self.store.get_written(change[1]) == self.model.state.get(change[1])
        request.revision = 0
        self.same_range(request)
        self.step_sweep(2)
        self.publish()

    @rule(data=st.data(), request=requests)
    def read_at_any_revision(self, data: st.DataObject, request: RangeRequest) -> None:
        request.revision = data.draw(st.integers(-1, self.model.revision + 1))
        self.same_range(request)

    def same_range(self, request: RangeRequest) -> None:
        def sliced(request: RangeRequest) -> object:
            return finish(self.store.range(request, CountedBudget(1), BYTES_MAX), CountedBudget(1))

        expected = outcome(self.model.range, request)
        assert outcome(sliced, request) == expected
        assert outcome(self.store.range_now, request) in (None, expected)

    @rule(data=st.data(), key=keys)
    def read_a_history(self, data: st.DataObject, key: bytes) -> None:
        start = data.draw(st.integers(max(self.model.compacted, 0), self.model.revision + 1))
        expected = [
            record
            for record in self.model.log
            if record.key == key and record.mod_revision >= start
        ]
        assert self.store.history(key, start) == expected
        assert self.store.history(key, start, 2) == expected[:2]

    @rule(data=st.data(), count=st.integers(1, 9))
    def read_the_log(self, data: st.DataObject, count: int) -> None:
        start = data.draw(st.integers(max(self.model.compacted, 1), self.model.revision + 1))
        seen: list[KeyValue] = []
        ordinal = self.store.log_position(start)
        while ordinal < self.store.log_end:
            records, ordinal = self.store.log_slice(ordinal, count)
            assert len(records) <= count
            seen += records
        assert seen == [record for record in self.model.log if record.mod_revision >= start]

    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        revision = data.draw(st.integers(self.model.compacted - 1, self.model.revision + 1))
        refused = outcome(self.model.compact, revision)
        assert outcome(self.store.compact, revision) == refused

    @rule(slices=st.integers(1, 4))
    def step_sweep(self, slices: int) -> None:
        budget = CountedBudget(1)
        if self.sweeping is None:
            self.sweeping = self.store.sweep(budget)
        for _ in range(slices):
            try:
                next(self.sweeping)
            except StopIteration:
                self.sweeping = None
                return

    @rule()
    def sweep_to_the_end(self) -> None:
        if self.sweeping is not None:
            finish(self.sweeping, CountedBudget(1))
            self.sweeping = None
        finish(self.store.sweep(CountedBudget(100)), CountedBudget(1))
        if self.pins:
            return
        assert not self.store.sweep_due
        kept = self.model.kept()
        assert self.store.log_slice(0, 1 << 30)[0] == kept
        assert self.store.size_bytes == sum(256 + len(r.key) + len(r.value) for r in kept)
        assert self.store.known_keys(b"", True, None, 100) == sorted({r.key for r in kept})

    @precondition(lambda self: self.pins < 2)
    @rule()
    def pin(self) -> None:
        self.store.pin()
        self.pins += 1

    @precondition(lambda self: self.pins)
    @rule()
    def unpin(self) -> None:
        self.store.unpin()
        self.pins -= 1

    @invariant()
    def surface(self) -> None:
        if hasattr(self, "store"):
            assert self.store.revision == self.model.revision
            assert self.store.compacted_revision == self.model.compacted
            assert self.store.key_count == len(self.model.state)
            kept = self.store.survivors(self.store.log_slice(0, 1 << 30)[0], self.model.compacted)
            assert list(kept) == self.model.kept()


TestStoreModel = StoreMachine.TestCase
TestStoreModel.settings = settings(max_examples=40, stateful_step_count=30)
