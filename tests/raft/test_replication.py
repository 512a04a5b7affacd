"""How entries get into logs and become committed.

Raft §5.3, §5.4.2, §8, figures 7 and 8; thesis §10.2.1.
"""

# Ids, terms and indexes are written as plain numbers here.
# mypy: disable-error-code="arg-type,assignment"

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft.errors import PeerError, StorageError
from raft.events import PeerUnreachable, Persisted, Propose, TellCommit
from raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    ForwardProposals,
    Heartbeat,
    HeartbeatReply,
)
from raft.types import EntryKind, Proposal, Role

from .lab import Lab


def refuse(lab, peer, prev, conflict):
    return AppendEntriesReply(
        peer, lab.node_id, lab.node.term, False, 0, prev, conflict[0], conflict[1]
    )


# ---------------------------------------------------------------------- taking proposals (§5.3)


def test_paper_s5_3_a_leader_appends_persists_and_sends():
    lab = Lab().lead_and_commit()
    lab.propose(b"a", b"b")
    taken = lab.take(persist=False)
    assert [(each.index, each.term, each.data) for each in taken.entries] == [
        (2, 1, b"a"),
        (3, 1, b"b"),
    ]
    assert [(each.token, each.index, each.term) for each in taken.accepted] == [
        (0, 2, 1),
        (1, 3, 1),
    ]
    appends = [each for each in taken.now if isinstance(each, AppendEntries)]
    assert [(each.receiver, each.prev_index, len(each.entries)) for each in appends] == [
        (2, 1, 2),
        (3, 1, 2),
    ]
    assert appends[0].entries[0].encoded is taken.entries[0].encoded, "encoded once"


def test_paper_s5_3_an_entry_is_committed_once_a_majority_has_it():
    lab = Lab(5).lead_and_commit()
    lab.propose(b"a")
    lab.take()
    lab.hear(lab.ack(2))
    assert lab.node.commit_index == 1
    lab.hear(lab.ack(3))
    assert lab.node.commit_index == 2
    assert [each.data for each in lab.take().committed] == [b"a"]


def commit_on_two_of_three(*followers_with_clients):
    """A leader of three committed an entry, which node 2 is known to have."""
    lab = Lab().lead_and_commit()
    for follower in followers_with_clients:
        lab.hear(ForwardProposals(follower, 1, 1, (Proposal(7, b"a"),)))
    if not followers_with_clients:
        lab.propose(b"a")
    lab.take()
    lab.hear(lab.ack(2))
    return lab


def told(taken):
    return [(each.receiver, each.commit_index) for each in taken.sent(Heartbeat)]


def test_the_news_of_a_commit_travels_with_the_next_append():
    lab = commit_on_two_of_three()
    assert told(lab.take()) == []
    assert lab.node.is_commit_untold
    lab.propose(b"b")
    appends = lab.take().sent(AppendEntries)
    assert [(each.receiver, each.commit_index) for each in appends] == [(2, 2), (3, 2)]
    assert not lab.node.is_commit_untold
    assert told(lab.step(TellCommit()).take()) == []


def test_the_news_of_a_commit_travels_alone_when_no_append_comes():
    lab = commit_on_two_of_three()
    lab.take()
    assert told(lab.step(TellCommit()).take()) == [(2, 2)], "node 3 may not have it"
    assert not lab.node.is_commit_untold
    lab.hear(lab.ack(3))
    assert told(lab.take()) == []
    assert lab.node.is_commit_untold
    assert told(lab.step(TellCommit()).take()) == [(3, 2)]
    assert told(lab.step(TellCommit()).take()) == [], "once is enough"


def test_the_news_of_a_commit_reaches_a_follower_whose_window_is_full():
    lab = Lab(5, inflight_appends_max=2).lead_and_commit()
    for data in (b"a", b"b", b"c"):
        lab.propose(data)
        lab.take()
        lab.hear(*([lab.ack(2)] if data == b"a" else []))
    lab.hear(lab.ack(3))
    assert lab.take().committed
    assert lab.node.is_commit_untold
    lab.propose(b"d")
    assert lab.take().to(2, AppendEntries) == []
    assert (2, 2) in told(lab.step(TellCommit()).take())


def test_a_probe_is_not_taken_to_have_told_of_a_commit():
    lab = commit_on_two_of_three()
    lab.step(PeerUnreachable(2)).take()
    lab.hear(lab.ack(2))
    lab.take()
    assert lab.node.is_commit_untold
    assert (2, 2) in told(lab.step(TellCommit()).take())


def test_a_follower_whose_clients_wait_hears_of_the_commit_at_once():
    lab = commit_on_two_of_three(2)
    assert told(lab.take()) == [(2, 2)]
    lab.hear(lab.ack(3))
    assert told(lab.take()) == []
    lab.propose(b"b")
    lab.take()
    lab.hear(lab.ack(2))
    assert told(lab.take()) == [], "that one is not its client's"


