"""What limits and repairs the flow of entries: windows, losses, bounds, forwarding.

Raft §5.3; thesis §10.2.1.
"""

# Ids, terms and indexes are written as plain numbers here.
# mypy: disable-error-code="arg-type,assignment"

import itertools

import pytest

from raft.errors import PeerError, RejectReason
from raft.events import Applied, PeerUnreachable
from raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    ForwardProposals,
    ForwardRejected,
    Heartbeat,
    HeartbeatReply,
)
from raft.types import Proposal

from .cluster import Cluster
from .lab import Lab


def refuse(lab, peer, prev, conflict):
    return AppendEntriesReply(
        peer, lab.node_id, lab.node.term, False, 0, prev, conflict[0], conflict[1]
    )


# ------------------------------------------------------------------------------- flow control


def window(lab, peer=2):
    return lab.progress(peer)


def test_a_probe_goes_out_once_until_it_is_answered():
    lab = Lab(log=[1], term=1)
    first = lab.lead()
    assert len(first.to(2, AppendEntries)) == 1
    lab.propose(b"a")
    assert lab.take().to(2, AppendEntries) == []
    lab.tick().hear(lab.alive(2))
    assert len(lab.take().to(2, AppendEntries)) == 1, "a heartbeat's answer: it lives, try again"


def test_one_append_a_take_carries_all_that_is_new():
    lab = Lab().lead_and_commit()
    for number in range(5):
        lab.propose(b"%d" % number)
    (append,) = lab.take().to(2, AppendEntries)
    assert [each.data for each in append.entries] == [b"0", b"1", b"2", b"3", b"4"]


def test_the_window_bounds_appends_in_flight():
    lab = Lab(inflight_appends_max=3).lead_and_commit()
    for _ in range(5):
        lab.propose(b"a")
        lab.take()
    assert window(lab)["inflight"] == 3
    assert window(lab)["next"] == 5
    lab.hear(lab.ack(2, 2))
    (append,) = lab.take().to(2, AppendEntries)
    assert [each.index for each in append.entries] == [5, 6], "what waited leaves together"


def test_the_window_bounds_bytes_in_flight():
    lab = Lab(inflight_bytes_max=500).lead_and_commit()
    for _ in range(5):
        lab.propose(b"x" * 300)
        lab.take()
    assert window(lab)["inflight"] == 2


def test_an_append_is_bounded_but_always_carries_one_entry():
    lab = Lab(append_bytes_max=200).lead_and_commit()
    lab.propose(b"x" * 1000, b"a" * 60, b"b" * 60, b"c" * 60)
    sizes = [
        [len(each.data) for each in append.entries] for append in lab.take().to(2, AppendEntries)
    ]
    assert sizes == [[1000], [60, 60], [60]]


def test_heartbeats_pass_a_full_window():
    lab = Lab(inflight_appends_max=1).lead_and_commit()
    lab.propose(b"a")
    lab.take()
    lab.propose(b"b")
    taken = lab.tick().take()
    assert taken.to(2, AppendEntries) == []
    assert len(taken.to(2, Heartbeat)) == 1


def test_an_append_that_got_lost_is_sent_again():
    lab = Lab().lead_and_commit()
    lab.propose(b"a")
    lab.take()
    before = lab.alive(2)
    lab.hear(before)
    assert lab.take().to(2, AppendEntries) == [], "that heartbeat left before the append"
    lab.tick().take()
    lab.hear(lab.alive(2))
    (append,) = lab.take().to(2, AppendEntries)
    assert [each.data for each in append.entries] == [b"a"]
    assert window(lab)["state"] == "probe"


def test_a_slow_disk_is_not_a_loss():
    """The answer to an append waits for the sync; that to a later heartbeat waits behind it."""
    leader, follower = Lab().lead_and_commit(), Lab(node_id=2)
    leader.propose(b"a")
    append = leader.take().to(2, AppendEntries)
    beats = [leader.tick().take().to(2, Heartbeat)[0] for _ in range(5)]
    follower.hear(AppendEntries(1, 2, 1, 0, 0, 0, tuple(leader.node._core.log.slice(1, 1))))
    follower.hear(*append, *beats)
    replies = follower.take(persist=False).later
    kinds = [type(each) for each in replies]
    assert kinds == [AppendEntriesReply] * 2 + [HeartbeatReply] * 5
    leader.hear(*replies)
    assert window(leader)["state"] == "replicate"


def test_a_broken_link_falls_back_to_probing():
    lab = Lab().lead_and_commit()
    lab.propose(b"a")
    lab.take()
    lab.step(PeerUnreachable(2))
    assert window(lab) == {
        "match": 1,
        "next": 2,
        "state": "probe",
        "recently_active": True,
        "inflight": 0,
    }
    assert len(lab.take().to(2, AppendEntries)) == 1


def test_a_refusal_falls_back_to_probing_from_what_is_known():
    lab = Lab().lead_and_commit()
    lab.propose(b"a")
    lab.propose(b"b")
    lab.take()
    lab.hear(refuse(lab, 2, 2, (1, 1)))
    (append,) = lab.take().to(2, AppendEntries)
    assert (append.prev_index, len(append.entries)) == (1, 2)


