"""Linearizable reads without a log entry (thesis §6.4)."""

# Ids, terms and indexes are written as plain numbers here.
# mypy: disable-error-code="arg-type,assignment"

import pytest

from raft.errors import RejectReason
from raft.events import Applied, ProposeMembership, ReadIndex
from raft.messages import Heartbeat, HeartbeatReply, ReadIndexReply, ReadIndexRequest
from raft.types import Configuration, Role

from .cluster import ELECTION_TICKS, Cluster
from .lab import Lab


def contexts(taken):
    return [(each.context, each.index) for each in taken.reads]


def rejections(taken):
    return [(each.context, each.reason) for each in taken.reads_rejected]


# ----------------------------------------------------------------------------------- the leader


def test_thesis_s6_4_a_leader_asks_a_majority_whether_it_still_leads():
    lab = Lab().lead_and_commit()
    lab.step(ReadIndex(7))
    taken = lab.take()
    beats = taken.sent(Heartbeat)
    assert [each.receiver for each in beats] == [2, 3]
    assert contexts(taken) == []
    lab.hear(lab.alive(2))
    assert contexts(lab.take()) == [(7, 1)]


def test_thesis_s6_4_reads_that_wait_share_a_round():
    lab = Lab().lead_and_commit()
    lab.step(ReadIndex(1), ReadIndex(2))
    assert len(lab.take().sent(Heartbeat)) == 2
    lab.step(ReadIndex(3), ReadIndex(4))
    assert lab.take().sent(Heartbeat) == [], "one round at a time"
    first = lab.alive(2)
    lab.hear(first)
    taken = lab.take()
    assert contexts(taken) == [(1, 1), (2, 1)]
    assert len(taken.sent(Heartbeat)) == 2, "the next round begins at once"
    lab.hear(first)
    assert contexts(lab.take()) == [], "an answer to an earlier round confirms nothing"
    lab.hear(lab.alive(3))
    assert contexts(lab.take()) == [(3, 1), (4, 1)]


def test_thesis_s6_4_a_heartbeat_from_before_the_read_confirms_nothing():
    lab = Lab().lead_and_commit()
    lab.tick().take()
    earlier = lab.alive(2)
    lab.step(ReadIndex(7))
    lab.take()
    lab.hear(earlier)
    assert contexts(lab.take()) == []


def test_a_later_heartbeat_confirms_as_well():
    lab = Lab().lead_and_commit()
    lab.step(ReadIndex(7))
    lab.take()
    lab.tick().take()
    lab.hear(lab.alive(2))
    assert contexts(lab.take()) == [(7, 1)], "the round's own heartbeats may all be lost"


def test_thesis_s6_4_no_read_before_an_entry_of_this_term_is_committed():
    """A new leader may not know yet what its predecessors committed."""
    lab = Lab(term=3, log=[1, 2], commit=1)
    lab.lead()
    lab.step(ReadIndex(7))
    lab.take()
    lab.tick().take()
    lab.hear(lab.alive(2), lab.alive(3))
    assert contexts(lab.take()) == []
    lab.hear(lab.ack(2))
    lab.take()
    lab.hear(lab.alive(2))
    assert contexts(lab.take()) == [(7, 3)]


def test_i14_no_read_before_its_index_is_applied():
    lab = Lab().lead_and_commit()
    lab.propose(b"a")
    lab.take()
    lab.hear(lab.ack(2))
    lab.take(apply=False)
    lab.step(ReadIndex(7))
    lab.take(apply=False)
    lab.hear(lab.alive(2))
    assert contexts(lab.take(apply=False)) == []
    lab.step(Applied(2))
    assert contexts(lab.take()) == [(7, 2)]


def test_a_single_voter_needs_no_round():
    lab = Lab(1)
    lab.take()
    lab.step(ReadIndex(7))
    assert contexts(lab.take()) == [(7, 1)]


