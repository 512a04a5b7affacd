"""Writes, compactions, requests and takes in any order: each event once, in order, whole."""

import random
from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from kvstore.types import FilterType, KeyValue, WatchCreateRequest
from kvstore.watch.hub import WatchHub
from kvstore.watch.limits import WatchLimits
from tests.kvstore.watch.fake_store import FakeStore, RealStore, Write
from tests.kvstore.watch.model import ModelStream

KEYS = [b"a", b"a1", b"a2", b"b", b"b\xff", b"c"]
RANGES = [
    *((key, b"") for key in KEYS),
    (b"a", b"b"),
    (b"b", b"c"),
    (b"a1", b"b\xff"),
    (b"b\xff", b"\0"),
    (b"", b"\0"),
    (b"x", b"y"),
]
FILTERS = [
    [],
    [],
    [FilterType.NOPUT],
    [FilterType.NODELETE],
    [FilterType.NODELETE, FilterType.NOPUT],
]
BYTES = [1, 200, 800, 10_000]


class Scenario:
    """A hub under small limits, two clients, and a model of each watcher."""

    def __init__(
        self, make_store: type[FakeStore] | type[RealStore], events: int, response: int, block: int
    ) -> None:
        self.store = make_store()
        self.hub = WatchHub(
            WatchLimits(
                pending_events_max=events,
                pending_bytes_max=400,
                response_bytes_max=response,
                block_records=block,
                blocks_max=3,
            )
        )
        self.hub.rebase(self.store)
        self.records: list[KeyValue] = []
        self.clients = [ModelStream(self.hub, self.records) for _ in range(2)]

    def write(self, writes: Sequence[Write], huge: bool) -> None:
        records = self.store.write(writes)
        if records:
            self.records += records
            if huge:
                self.hub.publish_range(self.store.revision)
            else:
                self.hub.publish(self.store.revision, records)

    def create(
        self, client: int, keys: tuple[bytes, bytes], back: int | None, filters: list, flags: int
    ) -> None:
        start = 0 if back is None else max(self.store.revision - back, 1)
        self.clients[client].create(
            WatchCreateRequest(
                key=keys[0],
                range_end=keys[1],
                start_revision=start,
                progress_notify=bool(flags & 1),
                filters=filters,
                prev_kv=bool(flags & 2),
                fragment=bool(flags & 4),
            )
        )

    def cancel(self, client: int, number: int) -> None:
        watchers = self.clients[client].watchers
        if watchers:
            self.clients[client].cancel(number % len(watchers))

    def compact(self, back: int) -> None:
        revision = self.store.revision - back
        if revision > self.store.compacted_revision:
            self.store.compact(revision)

    def install_snapshot(self, missed: Sequence[Sequence[Write]], back: int | None) -> None:
        newer = self.store.copy()
        for writes in missed:
            self.records += newer.write(writes)
        self.store = newer
        if back is not None:
            self.compact(back)
        self.store = self.store.copy()
        self.hub.rebase(self.store)

    def reconnect(self, client: int) -> None:
        self.clients[client].stream.close()
        self.clients[client] = ModelStream(self.hub, self.records)

    def check(self) -> None:
        limits = self.hub.limits
        alive = []
        for client in self.clients:
            if not client.ready:
                # Silence means that nothing is owed.
                client.check_settled()
            alive += [w for w in client.stream._watchers.values() if not w.closed]
        for watcher in alive:
            assert len(watcher.pending or ()) <= limits.pending_events_max
        assert self.hub.watchers >= len(alive)
        assert self.hub.lagging >= sum(not watcher.synced for watcher in alive)
        assert len(self.hub.catch_up.blocks) <= limits.blocks_max

    def finish(self) -> None:
        for client in self.clients:
            client.take_all()
            client.check_settled()
            assert not client.created
            assert not client.cancels


writes_of_a_revision = st.lists(
    st.tuples(st.sampled_from(KEYS), st.none() | st.binary(max_size=40)),
    min_size=1,
    max_size=12,
    unique_by=lambda write: write[0],
)
clients = st.integers(0, 1)


