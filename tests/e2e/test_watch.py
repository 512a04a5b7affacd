"""A watch delivers each event once, in order, on every node, through the leader's death."""

from __future__ import annotations

import threading
from functools import partial
from typing import NamedTuple

from kvstore.client import Client, Watch
from kvstore.types import EventType, PutRequest, RequestOp
from tests.e2e.cluster import Cluster
from tests.e2e.conftest import FigureMaker
from tests.e2e.processes import Member, wait_for
from tests.e2e.recorder import Recorder

FIRST_REVISION = 2
"""A fresh store is at revision 1."""
RECONNECT_SECONDS = 30.0
SECONDS = 20.0
PREFIX, END = b"w/", b"w0"


class Seen(NamedTuple):
    """What an event says."""

    revision: int
    type: EventType
    key: bytes
    value: bytes


def _write_history(client: Client) -> list[Seen]:
    """Puts, overwrites, deletes and transactions; returns the events in their order."""
    events = []
    for number in range(60):
        key, value = b"w/old/%d" % (number % 7), b"%d" % number
        if number % 5 == 4:
            response = client.delete(b"w/old/", b"w/old0")
            assert response.header is not None
            gone = sorted({b"w/old/%d" % (step % 7) for step in range(number - 4, number)})
            assert response.deleted == len(gone)
            events += [Seen(response.header.revision, EventType.DELETE, one, b"") for one in gone]
        elif number % 5 == 3:
            ops = [
                RequestOp(request_put=PutRequest(one, value)) for one in (b"w/both/1", b"w/both/2")
            ]
            header = client.txn([], [*ops, RequestOp(request_put=PutRequest(key, value))]).header
            assert header is not None
            events += [
                Seen(header.revision, EventType.PUT, one, value)
                for one in (b"w/both/1", b"w/both/2", key)
            ]
        else:
            header = client.put(key, value).header
            assert header is not None
            events.append(Seen(header.revision, EventType.PUT, key, value))
    return events


class Watcher:
    """A thread that watches over one member alone and keeps what it sees."""

    def __init__(self, member: Member) -> None:
        self.name = member.name
        self.seen: list[Seen] = []
        self.errors: list[Exception] = []
        self._client = member.client(RECONNECT_SECONDS)
        self._watch: Watch = self._client.watch(PREFIX, END, start_revision=FIRST_REVISION)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            for response in self._watch:
                for event in response.events:
                    assert event.kv is not None
                    self.seen.append(
                        Seen(event.kv.mod_revision, event.type, event.kv.key, event.kv.value)
                    )
        except Exception as error:  # noqa: BLE001 - a watch that ends must not end unseen
            self.errors.append(error)

    def has_seen(self, event: Seen) -> bool:
        """Whether this is the newest event it saw; or it failed, and will see no more."""
        return bool(self.errors) or self.seen[-1:] == [event]

    def close(self) -> None:
        """End the watch and its thread."""
        self._watch.close()
        self._thread.join(SECONDS)
        self._client.close()
        assert not self._thread.is_alive(), "the watch did not end"


def test_each_event_once_in_order_on_every_node_through_a_leader_change(
    cluster: Cluster, figure: FigureMaker
) -> None:
    with cluster.client() as client:
        expected = _write_history(client)
    watchers = [Watcher(member) for member in cluster.members]
    try:
        with Recorder(cluster.urls, b"w/new/") as recorder:
            recorder.wait_progress()
            victim = cluster.leader()
            victim.kill()
            recorder.wait_progress()
            victim.start()
            victim.wait_ready()
            recorder.wait_progress()
        with cluster.client() as client:
            pairs = client.get(b"w/new/", b"w/new0").kvs
        expected += sorted(
            Seen(pair.mod_revision, EventType.PUT, pair.key, pair.value) for pair in pairs
        )
        for watcher in watchers:
            wait_for(
                f"{watcher.name}'s watch has seen revision {expected[-1].revision}",
                partial(watcher.has_seen, expected[-1]),
                SECONDS,
            )
            assert watcher.errors == []
            assert watcher.seen == expected, watcher.name
    finally:
        for watcher in watchers:
            watcher.close()
    figure(
        f"watch: {len(expected)} events from revision {FIRST_REVISION}, each once and in order on "
        "each node, leader killed in the middle"
    )
