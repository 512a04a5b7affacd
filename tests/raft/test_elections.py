"""Terms, votes, elections, and how leaders go.

Raft §5.1, §5.2, §5.4.1; thesis §3.10, §4.2.3, §6.2, §9.6.
"""

# Ids, terms and indexes are written as plain numbers here.
# mypy: disable-error-code="arg-type,assignment"

import pytest

from raft.config import RaftConfig
from raft.errors import ConfigError, PeerError, RejectReason
from raft.events import Persisted, ReadIndex, TransferLeader
from raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    Heartbeat,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raft.types import NO_NODE, Configuration, Role

from .cluster import ELECTION_TICKS, Cluster
from .lab import Lab


def request(term, *, last=(0, 0), sender=2, pre_vote=False, transfer=False):
    return RequestVote(sender, 1, term, last[0], last[1], pre_vote, transfer)


def reply_to(lab):
    (reply,) = lab.take().sent(RequestVoteReply)
    return reply


# ---------------------------------------------------------------------------------- terms (§5.1)


@pytest.mark.parametrize(
    "message",
    [
        Heartbeat(2, 1, 5, 0, 0),
        AppendEntries(2, 1, 5, 0, 0, 0, ()),
        RequestVote(2, 1, 5, 9, 4),
        AppendEntriesReply(2, 1, 5, False, 0),
        RequestVoteReply(2, 1, 5, granted=False),
    ],
)
@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE, Role.LEADER])
def test_paper_s5_1_a_newer_term_makes_a_follower_of_anybody(role, message):
    lab = Lab(term=1)
    if role is Role.CANDIDATE:
        lab.campaign()
    elif role is Role.LEADER:
        lab.lead()
        # A leader that was just heard by nobody would disregard the campaign (thesis §4.2.3).
        if isinstance(message, RequestVote):
            message = RequestVote(2, 1, 5, 9, 4, False, True)
    lab.hear(message)
    assert (lab.role(), lab.node.term) == (Role.FOLLOWER, 5)
    assert lab.take().hard_states[-1].term == 5


def test_paper_s5_1_a_stale_leader_is_told_and_not_obeyed():
    lab = Lab(term=7, log=[3])
    lab.hear(lab.append((1, 3), [4], term=4, commit=2), lab.heartbeat(4, commit=1))
    taken = lab.take()
    replies = taken.sent(AppendEntriesReply)
    assert [(each.term, each.accepted) for each in replies] == [(7, False)] * 2
    assert (lab.node.last_index, lab.node.commit_index, lab.node.leader) == (1, 0, NO_NODE)


def test_paper_s5_1_old_answers_mean_nothing():
    lab = Lab(term=3)
    lab.campaign()
    lab.hear(RequestVoteReply(2, 1, 3, granted=True), RequestVoteReply(3, 1, 3, granted=True))
    assert lab.role() is Role.CANDIDATE


# ------------------------------------------------------------------------------ elections (§5.2)


def test_paper_s5_2_a_follower_that_hears_nothing_campaigns():
    lab = Lab(term=1)
    taken = lab.tick_to_campaign()
    asked = taken.sent(RequestVote)
    assert [(each.receiver, each.term, each.pre_vote) for each in asked] == [
        (2, 2, True),
        (3, 2, True),
    ]
    lab.hear(lab.vote(2, pre_vote=True))
    assert (lab.role(), lab.node.term, lab.node.voted_for) == (Role.CANDIDATE, 2, 1)
    asked = lab.take().sent(RequestVote)
    assert [(each.receiver, each.term, each.pre_vote) for each in asked] == [
        (2, 2, False),
        (3, 2, False),
    ]


def test_paper_s5_2_a_follower_that_hears_its_leader_does_not():
    lab = Lab(term=1)
    for _ in range(5 * ELECTION_TICKS):
        lab.hear(lab.heartbeat(1)).tick()
    assert (lab.role(), lab.node.term, lab.node.leader) == (Role.FOLLOWER, 1, 2)


def test_paper_s5_2_election_timeouts_are_random_within_one_and_two():
    waited = set()
    for seed in range(60):
        lab = Lab(seed=seed)
        ticks = 0
        while lab.role() is Role.FOLLOWER:
            lab.tick()
            ticks += 1
        waited.add(ticks)
    assert waited == set(range(ELECTION_TICKS, 2 * ELECTION_TICKS))


@pytest.mark.parametrize(
    ("count", "others", "wins"), [(3, 0, False), (3, 1, True), (5, 1, False), (5, 2, True)]
)
def test_paper_s5_2_a_majority_elects(count, others, wins):
    lab = Lab(count)
    lab.campaign()
    lab.hear(*[lab.vote(peer) for peer in lab.peers[:others]])
    assert (lab.role() is Role.LEADER) is wins