def test_lost_messages_of_any_kind_only_delay():
    cluster = Cluster(3)
    cluster.elect(1)
    count = itertools.count()
    cluster.filters = [lambda _message: next(count) % 2 == 1]
    for number in range(10):
        cluster.propose(1, b"%d" % number)
        cluster.tick(times=2)
    cluster.heal()
    cluster.tick(times=5)
    leader = cluster.wait_leader()
    assert len({tuple(host.commands()) for host in cluster.hosts.values()}) == 1
    assert leader.commands() == [b"%d" % number for number in range(10)]


# ------------------------------------------------------------------------- limits and forwarding


def test_proposals_beyond_the_uncommitted_limit_are_refused():
    lab = Lab(uncommitted_bytes_max=1000).lead_and_commit()
    lab.propose(*[b"x" * 300] * 5)
    taken = lab.take()
    assert [each.token for each in taken.accepted] == [0, 1, 2]
    assert [(each.token, each.reason) for each in taken.rejected] == [
        (3, RejectReason.UNCOMMITTED_LIMIT),
        (4, RejectReason.UNCOMMITTED_LIMIT),
    ]
    assert lab.node.uncommitted_bytes == 3 * 324
    lab.hear(lab.ack(2))
    lab.take()
    lab.propose(b"x" * 300)
    assert len(lab.take().accepted) == 1


def test_a_proposal_that_can_never_fit_says_so():
    lab = Lab(uncommitted_bytes_max=1000).lead_and_commit()
    lab.propose(b"x" * (1001 - 24))
    assert [each.reason for each in lab.take().rejected] == [RejectReason.TOO_LARGE]
    lab.propose(b"x" * (1000 - 24))
    assert len(lab.take().accepted) == 1


def test_committed_entries_are_handed_out_in_portions():
    lab = Lab(committed_bytes_max=700).lead_and_commit()
    lab.propose(*[b"x" * 300] * 4)
    lab.take()
    lab.hear(lab.ack(2))
    effects = lab.node.take_effects()
    assert effects is not None
    assert [each.index for each in effects.committed] == [2, 3]
    assert not lab.take(apply=False).committed, "no more before these are applied"
    lab.step(Applied(3))
    assert [each.index for each in lab.take().committed] == [4, 5]


def test_a_follower_forwards_to_its_leader():
    lab = Lab(term=1).hear(Lab(term=1).heartbeat(1))
    lab.take()
    lab.propose(b"a", b"b")
    taken = lab.take()
    (forward,) = taken.sent(ForwardProposals)
    assert (forward.receiver, [each.data for each in forward.proposals]) == (2, [b"a", b"b"])
    assert (taken.accepted, taken.rejected) == ([], [])


def test_what_a_follower_forwards_is_cut_as_appends_are():
    lab = Lab(term=1, append_bytes_max=700).hear(Lab(term=1).heartbeat(1))
    lab.take()
    sizes = [300, 300, 300, 5000, 1, 1, 676, 676]
    lab.propose(*[b"x" * size for size in sizes])
    forwards = lab.take().sent(ForwardProposals)
    # A command costs its bytes and an entry's header of 24; one goes in any case.
    assert [[len(each.data) for each in forward.proposals] for forward in forwards] == [
        [300, 300],
        [300],
        [5000],
        [1, 1],
        [676],
        [676],
    ]
    tokens = [each.token for forward in forwards for each in forward.proposals]
    assert tokens == list(range(len(sizes))), "each once, in order"


def test_a_follower_without_a_leader_refuses():
    lab = Lab().propose(b"a")
    assert [(each.token, each.reason, each.leader) for each in lab.take().rejected] == [
        (0, RejectReason.NO_LEADER, 0)
    ]


def test_a_leader_takes_what_is_forwarded_even_from_an_older_term():
    lab = Lab(term=3).lead_and_commit()
    lab.hear(ForwardProposals(2, 1, 1, (Proposal(7, b"a"),)))
    taken = lab.take()
    assert [each.data for each in taken.entries] == [b"a"]
    assert taken.accepted == [], "the follower learns of it by applying it"


def test_what_is_forwarded_in_vain_comes_back():
    lab = Lab(uncommitted_bytes_max=100).lead_and_commit()
    lab.hear(ForwardProposals(2, 1, 1, (Proposal(7, b"x" * 50), Proposal(8, b"x" * 50))))
    (back,) = lab.take().sent(ForwardRejected)
    assert (back.receiver, back.tokens) == (2, (8,))
    follower = Lab(term=1)
    follower.hear(ForwardProposals(2, 1, 1, (Proposal(7, b"a"),)))
    (back,) = follower.take().sent(ForwardRejected)
    assert (back.tokens, back.reason) == ((7,), RejectReason.NO_LEADER)
    asking = Lab(term=1).hear(Lab(term=1).heartbeat(1), ForwardRejected(2, 1, 1, (7,), 4))
    assert [(each.token, each.reason, each.leader) for each in asking.take().rejected] == [
        (7, RejectReason.UNCOMMITTED_LIMIT, 2)
    ]


def test_a_rejection_for_no_known_reason_is_a_peers_fault():
    with pytest.raises(PeerError, match="reason 99"):
        Lab(term=1).hear(ForwardRejected(2, 1, 1, (7,), 99))