def test_learners_confirm_nothing():
    lab = Lab(Configuration((1, 2, 3), learners=(4, 5)))
    lab.lead_and_commit()
    lab.step(ReadIndex(7))
    lab.take()
    lab.hear(lab.alive(4), lab.alive(5))
    assert contexts(lab.take()) == []


def test_a_joint_configuration_confirms_by_both_majorities():
    lab = Lab(Configuration((1, 2, 3), learners=(4, 5))).lead_and_commit()
    lab.step(ProposeMembership(0, Configuration((1, 4, 5))), ReadIndex(7))
    assert lab.node.configuration.voters_outgoing == (1, 2, 3)
    lab.take()
    lab.hear(lab.alive(2), lab.alive(3))
    assert contexts(lab.take()) == []
    lab.hear(lab.alive(4))
    assert len(contexts(lab.take())) == 1


def test_a_leader_that_steps_down_rejects_what_waits():
    lab = Lab().lead_and_commit()
    lab.step(ReadIndex(1))
    lab.take()
    lab.step(ReadIndex(2))
    lab.hear(ReadIndexRequest(3, 1, lab.node.term, 40))
    lab.hear(lab.heartbeat(lab.node.term + 1))
    taken = lab.take()
    assert rejections(taken) == [
        (1, RejectReason.LEADERSHIP_LOST),
        (2, RejectReason.LEADERSHIP_LOST),
    ]
    assert [(each.receiver, each.round, each.ok) for each in taken.sent(ReadIndexReply)] == [
        (3, 40, False)
    ]


def test_the_answer_of_a_heartbeat_that_was_never_sent_is_a_peers_fault():
    lab = Lab().lead_and_commit()
    with pytest.raises(Exception, match="never sent"):
        lab.hear(lab.alive(2, 99))


# ---------------------------------------------------------------------------------- a follower


def following(**settings):
    lab = Lab(term=1, log=[1, 1], commit=1, **settings)
    lab.hear(lab.heartbeat(1))
    lab.take()
    return lab


def test_thesis_s6_4_a_follower_asks_its_leader_and_answers_itself():
    lab = following()
    lab.step(ReadIndex(1), ReadIndex(2))
    (question,) = lab.take().sent(ReadIndexRequest)
    lab.step(ReadIndex(3))
    assert lab.take().sent(ReadIndexRequest) == [], "one question at a time"
    lab.hear(ReadIndexReply(2, 1, 1, question.round, 2))
    taken = lab.take()
    assert contexts(taken) == [], "entry 2 is not applied here yet"
    (second,) = taken.sent(ReadIndexRequest)
    assert second.round != question.round
    lab.hear(lab.heartbeat(1, commit=2))
    assert contexts(lab.take()) == [(1, 2), (2, 2)]
    lab.hear(ReadIndexReply(2, 1, 1, question.round, 2))
    assert contexts(lab.take()) == [], "an old answer"
    lab.hear(ReadIndexReply(2, 1, 1, second.round, 2))
    assert contexts(lab.take()) == [(3, 2)]


def test_a_leader_answers_its_followers_by_its_own_round():
    lab = Lab().lead_and_commit()
    lab.hear(ReadIndexRequest(3, 1, 1, 40))
    assert lab.take().sent(ReadIndexReply) == []
    lab.hear(lab.alive(2))
    (reply,) = lab.take().sent(ReadIndexReply)
    assert (reply.receiver, reply.round, reply.index, reply.ok) == (3, 40, 1, True)


def test_a_follower_that_reads_hears_at_once_of_the_commit_that_it_waits_for():
    lab = Lab().lead_and_commit()
    lab.propose(b"a")
    lab.take()
    lab.hear(lab.ack(2))
    lab.take()
    lab.hear(ReadIndexRequest(3, 1, 1, 40))
    beats = lab.take().to(3, Heartbeat)
    assert [each.commit_index for each in beats] == [1], "it may not have the entry"
    lab.hear(lab.alive(2), lab.ack(3))
    taken = lab.take()
    assert [each.index for each in taken.sent(ReadIndexReply)] == [2]
    assert [each.commit_index for each in taken.to(3, Heartbeat)] == [2]


