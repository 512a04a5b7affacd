"""A node whose log is damaged below an intact tail says nothing that counts, until a snapshot
covers what it may have acknowledged (invariants I17, I18).
"""

# Ids, terms and indexes are written as plain numbers here.
# mypy: disable-error-code="arg-type,assignment"

import pytest

from raft.errors import StorageError
from raft.events import Applied, PeerUnreachable, SnapshotSent, Tick, TransferLeader
from raft.invariants import InvariantChecker
from raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    HeartbeatReply,
    InstallSnapshot,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raft.types import Role, SnapshotMeta

from .chaos import Chaos
from .cluster import ELECTION_TICKS, Cluster, voters
from .lab import Lab, entries_of
from .test_chaos import SMALL


def mute(**more):
    return Lab(**{"term": 5, "commit": 0, "required": 8, **more})


def offer(index, term=4, in_term=5):
    return InstallSnapshot(2, 1, in_term, SnapshotMeta(index, term, voters(3)))


def wishes(taken):
    assert not any(each.accepted for each in taken.sent(AppendEntriesReply))
    return [each.required_index for each in taken.sent(AppendEntriesReply)]


# ------------------------------------------------------------------------------------ the mute one


@pytest.mark.parametrize("pre_vote", [False, True])
@pytest.mark.parametrize("term", [5, 6])
def test_i17_a_mute_node_grants_no_vote_and_no_pre_vote(pre_vote, term):
    lab = mute()
    lab.hear(RequestVote(2, 1, term, 99, 5, pre_vote))
    (reply,) = lab.take().sent(RequestVoteReply)
    assert not reply.granted


def test_i17_a_mute_node_follows_newer_terms_and_keeps_its_vote_in_its_own():
    lab = mute(voted_for=3)
    assert lab.node.voted_for == 3
    lab.hear(RequestVote(2, 1, 7, 99, 6))
    (state,) = lab.take().hard_states
    assert (state.term, state.voted_for) == (7, 0)


def test_i17_a_mute_node_does_not_campaign_by_the_clock_or_by_being_told():
    lab = mute()
    lab.tick(5 * ELECTION_TICKS)
    assert lab.role() is Role.FOLLOWER
    lab.hear(TimeoutNow(2, 1, 5))
    assert lab.role() is Role.FOLLOWER
    assert not lab.take().sent(RequestVote)


def test_i17_a_mute_node_alone_in_its_cluster_elects_nobody():
    lab = Lab(1, term=5, required=8)
    lab.tick(5 * ELECTION_TICKS)
    assert lab.role() is Role.FOLLOWER


def test_i17_a_mute_node_acknowledges_no_append_and_no_round_and_asks_instead():
    lab = mute()
    lab.hear(lab.append((0, 0), [1, 1, 1], term=5, commit=3))
    taken = lab.take()
    assert wishes(taken) == [8]
    assert not taken.entries
    assert lab.node.last_index == 0
    # Beyond what it holds, for it acknowledged that once: no reason to end.
    lab.hear(lab.heartbeat(5, commit=8))
    taken = lab.take()
    assert wishes(taken) == [8]
    assert not taken.sent(HeartbeatReply)
    assert not taken.committed
    # That one asks for no answer.
    lab.hear(lab.heartbeat(5, commit=8, number=0))
    assert not lab.take().all


def test_i18_only_a_snapshot_that_covers_what_it_may_have_acknowledged_ends_it():
    lab = mute()
    lab.hear(offer(7))
    taken = lab.take()
    assert wishes(taken) == [8]
    assert not taken.snapshots
    assert lab.node.required_index == 8
    lab.hear(offer(8))
    effects = lab.node.take_effects()
    assert effects is not None
    # Both wait for the mark: a node that comes back without it is mute.
    assert effects.snapshot == SnapshotMeta(8, 4, voters(3))
    (reply,) = effects.messages_after_sync
    assert (reply.accepted, reply.match_index) == (True, 8)
    assert lab.node.required_index == 0


