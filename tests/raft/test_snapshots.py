"""Snapshots and what stays of the log (Raft §7)."""

# Ids, terms and indexes are written as plain numbers here.
# mypy: disable-error-code="arg-type,assignment"

import pytest

from raft.errors import PeerError
from raft.events import (
    Applied,
    LogCompacted,
    PeerUnreachable,
    Persisted,
    ReadIndex,
    SnapshotInstalled,
    SnapshotSent,
    Tick,
)
from raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    ReadIndexReply,
    ReadIndexRequest,
)
from raft.types import Configuration, Role, SnapshotMeta

from .cluster import ELECTION_TICKS, Cluster, voters
from .lab import Lab


def offer(index, term, *, in_term=5, configuration=None):
    meta = SnapshotMeta(index, term, configuration or voters(3))
    return InstallSnapshot(2, 1, in_term, meta)


# --------------------------------------------------------------------------------- the follower


def test_paper_s7_a_snapshot_takes_the_place_of_a_shorter_log():
    lab = Lab(term=3, log=[1, 1, 3])
    lab.hear(offer(9, 4))
    effects = lab.node.take_effects()
    assert effects is not None
    assert effects.snapshot == SnapshotMeta(9, 4, voters(3))
    assert effects.hard_state is not None
    assert (effects.hard_state.term, effects.hard_state.commit_index) == (5, 9)
    (reply,) = effects.messages_after_sync
    assert isinstance(reply, AppendEntriesReply)
    assert (reply.accepted, reply.match_index) == (True, 9)
    assert (lab.node.first_index, lab.node.last_index, lab.node.applied_index) == (10, 9, 0)
    lab.step(Persisted(effects.seq), SnapshotInstalled(effects.snapshot))
    assert (lab.node.stable_index, lab.node.applied_index) == (9, 9)
    lab.hear(lab.append((9, 4), [5], term=5, commit=10))
    assert [each.index for each in lab.take().committed] == [10]


def test_paper_s7_what_follows_a_matching_snapshot_is_kept_and_written_again():
    lab = Lab(term=4, log=[1, 1, 4, 4])
    lab.hear(offer(2, 1))
    effects = lab.node.take_effects()
    assert effects is not None
    assert effects.snapshot is not None
    assert [(each.index, each.term) for each in effects.entries] == [(3, 4), (4, 4)]
    assert (lab.node.first_index, lab.node.last_index) == (3, 4)
    assert lab.node.stable_index == 4, "they were durable all along"


def test_paper_s7_what_follows_a_snapshot_of_another_history_is_discarded():
    lab = Lab(term=4, log=[1, 3, 3, 3])
    lab.hear(offer(2, 4))
    taken = lab.take(persist=False)
    assert (lab.node.first_index, lab.node.last_index) == (3, 2)
    assert (taken.entries, lab.node.stable_index) == ([], 0)


def test_paper_s7_a_snapshot_that_is_no_news_is_answered_with_what_is_committed():
    lab = Lab(term=4, log=[1, 1, 4], commit=2)
    lab.hear(offer(2, 1))
    taken = lab.take()
    assert taken.snapshots == []
    (reply,) = taken.sent(AppendEntriesReply)
    assert (reply.accepted, reply.match_index) == (True, 2)
    assert lab.node.last_index == 3


def test_a_snapshot_of_an_old_leader_is_refused():
    lab = Lab(term=6)
    lab.hear(offer(9, 4, in_term=5))
    taken = lab.take()
    assert taken.snapshots == []
    assert [each.term for each in taken.sent(AppendEntriesReply)] == [6]


def test_thesis_s4_1_a_snapshot_brings_its_configuration():
    lab = Lab(term=4)
    five = voters(5)
    lab.hear(offer(9, 4, configuration=five))
    assert lab.node.configuration == five
    lab.take()
    assert lab.node.snapshot_meta(9) == SnapshotMeta(9, 4, five)


def test_nothing_is_applied_between_a_snapshot_and_its_installation():
    lab = Lab(term=4)
    lab.hear(offer(9, 4))
    taken = lab.take(apply=False)
    lab.hear(lab.append((9, 4), [5], term=5, commit=10))
    assert lab.take(apply=False).committed == []
    lab.tick(5 * ELECTION_TICKS)
    assert lab.role() is Role.FOLLOWER, "nor does it campaign"
    lab.step(SnapshotInstalled(taken.snapshots[0]))
    assert [each.index for each in lab.take().committed] == [10]


def test_i14_reads_wait_for_the_installation():
    lab = Lab(term=4)
    lab.hear(offer(9, 4))
    taken = lab.take(apply=False)
    lab.step(ReadIndex(1))
    (question,) = lab.take().sent(ReadIndexRequest)
    lab.hear(ReadIndexReply(2, 1, 5, question.round, 9))
    assert lab.take(apply=False).reads == []
    lab.step(SnapshotInstalled(taken.snapshots[0]))
    assert [(each.context, each.index) for each in lab.take().reads] == [(1, 9)]