def test_a_question_to_who_does_not_lead_is_refused():
    lab = following()
    lab.hear(ReadIndexRequest(3, 1, 1, 40))
    (reply,) = lab.take().sent(ReadIndexReply)
    assert (reply.round, reply.ok) == (40, False)
    asking = following()
    asking.step(ReadIndex(1))
    (question,) = asking.take().sent(ReadIndexRequest)
    asking.hear(ReadIndexReply(2, 1, 1, question.round, 0, ok=False))
    assert rejections(asking.take()) == [(1, RejectReason.NOT_READY)]


def test_a_lost_question_is_asked_again():
    lab = following()
    lab.step(ReadIndex(1))
    (question,) = lab.take().sent(ReadIndexRequest)
    again = lab.tick(2).take().sent(ReadIndexRequest)
    assert [each.round for each in again] == [question.round]


def test_without_a_leader_reads_are_rejected():
    lab = Lab().step(ReadIndex(1))
    assert rejections(lab.take()) == [(1, RejectReason.NO_LEADER)]
    lost = following()
    lost.step(ReadIndex(1))
    lost.take()
    lost.step(ReadIndex(2))
    lost.tick(2 * ELECTION_TICKS)
    assert rejections(lost.take()) == [
        (1, RejectReason.LEADERSHIP_LOST),
        (2, RejectReason.LEADERSHIP_LOST),
    ]


def test_an_answer_to_a_former_life_answers_nothing():
    """A question asked before a restart was answered late: its index may be too old for a question
    asked after it. Different lives have different numbers.
    """
    rounds = []
    for seed in (1, 2):
        lab = following(seed=seed)
        lab.step(ReadIndex(1))
        rounds += [each.round for each in lab.take().sent(ReadIndexRequest)]
    assert rounds[0] != rounds[1]
    assert min(rounds) > 2**32


@pytest.mark.parametrize("leads", [True, False])
def test_waiting_reads_are_bounded(leads):
    lab = Lab(pending_reads_max=3).lead_and_commit() if leads else following(pending_reads_max=3)
    lab.step(ReadIndex(1), ReadIndex(2))
    lab.take()
    lab.step(ReadIndex(3), ReadIndex(4))
    assert rejections(lab.take()) == [(4, RejectReason.NOT_READY)]


# ----------------------------------------------------------------------------------- a cluster


def test_thesis_s6_4_a_deposed_leader_answers_no_read():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1, b"old")
    cluster.isolate(1)
    cluster.tick(2, 3, times=3 * ELECTION_TICKS)
    leader = cluster.leader()
    assert leader is not None
    cluster.propose(leader.node_id, b"new")
    assert leader.commands() == [b"old", b"new"]
    assert cluster[1].node.role is Role.LEADER, "it does not know yet"
    cluster.read(1)
    cluster.settle()
    assert cluster[1].reads == []
    cluster.tick(1, times=3 * ELECTION_TICKS)
    assert len(cluster[1].reads_rejected) == 1


def test_every_node_reads_what_any_node_wrote():
    cluster = Cluster(3)
    cluster.elect(1)
    for number in (1, 2, 3):
        cluster.propose(number, b"%d" % number)
        for reader in (1, 2, 3):
            cluster.read(reader)
        cluster.settle()
    assert [len(host.reads) for host in cluster.hosts.values()] == [3, 3, 3]


def test_reads_survive_the_loss_of_some_messages():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.filters = [lambda message: isinstance(message, HeartbeatReply) and message.sender == 2]
    for number in (1, 2, 3):
        cluster.read(number)
    cluster.settle()
    assert [len(host.reads) for host in cluster.hosts.values()] == [1, 1, 1]