def test_paper_s5_2_a_majority_of_refusals_ends_the_campaign():
    lab = Lab(5)
    lab.campaign()
    lab.hear(*[lab.vote(peer, granted=False) for peer in (2, 3)])
    assert lab.role() is Role.CANDIDATE
    lab.hear(lab.vote(4, granted=False))
    assert lab.role() is Role.FOLLOWER


def test_paper_s5_2_a_voter_is_counted_once_however_often_it_answers():
    lab = Lab(5)
    lab.campaign()
    lab.hear(*[lab.vote(2)] * 5)
    assert lab.role() is Role.CANDIDATE


def test_paper_s5_2_a_candidate_yields_to_the_leader_of_its_term():
    lab = Lab()
    lab.campaign()
    lab.hear(lab.append((0, 0), [1], term=1))
    assert (lab.role(), lab.node.leader) == (Role.FOLLOWER, 2)


def test_paper_s5_2_a_leader_keeps_beating():
    lab = Lab(heartbeat_ticks=2)
    lab.lead()
    beats = [[each.receiver for each in lab.tick().take().sent(Heartbeat)] for _ in range(4)]
    assert beats == [[], [2, 3], [], [2, 3]]


def test_paper_s5_2_two_leaders_of_one_term_are_a_peers_fault():
    lab = Lab()
    lab.lead()
    with pytest.raises(PeerError, match="claims to lead"):
        lab.hear(lab.heartbeat(lab.node.term))
    follower = Lab(term=3).hear(Lab(term=3).heartbeat(3, leader=2))
    with pytest.raises(PeerError, match="claims to lead"):
        follower.hear(follower.heartbeat(3, leader=3))


def test_a_single_voter_campaigns_at_once_and_leads_once_its_vote_is_durable():
    lab = Lab(1)
    assert lab.role() is Role.CANDIDATE
    effects = lab.node.take_effects()
    assert effects is not None
    assert lab.role() is Role.CANDIDATE
    lab.step(Persisted(effects.seq))
    assert lab.role() is Role.LEADER


@pytest.mark.parametrize(
    ("configuration", "at_once"),
    [
        (Configuration((1,), learners=(2,)), True),
        (Configuration((1,), voters_outgoing=(1, 2)), False),
        (Configuration((2,), learners=(1,)), False),
    ],
)
def test_only_a_single_voter_campaigns_at_once(configuration, at_once):
    assert (Lab(configuration).role() is Role.CANDIDATE) is at_once


def test_a_learner_never_campaigns():
    lab = Lab(Configuration((2, 3), learners=(1,)))
    lab.tick(5 * ELECTION_TICKS)
    assert (lab.role(), lab.take().sent(RequestVote)) == (Role.FOLLOWER, [])


# ------------------------------------------------------------------------- votes (§5.2, §5.4.1)


def test_paper_s5_2_one_vote_a_term_first_come_first_served():
    lab = Lab(term=1)
    lab.hear(request(2, sender=2))
    assert reply_to(lab).granted
    lab.hear(request(2, sender=3))
    assert not reply_to(lab).granted
    lab.hear(request(2, sender=2))
    assert reply_to(lab).granted, "the same candidate may ask again: its answer may be lost"


def test_i06_a_restarted_node_never_votes_twice_in_a_term():
    lab = Lab(term=2, voted_for=3)
    lab.hear(request(2, sender=2))
    assert not reply_to(lab).granted
    lab.hear(request(2, sender=3))
    assert reply_to(lab).granted


def test_i07_a_vote_in_a_term_known_before_is_written_as_well():
    lab = Lab(term=2)
    lab.hear(request(2))
    assert [(each.term, each.voted_for) for each in lab.take().hard_states] == [(2, 2)]


def test_i07_a_vote_leaves_only_after_it_is_durable():
    lab = Lab(term=1)
    lab.hear(request(2))
    effects = lab.node.take_effects()
    assert effects is not None
    assert effects.messages == []
    assert effects.hard_state is not None
    assert (effects.hard_state.term, effects.hard_state.voted_for) == (2, 2)
    assert isinstance(effects.messages_after_sync[0], RequestVoteReply)


@pytest.mark.parametrize(
    ("last", "granted"),
    [
        ((3, 2), True),  # equal
        ((4, 2), True),  # longer
        ((2, 2), False),  # shorter
        ((1, 3), True),  # of a newer term, though shorter
        ((9, 1), False),  # of an older term, though longer
    ],
)
@pytest.mark.parametrize("pre_vote", [False, True])
def test_paper_s5_4_1_no_vote_for_a_log_that_lacks_what_this_one_has(last, granted, pre_vote):
    lab = Lab(term=3, log=[1, 2, 2])
    lab.hear(request(4, last=last, pre_vote=pre_vote))
    assert reply_to(lab).granted is granted