def test_a_heartbeat_tells_of_a_commit_as_well():
    lab = commit_on_two_of_three()
    lab.take()
    assert told(lab.tick().take()) == [(2, 2), (3, 1)]
    assert told(lab.step(TellCommit()).take()) == []


def test_word_of_a_commit_alone_asks_for_no_answer():
    lab = Lab(term=1, log=[1])
    lab.hear(lab.heartbeat(1, commit=1, number=0))
    taken = lab.take()
    assert [each.index for each in taken.committed] == [1]
    assert taken.sent(HeartbeatReply) == []
    lab.hear(lab.heartbeat(1, commit=1, number=1))
    assert len(lab.take().sent(HeartbeatReply)) == 1


def test_paper_s5_3_committed_entries_come_in_order_and_once():
    lab = Lab().lead_and_commit()
    seen = []
    for number in range(5):
        lab.propose(b"%d" % number)
        lab.take()
        lab.hear(lab.ack(2), lab.ack(3), lab.ack(2))
        seen += lab.take().committed
    assert [each.index for each in seen] == [2, 3, 4, 5, 6]


def test_thesis_s10_2_1_a_leader_counts_itself_only_once_it_is_durable():
    lab = Lab().lead_and_commit()
    lab.propose(b"a")
    effects = lab.node.take_effects()
    assert effects is not None
    assert effects.messages, "followers are sent it before the disk has it"
    lab.hear(lab.ack(2))
    assert lab.node.commit_index == 1, "one follower of three is no majority"
    lab.step(Persisted(effects.seq))
    assert lab.node.commit_index == 2


def test_thesis_s10_2_1_followers_alone_may_commit():
    lab = Lab().lead_and_commit()
    lab.propose(b"a")
    lab.take(persist=False)
    lab.hear(lab.ack(2), lab.ack(3))
    assert (lab.node.commit_index, lab.node.stable_index) == (2, 1)
    assert [each.data for each in lab.take(persist=False).committed] == [b"a"]


def test_a_follower_acknowledges_after_its_own_sync():
    lab = Lab()
    lab.hear(lab.append((0, 0), [1, 1], term=1))
    effects = lab.node.take_effects()
    assert effects is not None
    assert (effects.messages, len(effects.entries)) == ([], 2)
    (reply,) = effects.messages_after_sync
    assert isinstance(reply, AppendEntriesReply)
    assert (reply.accepted, reply.match_index) == (True, 2)


# ----------------------------------------------------------------------- the log's match (§5.3)


@pytest.mark.parametrize(
    ("prev", "accepted"),
    [((0, 0), True), ((3, 2), True), ((2, 1), True), ((3, 3), False), ((4, 2), False)],
)
def test_paper_s5_3_an_append_must_follow_what_is_there(prev, accepted):
    lab = Lab(term=4, log=[1, 1, 2])
    lab.hear(lab.append(prev, [], term=4))
    (reply,) = lab.take().sent(AppendEntriesReply)
    assert reply.accepted is accepted


@pytest.mark.parametrize(
    ("prev", "terms", "after"),
    [
        ((3, 2), [], [1, 1, 2]),
        ((3, 2), [4], [1, 1, 2, 4]),
        ((2, 1), [2], [1, 1, 2]),
        ((2, 1), [4], [1, 1, 4]),
        ((0, 0), [1], [1, 1, 2]),
        ((0, 0), [4], [4]),
        ((1, 1), [3, 3], [1, 3, 3]),
    ],
)
def test_paper_s5_3_only_what_conflicts_is_cut(prev, terms, after):
    lab = Lab(term=4, log=[1, 1, 2])
    lab.hear(lab.append(prev, terms, term=4))
    taken = lab.take()
    assert lab.log_terms() == after
    (reply,) = taken.sent(AppendEntriesReply)
    assert (reply.accepted, reply.match_index) == (True, prev[0] + len(terms))


def test_paper_s5_3_what_replaces_a_conflict_is_written_again():
    lab = Lab(term=4, log=[1, 1, 2])
    lab.hear(lab.append((1, 1), [4, 4], term=4))
    assert [(each.index, each.term) for each in lab.take().entries] == [(2, 4), (3, 4)]


def test_paper_s5_3_an_overtaken_append_cuts_nothing():
    lab = Lab(term=1)
    lab.hear(lab.append((0, 0), [1, 1, 1], term=1))
    lab.hear(lab.append((0, 0), [1], term=1))
    assert lab.log_terms() == [1, 1, 1]