def test_i18_once_it_has_the_snapshot_it_takes_part_as_any_other():
    lab = mute()
    lab.hear(offer(9))
    lab.take()
    lab.hear(lab.append((9, 4), [5, 5], term=5, commit=10), lab.heartbeat(5, commit=11, number=7))
    taken = lab.take()
    assert [each.match_index for each in taken.sent(AppendEntriesReply)] == [11]
    assert [each.read_round for each in taken.sent(HeartbeatReply)] == [7]
    assert [each.index for each in taken.committed] == [10, 11]
    lab.tick(2 * ELECTION_TICKS)
    assert lab.role() is Role.PRE_CANDIDATE


@pytest.mark.parametrize(("required", "log"), [(8, [1]), (0, [])])
def test_a_mute_node_begins_below_what_it_needs_and_without_entries(required, log):
    if not required:
        assert Lab(term=5, log=log).node.required_index == 0
        return
    with pytest.raises(StorageError, match="needs a snapshot at 8"):
        Lab(term=5, log=log, required=required)


BREAKS = [
    ("I17", lambda core: setattr(core, "role", Role.PRE_CANDIDATE)),
    ("I17", lambda core: setattr(core, "voted_for", 2)),
    ("I17", lambda core: core.messages_after_sync.append(HeartbeatReply(1, 2, 5, 3))),
    ("I17", lambda core: core.messages_after_sync.append(AppendEntriesReply(1, 2, 5, True, 3))),
    ("I17", lambda core: core.messages_after_sync.append(RequestVoteReply(1, 2, 5, True))),
    ("I17", lambda core: core.append(entries_of([1]))),
    ("I18", lambda core: setattr(core, "required_index", 7)),
    ("I18", lambda core: setattr(core, "required_index", 0)),
]


@pytest.mark.parametrize(("number", "break_it"), BREAKS)
def test_the_checker_bites(number, break_it):
    core = mute().node._core
    checker = InvariantChecker(core)
    break_it(core)
    with pytest.raises(AssertionError, match=number):
        checker.check(core)


# -------------------------------------------------------------------------------------- its leader


def leading_with_a_mute_follower(required):
    """Node 1 leads, its log is committed everywhere; then node 3 asks."""
    lab = Lab().lead_and_commit()
    lab.propose(b"a", b"b", b"c")
    lab.take()
    lab.hear(lab.ack(2), lab.ack(3))
    lab.take()
    assert lab.node.commit_index == lab.node.applied_index == 4
    return lab, AppendEntriesReply(3, 1, lab.node.term, False, 0, required_index=required)


def test_a_leader_answers_a_mute_follower_with_a_snapshot_though_it_has_the_log():
    lab, wish = leading_with_a_mute_follower(4)
    lab.hear(wish)
    assert lab.take().to(3, InstallSnapshot)
    assert lab.progress(3)["state"] == "snapshot"
    assert lab.node.snapshot_floor(3) == 4
    # It asks on, at every heartbeat, while the snapshot travels.
    lab.hear(wish)
    assert not lab.take().to(3, InstallSnapshot)
    lab.step(SnapshotSent(3, ok=True, index=4))
    lab.hear(lab.ack(3, 4))
    assert lab.progress(3)["state"] == "replicate"
    assert lab.node.snapshot_floor(3) == 0


def test_i18_what_a_mute_follower_acknowledged_before_stays_counted():
    lab = Lab().lead_and_commit()
    lab.propose(b"a")
    lab.take(persist=False)
    lab.hear(lab.ack(3))
    assert lab.node.commit_index == 1
    lab.hear(AppendEntriesReply(3, 1, lab.node.term, False, 0, required_index=2))
    lab.persisted(lab.node._outbox.seq)
    assert lab.node.commit_index == 2


def test_a_lost_or_failed_snapshot_is_sent_again():
    lab, wish = leading_with_a_mute_follower(4)
    lab.hear(wish)
    lab.take()
    lab.step(SnapshotSent(3, ok=False, index=0))
    lab.hear(wish)
    assert lab.take().to(3, InstallSnapshot)
    # It arrived, and the follower crashed before it was installed: it asks, and is heard in time.
    lab.step(SnapshotSent(3, ok=True, index=4))
    lab.hear(wish)
    assert not lab.take().to(3, InstallSnapshot)
    lab.step(PeerUnreachable(3))
    lab.hear(wish)
    assert lab.take().to(3, InstallSnapshot)
    lab.step(SnapshotSent(3, ok=True, index=4))
    for _ in range(5 * ELECTION_TICKS):
        lab.tick().hear(lab.alive(2), wish)
    assert lab.take().to(3, InstallSnapshot)


