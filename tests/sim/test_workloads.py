"""The clients of a run do what they are there for, and what they see is recorded as it was."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import inf

import pytest

from kvstore.types import (
    Event,
    EventType,
    KeyValue,
    ResponseHeader,
    WatchCreateRequest,
    WatchResponse,
)
from tests.checking.history import History, Outcome, Watch
from tests.checking.violation import ViolationError
from tests.sim import workloads
from tests.sim.client import WORKER
from tests.sim.feed import seen_revision
from tests.sim.profile import Profile
from tests.sim.run import Report, run
from tests.sim.world import World
from tests.support.virtual_loop import VirtualLoop

CALLS = {
    "register": {"put", "range", "delete_range"},
    "append": {"range", "txn"},
    "bank": {"range", "txn"},
    "transactions": {"txn"},
    "leases": {
        "lease_grant",
        "put",
        "lease_keep_alive",
        "lease_time_to_live",
        "lease_leases",
        "lease_revoke",
    },
    "locks": {"lock", "unlock", "txn", "lease_keep_alive"},
    "candidate": {"campaign", "proclaim", "leader", "resign"},
    "observer": set(),
    "watches": set(),
    "administrator": {
        "user_add",
        "user_delete",
        "user_grant_role",
        "user_revoke_role",
        "user_change_password",
        "role_add",
        "role_delete",
        "role_grant_permission",
        "role_revoke_permission",
        "auth_enable",
        "auth_disable",
        "authenticate",
    },
    "visitor": {"put", "range", "delete_range", "txn"},
    "compaction": {"compact", "defragment"},
    "backups": set(),
    "hashes": {"hash_kv"},
    "large": {"put", "txn", "range", "delete_range", "lease_grant", "lease_revoke"},
    "members": {"member_add", "member_remove", "member_promote", "member_list", "member_update"},
    "leadership": {"status", "move_leader"},
}
"""What each workload gets done where nothing goes wrong."""


def calm(*names: str, seconds: float = 40.0, seed: int = 1, **settings: object) -> Report:
    """A run of some workloads without any fault."""
    profile = Profile(
        name="calm",
        seconds=seconds,
        faults={},
        workloads=dict.fromkeys(names, 2 if len(names) == 1 else 1),
        settings=settings,
    )
    report = run(seed, profile)
    assert report.violation is None, report.violation
    return report


def test_every_workload_is_described() -> None:
    assert CALLS.keys() == workloads.WORKLOADS.keys()


@pytest.mark.parametrize("name", CALLS)
def test_a_workload_gets_done_what_it_is_there_for(name: str) -> None:
    report = calm(name)
    done = Counter(call.method for call in report.history.operations if call.outcome is Outcome.OK)
    missing = {method for method in CALLS[name] if not done[method]}
    assert not missing, f"{name} never gets done: {missing}"
    for call in report.history.operations:
        assert (call.returned_at == inf) == (call.outcome is Outcome.UNKNOWN)


def test_a_client_has_one_call_under_way_and_another_number_after_an_unknown_outcome() -> None:
    profile = Profile(
        name="rough",
        faults={"crash": 1, "partition": 1},
        fault_every_seconds=1.0,
        workloads={"register": 3, "locks": 2},
    )
    report = run(2, profile)
    assert report.violation is None, report.violation
    busy_until: dict[int, float] = {}
    for call in report.history.operations:
        assert busy_until.get(call.client, 0.0) <= call.called_at
        busy_until[call.client] = call.returned_at
    assert inf in busy_until.values(), "no outcome was ever unknown"


def test_watchers_come_and_go_and_go_on_where_they_stopped() -> None:
    report = calm("watches", "register", "compaction")
    watches = report.history.watches
    assert report.marks["watcher resumed"]
    assert report.marks["watcher compacted"]
    again = [watch for watch in watches if watch.client == watches[0].client]
    assert {watch.ended for watch in watches} >= {"", "closed"}
    for before, after in pairwise(again):
        assert before.ended_at <= after.opened_at
        if seen_revision(before):
            assert after.request.start_revision == seen_revision(before) + 1
    assert any(response.events for watch in watches for _, response in watch.responses)


def test_who_needs_no_user_of_its_own_works_on_while_authentication_is_on() -> None:
    report = calm("administrator", "register", seconds=15.0)
    users = {
        call.user
        for call in report.history.operations
        if call.method == "put" and call.outcome is Outcome.OK
    }
    assert WORKER[0] in users


def test_hundreds_of_keys_are_deleted_in_slices() -> None:
    profile = Profile(
        name="slow", faults={}, workloads={"large": 1}, clock_costs=(0.000_3,), seconds=10.0
    )
    report = run(1, profile)
    assert report.violation is None, report.violation
    assert report.marks["huge command"]


# --- truth ----------------------------------------------------------------------------------------


def test_what_really_happened_is_known_though_history_was_compacted() -> None:
    report = calm("register", "compaction", seconds=10.0)
    truth = report.history.truth
    assert list(truth) == list(range(2, len(truth) + 2))
    assert report.marks["compaction applied"]
    for call in report.history.operations:
        if call.method == "put" and call.outcome is Outcome.OK and call.request.value:
            (event,) = truth[call.response.header.revision]
            assert event.kv is not None
            assert (event.kv.key, event.kv.value) == (call.request.key, call.request.value)


def told_otherwise(history: History, revision: int) -> None:
    """Falsify what is known of a revision."""
    kv = KeyValue(b"register/0", 2, revision, 1, b"never written")
    history.truth[revision] = [Event(EventType.PUT, kv)]


def test_a_member_that_applies_something_else_is_found_at_once() -> None:
    profile = Profile(name="calm", seconds=3.0, faults={}, workloads={"register": 1})
    loop = VirtualLoop()
    world = World(loop, 1, profile, [])
    begun = world.truth.on_turn
    turns = 0

    def falsify(host: object) -> None:
        nonlocal turns
        turns += 1
        if turns == 100:
            told_otherwise(world.history, world.truth.revision + 1)
        begun(host)  # type: ignore[arg-type]  # it is a Host

    world.truth.on_turn = falsify  # type: ignore[method-assign]
    try:
        with pytest.raises(ViolationError, match=r"equality: revision .*=never written"):
            loop.run_until_complete(world.run())
    finally:
        loop.close()


def test_a_member_that_comes_back_with_something_else_is_found() -> None:
    profile = Profile(name="calm", seconds=3.0, faults={}, workloads={"register": 1})
    loop = VirtualLoop()
    world = World(loop, 1, profile, [])

    async def run_and_restart() -> None:
        await world.run()
        told_otherwise(world.history, 5)
        host = world.cluster[1]
        world.crash(host)
        await world.start(host)
        await world.cluster.wait(lambda: world.violated.done())

    try:
        loop.run_until_complete(run_and_restart())
        assert "never written" in str(world.violated.result())
    finally:
        loop.close()


# --- what a watcher has seen ----------------------------------------------------------------------


def test_of_a_revision_in_fragments_the_rest_may_be_missing() -> None:
    events = [Event(EventType.PUT, KeyValue(b"k", 7, 7, 1, b"v"))]
    watch = Watch(1, 0, WatchCreateRequest(b"k"), 0.0)
    assert seen_revision(watch) == 0
    watch.responses.append((0.0, WatchResponse(ResponseHeader(revision=4), created=True)))
    assert seen_revision(watch) == 4
    part = WatchResponse(ResponseHeader(revision=7), fragment=True, events=events)
    watch.responses.append((0.0, part))
    assert seen_revision(watch) == 6
    watch.responses.append((0.0, WatchResponse(ResponseHeader(revision=7), events=events)))
    assert seen_revision(watch) == 7
    watch.responses.append((0.0, WatchResponse(ResponseHeader(revision=9))))
    assert seen_revision(watch) == 9