def test_paper_s5_3_a_follower_commits_no_more_than_it_was_shown_to_match():
    lab = Lab(term=4, log=[1, 1, 2])
    lab.hear(lab.append((1, 1), [1], term=4, commit=3))
    assert lab.node.commit_index == 2, "entry 3 may differ from the leader's"


def test_an_append_from_before_the_commit_index_is_answered_with_it():
    lab = Lab(term=1, log=[1, 1, 1], commit=2)
    lab.hear(lab.append((0, 0), [1], term=1))
    (reply,) = lab.take().sent(AppendEntriesReply)
    assert (reply.accepted, reply.match_index) == (True, 2)


def test_i08_no_leader_overwrites_what_is_committed():
    lab = Lab(term=1, log=[1, 1, 1], commit=2)
    lab.hear(lab.append((1, 1), [3, 3], term=3))
    (reply,) = lab.take().sent(AppendEntriesReply)
    assert (reply.accepted, reply.match_index) == (True, 2)
    assert lab.log_terms() == [1, 1, 1]
    lab.hear(lab.append((2, 1), [3], term=3))
    assert lab.log_terms() == [1, 1, 3], "entry 3 was not committed"


# ------------------------------------------------------------------------------ back-off (§5.3)


def test_paper_s5_3_a_refusal_skips_a_whole_term():
    lab = Lab(term=9, log=[1, 2, 2, 2, 6, 6, 6])
    lab.hear(lab.append((7, 5), [], term=9))
    (reply,) = lab.take().sent(AppendEntriesReply)
    assert (reply.accepted, reply.prev_index) == (False, 7)
    assert (reply.conflict_index, reply.conflict_term) == (4, 2)


def test_paper_s5_3_a_short_log_says_where_it_ends():
    lab = Lab(term=9, log=[1, 2])
    lab.hear(lab.append((7, 5), [], term=9))
    (reply,) = lab.take().sent(AppendEntriesReply)
    assert (reply.conflict_index, reply.conflict_term) == (2, 2)


def test_paper_s5_3_a_leader_backs_off_until_the_logs_meet():
    lab = Lab(term=6, log=[1, 1, 1, 4, 4, 5, 5, 6, 6])
    lab.lead()
    lab.hear(refuse(lab, 2, 9, (9, 3)))
    (probe,) = lab.take().to(2, AppendEntries)
    assert (probe.prev_index, probe.prev_term) == (3, 1), "skips all that is newer than term 3"
    lab.hear(refuse(lab, 2, 3, (1, 1)))
    (probe,) = lab.take().to(2, AppendEntries)
    assert (probe.prev_index, probe.prev_term) == (1, 1)
    lab.hear(lab.ack(2))
    assert lab.progress(2)["match"] == 10


def test_an_old_refusal_moves_nothing():
    lab = Lab(log=[1, 1, 1], term=1)
    lab.lead()
    lab.hear(refuse(lab, 2, 1, (0, 0)))
    assert lab.progress(2)["next"] == 4
    lab.hear(lab.ack(2))
    lab.take()
    lab.hear(refuse(lab, 2, 3, (0, 0)))
    assert lab.progress(2)["state"] == "replicate"


@st.composite
def two_logs(draw):
    """Logs with a common beginning. A term has one leader, so they share no term after it."""
    shared = sorted(draw(st.lists(st.integers(1, 4), max_size=6)))
    return [
        shared + sorted(draw(st.lists(st.sampled_from(terms), max_size=8)))
        for terms in (range(5, 16, 2), range(6, 17, 2))
    ]


@given(two_logs())
def test_paper_figure_7_any_two_logs_are_made_equal(logs):
    """Whatever the follower's log is, a leader brings it to its own, one round trip a term."""
    ours, theirs = logs
    term = max([1, *ours, *theirs])
    leader = Lab(term=term, log=ours)
    follower = Lab(node_id=2, term=term, log=theirs)
    sent = leader.lead().to(2, AppendEntries)
    round_trips = 0
    while sent:
        round_trips += 1
        assert round_trips < 4 * (term + 2)
        follower.hear(*sent)
        leader.hear(*follower.take().sent(AppendEntriesReply))
        taken = leader.take()
        if not taken.now:
            taken = leader.step(TellCommit()).take()
        sent = taken.to(2, AppendEntries) + taken.to(2, Heartbeat)
    assert follower.log_terms() == leader.log_terms()
    assert follower.node.commit_index == leader.node.commit_index == len(ours) + 1


# --------------------------------------------------------------------------- commitment (§5.4.2)


def test_paper_s5_4_2_only_commits_entries_of_its_own_term():
    """Figure 8: an entry of an earlier term on a majority can still be overwritten."""
    lab = Lab(term=4, log=[1, 2])
    lab.lead()
    lab.hear(lab.ack(2, 2), lab.ack(3, 2))
    assert lab.node.commit_index == 0
    lab.hear(lab.ack(2, 3))
    assert lab.node.commit_index == 3, "along with the first entry of this term"