def test_nothing_but_a_snapshot_is_sent_to_a_mute_follower():
    lab, wish = leading_with_a_mute_follower(9)
    lab.hear(wish)
    lab.take()
    lab.propose(b"d")
    assert not lab.take().to(3, AppendEntries)


def test_an_idle_log_grows_until_it_covers_what_a_mute_follower_needs():
    lab, wish = leading_with_a_mute_follower(250)
    for _ in range(3):
        lab.hear(wish)
        assert not lab.take().to(3, InstallSnapshot)
        lab.hear(lab.ack(2))
        lab.take()
    lab.hear(wish)
    assert lab.take().to(3, InstallSnapshot)
    assert lab.node.last_index == 250


def test_a_log_that_is_not_idle_is_left_to_its_clients():
    lab, wish = leading_with_a_mute_follower(250)
    lab.propose(b"d")
    lab.hear(wish)
    assert lab.node.last_index == 5


def test_a_snapshot_for_a_mute_follower_waits_until_enough_is_applied():
    lab, wish = leading_with_a_mute_follower(5)
    lab.propose(b"d")
    lab.take()
    lab.hear(lab.ack(2))
    lab.take(apply=False)
    lab.hear(wish)
    assert not lab.take().to(3, InstallSnapshot)
    lab.step(Applied(5)).hear(wish)
    assert lab.take().to(3, InstallSnapshot)


def test_leadership_is_not_handed_to_a_mute_follower():
    lab, wish = leading_with_a_mute_follower(4)
    lab.hear(wish)
    lab.take()
    lab.step(TransferLeader(3))
    assert not lab.take().sent(TimeoutNow)
    lab.hear(lab.ack(3, 4))
    assert lab.take().sent(TimeoutNow)


# --------------------------------------------------------------------------------- whole clusters


def test_a_mute_node_and_one_other_elect_nobody_and_commit_nothing():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1)
    for number in (1, 3):
        cluster[number].crash()
    cluster[3].disk.lose_log()
    cluster[3].start()
    cluster.tick(times=10 * ELECTION_TICKS)
    assert cluster.leader() is None
    cluster[1].start()
    cluster.wait_leader()
    cluster.tick(times=ELECTION_TICKS)
    assert cluster[3].node.required_index == 0
    assert cluster[3].commands() == cluster[1].commands() == [b"x"]


def test_a_mute_node_is_rebuilt_by_the_leader_it_is_left_with():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1)
    for number in (2, 3):
        cluster[number].crash()
    cluster[3].disk.lose_log()
    cluster[3].start()
    # Its wishes tell the leader that it is not cut off.
    for _ in range(3 * ELECTION_TICKS):
        cluster.tick()
    assert cluster[3].node.required_index == 0
    cluster.propose(1, b"y")
    assert cluster[3].commands() == [b"x", b"y"]


def test_a_crash_before_the_mark_is_durable_brings_it_back_mute():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1)
    cluster[3].crash()
    cluster[3].disk.lose_log()
    cluster[3].start()
    required = cluster[3].node.required_index
    while not cluster[3].unsynced or not cluster[3].unsynced[-1].snapshot:
        for host in cluster.hosts.values():
            host.pump()
            if host is not cluster[3]:
                host.sync()
        for message in cluster.network:
            cluster.deliver(message)
        cluster.network.clear()
        cluster[1].step(Tick())
        cluster[3].pump()
        if not any(each.snapshot for each in cluster[3].unsynced):
            cluster[3].sync()
    cluster[3].crash()
    cluster[3].start()
    assert cluster[3].node.required_index == required
    cluster.tick(times=6 * ELECTION_TICKS)
    assert cluster[3].node.required_index == 0
    assert cluster[3].commands() == [b"x"]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("count", [3, 5])
def test_i18_raft_figure_3_holds_while_logs_of_a_minority_are_damaged(count, seed):
    cluster = Cluster(count, seed=300 + seed, **(SMALL if seed % 2 else {}))
    chaos = Chaos(cluster, damage=True)
    chaos.run(3000)
    chaos.finish()
    assert cluster.checker.committed_index > 5
    assert chaos.counts["_damage"] > 1