class WatchMachine(RuleBasedStateMachine):
    """Lets Hypothesis choose the steps, and find the fewest that fail."""

    make_store: type[FakeStore] | type[RealStore] = FakeStore

    @initialize(
        events=st.integers(1, 6),
        response=st.sampled_from([300, 1500]),
        block=st.sampled_from([1, 3, 8]),
    )
    def start(self, events: int, response: int, block: int) -> None:
        self.scenario = Scenario(self.make_store, events, response, block)

    @rule(writes=writes_of_a_revision, huge=st.booleans())
    def write(self, writes, huge):
        self.scenario.write(writes, huge)

    @rule(key=st.sampled_from(KEYS), count=st.integers(2, 20))
    def write_one_key_often(self, key, count):
        for number in range(count):
            self.scenario.write([(key, b"%d" % number)], huge=False)

    @rule(
        client=clients,
        keys=st.sampled_from(RANGES),
        back=st.none() | st.integers(-2, 12),
        filters=st.sampled_from(FILTERS),
        flags=st.integers(0, 7),
    )
    def create(self, client, keys, back, filters, flags):
        self.scenario.create(client, keys, back, filters, flags)

    @rule(client=clients, number=st.integers(0, 20))
    def cancel(self, client, number):
        self.scenario.cancel(client, number)

    @rule(client=clients, steps=st.integers(1, 4), bytes_max=st.sampled_from(BYTES))
    def take(self, client, steps, bytes_max):
        self.scenario.clients[client].take(steps, bytes_max)

    @rule(client=clients)
    def take_all(self, client):
        self.scenario.clients[client].take_all()

    @rule(back=st.integers(0, 6))
    def compact(self, back):
        self.scenario.compact(back)

    @rule(client=clients)
    def ask_progress(self, client):
        self.scenario.clients[client].ask_progress()

    @rule()
    def progress_tick(self):
        self.scenario.hub.progress_tick()

    @rule(missed=st.lists(writes_of_a_revision, max_size=3), back=st.none() | st.integers(0, 4))
    def install_snapshot(self, missed, back):
        self.scenario.install_snapshot(missed, back)

    @rule(client=clients)
    def reconnect(self, client):
        self.scenario.reconnect(client)

    @invariant()
    def the_model_agrees(self):
        if hasattr(self, "scenario"):
            self.scenario.check()

    def teardown(self) -> None:
        if hasattr(self, "scenario"):
            self.scenario.finish()


class RealWatchMachine(WatchMachine):
    make_store = RealStore


@pytest.mark.parametrize("machine", [WatchMachine, RealWatchMachine])
def test_each_watcher_is_told_each_event_once_in_order(machine):
    run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=30))


def random_writes(rng: random.Random) -> list[Write]:
    keys = rng.sample(KEYS, rng.randint(1, len(KEYS)))
    return [(key, None if rng.random() < 0.3 else rng.randbytes(rng.randrange(60))) for key in keys]


def random_step(scenario: Scenario, rng: random.Random) -> None:
    client = rng.randrange(2)
    step = rng.random()
    if step < 0.35:
        scenario.write(random_writes(rng), huge=rng.random() < 0.3)
    elif step < 0.5:
        back = rng.choice([None, rng.randint(-3, 12)])
        scenario.create(client, rng.choice(RANGES), back, rng.choice(FILTERS), rng.randrange(8))
    elif step < 0.85:
        scenario.clients[client].take(rng.randint(1, 5), rng.choice(BYTES))
    elif step < 0.88:
        scenario.clients[client].take_all()
    elif step < 0.91:
        scenario.compact(rng.randrange(7))
    elif step < 0.94:
        scenario.cancel(client, rng.randrange(20))
    elif step < 0.96:
        scenario.clients[client].ask_progress()
    elif step < 0.97:
        scenario.hub.progress_tick()
    elif step < 0.995:
        missed = [random_writes(rng) for _ in range(rng.randrange(3))]
        scenario.install_snapshot(missed, rng.choice([None, rng.randrange(5)]))
    else:
        scenario.reconnect(client)


@pytest.mark.parametrize("make_store", [FakeStore, RealStore])
@pytest.mark.parametrize("seed", range(40))
def test_long_random_runs_agree_with_the_model(make_store, seed):
    rng = random.Random(seed)
    scenario = Scenario(
        make_store, rng.randint(1, 6), rng.choice([300, 1500]), rng.choice([1, 2, 3, 8])
    )
    for _ in range(150):
        random_step(scenario, rng)
        scenario.check()
    scenario.finish()