def test_a_newer_snapshot_overtakes_one_that_waits():
    lab = Lab(term=4)
    lab.hear(offer(9, 4))
    first = lab.take(apply=False).snapshots[0]
    lab.hear(offer(20, 5))
    second = lab.take(apply=False).snapshots[0]
    lab.step(SnapshotInstalled(first))
    assert (lab.node.applied_index, lab.node._core.pending_snapshot) == (9, second)
    lab.step(SnapshotInstalled(second))
    assert (lab.node.applied_index, lab.node._core.pending_snapshot) == (20, None)


def test_a_write_under_way_does_not_outlive_the_snapshot_that_replaced_it():
    lab = Lab()
    lab.hear(lab.append((0, 0), [1, 1, 1], term=1))
    first = lab.node.take_effects()
    lab.hear(offer(2, 4))
    second = lab.node.take_effects()
    assert first is not None
    assert second is not None
    lab.step(Persisted(first.seq))
    assert lab.node.stable_index == 0
    lab.step(Persisted(second.seq))
    assert lab.node.stable_index == 2


def test_a_snapshot_of_nothing_is_a_peers_fault():
    with pytest.raises(PeerError, match="of nothing"):
        Lab().hear(InstallSnapshot(2, 1, 5))


# ----------------------------------------------------------------------------------- the leader


def lead_with_short_tail(**settings):
    """Ten entries are applied, two are held: follower 3 never answered."""
    lab = Lab(tail_entries_max=2, **settings)
    lab.lead_and_commit()
    for _ in range(3 * ELECTION_TICKS):
        lab.tick().hear(lab.alive(2))
    for _ in range(9):
        lab.propose(b"x")
        lab.take()
        lab.hear(lab.ack(2))
        lab.take()
    assert (lab.node.applied_index, lab.node.first_index) == (10, 9)
    return lab


def test_paper_s7_who_needs_what_is_gone_gets_a_snapshot():
    lab = lead_with_short_tail()
    lab.step(PeerUnreachable(3)).tick().hear(lab.alive(3))
    (asked,) = lab.take().sent(InstallSnapshot)
    assert (asked.receiver, asked.meta) == (3, None)
    assert lab.progress(3)["state"] == "snapshot"
    lab.propose(b"y")
    assert lab.take().to(3, AppendEntries) == [], "nothing else until it is there"


def test_no_snapshot_for_who_is_silent():
    lab = lead_with_short_tail()
    lab.step(PeerUnreachable(3))
    assert lab.take().sent(InstallSnapshot) == []


def test_a_snapshot_that_arrived_is_followed_by_what_came_after():
    lab = lead_with_short_tail()
    lab.step(PeerUnreachable(3)).tick().hear(lab.alive(3))
    lab.take()
    lab.step(SnapshotSent(3, True, 10))
    lab.propose(b"y")
    assert lab.take().to(3, AppendEntries) == [], "it may be still at the installation"
    lab.hear(lab.ack(3, 10))
    (append,) = lab.take().to(3, AppendEntries)
    assert (append.prev_index, lab.progress(3)["state"]) == (10, "replicate")


def test_a_snapshot_that_failed_is_tried_again_after_a_heartbeat():
    lab = lead_with_short_tail()
    lab.step(PeerUnreachable(3)).tick().hear(lab.alive(3))
    lab.take()
    lab.step(SnapshotSent(3, False, 0))
    assert lab.take().sent(InstallSnapshot) == []
    lab.tick().hear(lab.alive(3))
    assert len(lab.take().sent(InstallSnapshot)) == 1


def test_a_lost_report_of_an_installation_is_asked_for():
    lab = lead_with_short_tail()
    lab.step(PeerUnreachable(3)).tick().hear(lab.alive(3))
    lab.take()
    lab.step(SnapshotSent(3, True, 10))
    probes = []
    for _ in range(4 * ELECTION_TICKS):
        lab.tick().hear(lab.alive(2), lab.alive(3))
        probes += lab.take().to(3, AppendEntries)
    assert [each.prev_index for each in probes] == [10]
    again = lead_with_short_tail()
    again.step(PeerUnreachable(3)).tick().hear(again.alive(3))
    again.take()
    again.step(SnapshotSent(3, True, 10), PeerUnreachable(3))
    assert [each.prev_index for each in again.take().to(3, AppendEntries)] == [10]


def test_reports_about_snapshots_that_nobody_sends_change_nothing():
    lab = Lab().lead_and_commit()
    before = lab.node.progress()
    lab.step(SnapshotSent(2, True, 1), SnapshotSent(9, True, 1), PeerUnreachable(9))
    assert lab.node.progress() == before
    follower = Lab().step(SnapshotSent(2, True, 1), PeerUnreachable(2))
    assert follower.take().all == []