def test_paper_s8_a_term_begins_with_a_no_op():
    lab = Lab(term=4, log=[1, 2])
    (first,) = lab.lead().entries
    assert (first.index, first.term, first.kind, first.data) == (3, 5, EntryKind.NOOP, b"")


def test_i10_acknowledgements_of_another_term_commit_nothing():
    lab = Lab().lead_and_commit()
    lab.propose(b"a")
    lab.take()
    lab.hear(AppendEntriesReply(2, 1, 0, True, 2))
    assert lab.node.commit_index == 1


def test_an_acknowledgement_beyond_the_log_is_a_peers_fault():
    lab = Lab().lead_and_commit()
    with pytest.raises(PeerError, match="acknowledges entry 99"):
        lab.hear(lab.ack(2, 99))


def test_acknowledgements_of_strangers_do_not_count():
    lab = Lab()
    lab.lead()
    lab.hear(lab.ack(7), lab.alive(7))
    assert lab.node.commit_index == 0


# ------------------------------------------------------------- writes under way and truncation


def test_i13_a_write_ends_without_what_was_cut_meanwhile():
    lab = Lab()
    lab.hear(lab.append((0, 0), [1, 1, 1], term=1))
    first = lab.node.take_effects()
    lab.hear(lab.append((1, 1), [2], term=2, leader=3))
    assert first is not None
    lab.step(Persisted(first.seq))
    assert lab.node.stable_index == 1


def test_i13_the_same_entry_come_back_is_not_durable_by_its_first_write():
    """A-B-A: (2, term 1) is written, then overwritten, then back from a third leader. While the
    overwrite is still to come, the first write's end says nothing about entry 2.
    """
    lab = Lab()
    lab.hear(lab.append((0, 0), [1, 1], term=1))
    first = lab.node.take_effects()
    lab.hear(lab.append((1, 1), [2], term=2, leader=3))
    second = lab.node.take_effects()
    lab.hear(lab.append((1, 1), [1], term=3, leader=2))
    third = lab.node.take_effects()
    assert first is not None
    assert second is not None
    assert third is not None
    assert lab.log_terms() == [1, 1]
    lab.step(Persisted(first.seq))
    assert lab.node.stable_index == 1
    lab.step(Persisted(second.seq))
    assert lab.node.stable_index == 1
    lab.step(Persisted(third.seq))
    assert lab.node.stable_index == 2


def test_i12_a_new_leader_counts_only_what_its_disk_has():
    lab = Lab(term=1)
    lab.hear(lab.append((0, 0), [1, 1], term=1))
    held = lab.node.take_effects()
    assert held is not None
    lab.tick(20)
    lab.hear(lab.vote(2, pre_vote=True))
    vote = lab.take(persist=False).all[-1]
    # The writes end in order: the vote's end is the entries' end as well.
    lab.step(Persisted(vote.seq))
    lab.hear(lab.vote(2))
    assert (lab.role(), lab.node.stable_index) == (Role.LEADER, 2)
    lab.take(persist=False)
    lab.hear(lab.ack(2))
    assert lab.node.commit_index == 0, "its own no-op is not durable"


# ------------------------------------------------------------------------------- the commit index


def test_a_heartbeat_tells_the_commit_index_but_not_beyond_what_matches():
    lab = Lab().lead_and_commit()
    lab.propose(b"a")
    lab.take()
    lab.hear(lab.ack(3))
    beats = lab.tick().take().sent(Heartbeat)
    assert {each.receiver: each.commit_index for each in beats} == {2: 1, 3: 2}


def test_a_log_that_lost_what_it_acknowledged_is_fatal():
    with pytest.raises(StorageError, match="acknowledged entries up to 5"):
        Lab(term=1, log=[1]).hear(Lab(term=1).heartbeat(1, commit=5))


def test_hard_state_is_written_for_term_and_vote_and_only_travels_for_the_commit_index():
    lab = Lab(term=1)
    lab.hear(lab.append((0, 0), [1, 1], term=1))
    assert lab.take().hard_states == []
    lab.hear(lab.heartbeat(1, commit=2))
    taken = lab.take()
    assert [each.index for each in taken.committed] == [1, 2]
    assert not any(effects.must_persist for effects in taken.all)
    lab.hear(lab.append((2, 1), [1], term=1, commit=2))
    assert [each.commit_index for each in lab.take().hard_states] == [2]


def test_an_empty_batch_is_nothing():
    lab = Lab().lead_and_commit()
    lab.step(Propose([]))
    assert lab.node.take_effects() is None