def test_paper_s5_4_1_a_candidate_says_how_its_log_ends():
    lab = Lab(term=3, log=[1, 2, 2])
    asked = lab.campaign().sent(RequestVote)
    assert {(each.last_index, each.last_term) for each in asked} == {(3, 2)}


# ------------------------------------------------------------------- the own vote and the disk


def test_i11_the_own_vote_counts_only_once_it_is_durable():
    """Otherwise: win term 2 by a peer's vote, write an entry in term 2, crash before the own vote
    is on disk, come back in term 1, win term 2 again with another voter, write another entry there.
    """
    lab = Lab(term=1)
    lab.tick_to_campaign()
    lab.hear(lab.vote(2, pre_vote=True))
    effects = lab.node.take_effects()
    assert effects is not None
    lab.hear(lab.vote(2), lab.vote(3))
    assert lab.role() is Role.CANDIDATE, "even with everybody else's vote"
    lab.step(Persisted(effects.seq))
    assert lab.role() is Role.LEADER


def test_i11_an_older_write_does_not_make_the_vote_durable():
    lab = Lab(term=1)
    lab.hear(lab.append((0, 0), [1], term=1))
    old = lab.node.take_effects()
    assert old is not None
    while lab.role() is Role.FOLLOWER:
        lab.tick()
    lab.hear(lab.vote(2, pre_vote=True), lab.vote(3, pre_vote=True))
    new = lab.take(persist=False)
    lab.hear(lab.vote(2))
    lab.step(Persisted(old.seq))
    assert lab.role() is Role.CANDIDATE
    lab.step(Persisted(new.all[-1].seq))
    assert lab.role() is Role.LEADER


def test_requests_for_votes_wait_for_the_disk():
    lab = Lab(term=1)
    lab.tick_to_campaign()
    lab.hear(lab.vote(2, pre_vote=True))
    taken = lab.take(persist=False)
    assert taken.now == []
    assert len(taken.later) == 2


# ------------------------------------------------------------------------ pre-vote (thesis §9.6)


def test_thesis_s9_6_a_pre_vote_raises_no_term_and_costs_no_vote():
    lab = Lab(term=3)
    lab.hear(request(4, pre_vote=True, sender=2))
    reply = reply_to(lab)
    assert (reply.granted, reply.pre_vote, reply.term) == (True, True, 4)
    assert (lab.node.term, lab.node.voted_for) == (3, NO_NODE)
    lab.hear(request(4, sender=3))
    assert reply_to(lab).granted, "the pre-vote for node 2 binds nobody"


def test_thesis_s9_6_who_is_cut_off_raises_no_terms():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(3)
    cluster.tick(3, times=10 * ELECTION_TICKS)
    assert cluster[3].node.term == cluster[1].node.term == 1
    cluster.heal()
    cluster.tick(times=3)
    assert cluster[1].node.role is Role.LEADER
    assert cluster[3].node.leader == 1


def test_thesis_s9_6_a_refusal_tells_the_newer_term():
    lab = Lab(term=3)
    lab.hear(request(2, pre_vote=True))
    reply = reply_to(lab)
    assert (reply.granted, reply.term) == (False, 3)
    asking = Lab(term=1)
    asking.tick_to_campaign()
    asking.hear(RequestVoteReply(2, 1, 3, granted=False, pre_vote=True))
    assert (asking.role(), asking.node.term) == (Role.FOLLOWER, 3)


def test_thesis_s9_6_pre_votes_and_votes_are_not_mixed_up():
    lab = Lab(term=1)
    lab.tick_to_campaign()
    lab.hear(RequestVoteReply(2, 1, 1, granted=True))
    assert lab.role() is Role.PRE_CANDIDATE
    lab.hear(lab.vote(2, pre_vote=True))
    lab.take()
    lab.hear(RequestVoteReply(2, 1, 2, granted=True, pre_vote=True))
    assert lab.role() is Role.CANDIDATE


# ---------------------------------------------------------- stickiness, CheckQuorum (§4.2.3, §6.2)


@pytest.mark.parametrize("pre_vote", [False, True])
def test_thesis_s4_2_3_who_hears_a_leader_disregards_campaigns(pre_vote):
    lab = Lab(term=1).hear(Lab(term=1).heartbeat(1))
    lab.take()
    lab.tick(ELECTION_TICKS - 1)
    lab.hear(request(2, sender=3, last=(9, 1), pre_vote=pre_vote))
    assert lab.take().sent(RequestVoteReply) == []
    assert lab.node.term == 1
    lab.tick(1)
    lab.hear(request(2, sender=3, last=(9, 1), pre_vote=pre_vote))
    assert lab.role() is not Role.FOLLOWER or reply_to(lab).granted