# -------------------------------------------------------------------------------- the log's tail


def test_the_tail_is_bounded_by_entries():
    lab = Lab(1, tail_entries_max=16)
    lab.take()
    for _ in range(100):
        lab.propose(b"x")
        lab.take()
    held = lab.node.last_index - lab.node.first_index + 1
    assert 16 <= held <= 16 + 2, "trimmed in steps of an eighth"
    lab.step(LogCompacted(lab.node.applied_index))
    assert lab.node.last_index - lab.node.first_index + 1 == 16


def test_the_tail_is_bounded_by_bytes():
    lab = Lab(1, tail_bytes_max=2000)
    lab.take()
    for _ in range(40):
        lab.propose(b"x" * 176)
        lab.take()
    lab.step(LogCompacted(lab.node.applied_index))
    assert lab.node.log_size_bytes == 2000


def test_what_is_not_applied_or_not_durable_is_never_trimmed():
    lab = Lab(1, tail_entries_max=1)
    lab.take()
    lab.propose(*[b"x"] * 20)
    lab.take(apply=False)
    assert lab.node.first_index == 1
    lab.step(Applied(21))
    assert lab.node.first_index == 21
    behind = Lab(tail_entries_max=1)
    behind.hear(behind.append((0, 0), [1] * 5, term=1, commit=5))
    behind.take(persist=False)
    assert (behind.node.applied_index, behind.node.first_index) == (5, 1)


def test_the_log_is_kept_for_followers_that_are_there():
    lab = Lab(tail_entries_max=2)
    lab.lead_and_commit()
    for _ in range(20):
        lab.propose(b"x")
        lab.take()
        lab.hear(lab.ack(2), lab.alive(3))
        lab.take()
    assert lab.node.first_index <= 2, "follower 3 lags, and lives"
    for _ in range(3 * ELECTION_TICKS):
        lab.tick().hear(lab.alive(2))
    lab.propose(b"x")
    lab.take()
    lab.hear(lab.ack(2))
    lab.take()
    assert lab.node.first_index == lab.node.last_index - 1, "it is silent by now"


def test_the_log_is_kept_for_what_follows_a_snapshot_under_way():
    """Otherwise a tail that turns over faster than a snapshot travels needs one after the other."""
    lab = lead_with_short_tail()
    lab.step(PeerUnreachable(3)).tick().hear(lab.alive(3))
    lab.take()
    for _ in range(3 * ELECTION_TICKS):
        lab.tick().hear(lab.alive(2))
        lab.propose(b"y")
        lab.take()
        lab.hear(lab.ack(2))
        lab.take()
    lab.step(SnapshotSent(3, True, 10))
    lab.hear(lab.ack(3, 10))
    assert lab.take().to(3, AppendEntries)[0].prev_index == 10


def test_even_a_held_log_is_bounded_by_bytes():
    lab = Lab(tail_entries_max=2, tail_bytes_max=1000)
    lab.lead_and_commit()
    for _ in range(40):
        lab.propose(b"x" * 76)
        lab.take()
        lab.hear(lab.ack(2), lab.alive(3))
        lab.take()
    assert lab.node.log_size_bytes <= 1000


# ------------------------------------------------------------------------------------ a cluster


def test_paper_s7_a_follower_that_was_away_comes_back_through_a_snapshot():
    cluster = Cluster(3, tail_entries_max=4)
    cluster.elect(1)
    cluster[3].crash()
    for number in range(30):
        cluster.propose(1, b"%d" % number)
        cluster.tick()
    assert cluster[1].node.first_index > 20
    cluster[3].start()
    cluster.tick(times=3)
    assert cluster[3].commands() == cluster[1].commands()
    assert cluster[3].disk.snapshot.index > 0


def test_paper_s7_a_node_restarts_from_its_snapshot_and_the_log_after_it():
    cluster = Cluster(Configuration((1,)))
    cluster.tick()
    for number in range(10):
        cluster.propose(1, b"%d" % number)
        if number == 4:
            cluster[1].compact()
    before = cluster[1].commands()
    cluster[1].crash()
    cluster[1].start()
    cluster.settle()
    assert cluster[1].commands() == before
    assert cluster[1].disk.entries[0].index == cluster[1].disk.snapshot.index + 1 > 1


def test_a_snapshot_crosses_the_wire_with_its_meta():
    cluster = Cluster(3, tail_entries_max=1)
    cluster.elect(1)
    cluster[2].crash()
    for _ in range(10):
        cluster.propose(1)
    cluster[2].start()
    for _ in range(3 * ELECTION_TICKS):
        for host in cluster.hosts.values():
            host.step(Tick())
        cluster.settle()
    assert cluster[2].disk.snapshot.configuration == voters(3)