def test_thesis_s4_2_3_a_leader_disregards_campaigns_too():
    lab = Lab()
    lab.lead()
    lab.hear(request(9, last=(9, 8)))
    assert (lab.role(), lab.take().sent(RequestVoteReply)) == (Role.LEADER, [])


def test_thesis_s6_2_a_leader_cut_off_from_the_majority_steps_down():
    lab = Lab(5)
    lab.lead_and_commit()
    for _ in range(3 * ELECTION_TICKS):
        lab.tick().hear(lab.alive(2), lab.alive(3))
    assert lab.role() is Role.LEADER
    lab.step(ReadIndex(9))
    for _ in range(2 * ELECTION_TICKS):
        if lab.role() is Role.LEADER:
            lab.hear(lab.alive(2)).tick()
    assert (lab.role(), lab.node.leader) == (Role.FOLLOWER, NO_NODE)
    assert [(each.context, each.reason) for each in lab.take().reads_rejected] == [
        (9, RejectReason.LEADERSHIP_LOST)
    ]


def test_a_node_whose_term_ran_ahead_gets_back_in():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster[3].node._core.term = 9
    cluster.tick(times=4 * ELECTION_TICKS)
    leader = cluster.wait_leader()
    assert leader.node.term > 9
    assert {host.node.leader for host in cluster.hosts.values()} == {leader.node_id}


# ----------------------------------------------------------------------- transfer (thesis §3.10)


def test_thesis_s3_10_leadership_goes_to_who_is_up_to_date():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1, b"a")
    cluster[1].step(TransferLeader(3))
    cluster.settle()
    assert cluster[3].node.role is Role.LEADER
    assert (cluster[1].node.role, cluster[1].node.leader) == (Role.FOLLOWER, 3)


def test_thesis_s3_10_the_target_is_brought_up_to_date_first():
    lab = Lab()
    lab.lead_and_commit()
    lab.propose(b"a")
    lab.take()
    lab.step(TransferLeader(2))
    assert lab.take().sent(TimeoutNow) == []
    lab.hear(lab.ack(3))
    assert lab.take().sent(TimeoutNow) == []
    lab.hear(lab.ack(2))
    assert [each.receiver for each in lab.take().sent(TimeoutNow)] == [2]


def test_thesis_s3_10_no_proposals_meanwhile_and_an_end_to_it():
    lab = Lab()
    lab.lead_and_commit()
    lab.step(TransferLeader(2))
    assert lab.node.transfer_target == 2
    lab.propose(b"a")
    assert [each.reason for each in lab.take().rejected] == [RejectReason.TRANSFERRING]
    for _ in range(ELECTION_TICKS):
        lab.tick().hear(lab.alive(2), lab.alive(3))
    assert (lab.role(), lab.node.transfer_target) == (Role.LEADER, NO_NODE)
    lab.propose(b"b")
    assert len(lab.take().accepted) == 1


def test_thesis_s3_10_the_campaign_goes_past_stickiness_and_pre_vote():
    lab = Lab(term=1).hear(Lab(term=1).heartbeat(1))
    lab.hear(TimeoutNow(2, 1, 1))
    asked = lab.take().sent(RequestVote)
    assert {(each.term, each.pre_vote, each.transfer) for each in asked} == {(2, False, True)}
    sticky = Lab(term=1).hear(Lab(term=1).heartbeat(1))
    sticky.hear(request(2, sender=3, transfer=True))
    assert reply_to(sticky).granted


@pytest.mark.parametrize("target", [1, 4, 9])
def test_thesis_s3_10_only_another_voter_can_take_over(target):
    lab = Lab(Configuration((1, 2, 3), learners=(4,)))
    lab.lead_and_commit()
    lab.step(TransferLeader(target))
    assert lab.node.transfer_target == NO_NODE
    follower = Lab().step(TransferLeader(2))
    assert follower.take().sent(TimeoutNow) == []


# ------------------------------------------------------------------------------------- strangers


def test_a_message_for_somebody_else_is_a_peers_fault():
    with pytest.raises(PeerError, match="node 2"):
        Lab().hear(Heartbeat(3, 2, 1, 0, 0))


def test_a_role_change_is_told_once():
    lab = Lab()
    lab.lead()
    assert lab.take().roles == []
    lab.hear(lab.heartbeat(9))
    told = lab.take().roles
    assert [(each.role, each.term, each.leader) for each in told] == [(Role.FOLLOWER, 9, 2)]


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"node_id": 0}, "node_id"),
        ({"node_id": 1, "heartbeat_ticks": 0}, "heartbeat_ticks"),
        ({"node_id": 1, "election_ticks": 1}, "election_ticks"),
        ({"node_id": 1, "inflight_appends_max": 0}, "inflight_appends_max"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(fields, complaint):
    with pytest.raises(ConfigError, match=complaint):
        RaftConfig(**fields)
