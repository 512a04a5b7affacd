"""Configurations (thesis §4): in force when appended, changed one at a time, joint at need."""

# Ids, terms and indexes are written as plain numbers here.
# mypy: disable-error-code="arg-type,assignment"

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft.errors import ConfigError, RejectReason
from raft.events import ProposeMembership, TransferLeader
from raft.membership import Membership, leave_joint, next_step
from raft.messages import AppendEntries
from raft.types import Configuration, Role

from .cluster import Cluster, voters
from .lab import Lab, configuration_entry, entry

THREE = voters(3)
FIVE = voters(5)


def ask(*ids, learners=(), token=9):
    return ProposeMembership(token, Configuration(ids, learners=learners))


def rejections(lab):
    return [(each.token, each.reason) for each in lab.take().rejected]


def commit(lab):
    """Every follower acknowledges, until nothing new comes of it."""
    for _ in range(6):
        lab.take()
        for peer in lab.node.progress():
            if lab.role() is Role.LEADER:
                lab.hear(lab.ack(peer))


# --------------------------------------------------------------------------------- in force


def append_configuration(lab, index, configuration, *, term=1, leader=2):
    made = configuration_entry(index, term, configuration)
    return AppendEntries(leader, 1, term, index - 1, 1 if index > 1 else 0, 0, (made,))


def test_thesis_s4_1_a_configuration_is_in_force_when_appended():
    lab = Lab()
    lab.hear(append_configuration(lab, 1, FIVE))
    assert (lab.node.configuration, lab.node.commit_index) == (FIVE, 0)


def test_thesis_s4_1_a_configuration_that_is_cut_rolls_back():
    lab = Lab()
    lab.hear(append_configuration(lab, 1, FIVE))
    lab.hear(append_configuration(lab, 2, voters(4)))
    assert lab.node.configuration == voters(4)
    lab.hear(lab.append((1, 1), [2], term=2, leader=3))
    assert lab.node.configuration == FIVE
    lab.hear(lab.append((0, 0), [3], term=3, leader=2))
    assert lab.node.configuration == THREE


def test_thesis_s4_1_a_restarted_node_finds_its_configuration_in_the_log():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster[1].step(ask(1, 2))
    cluster.settle()
    cluster.tick()
    assert cluster[2].node.configuration == voters(2)
    cluster[2].crash()
    cluster[2].start()
    assert cluster[2].node.configuration == voters(2)


def test_i15_the_configuration_as_of_an_index_goes_into_its_snapshot():
    lab = Lab(tail_entries_max=1).lead_and_commit()
    lab.step(ask(1, 2))
    commit(lab)
    lab.propose(b"x")
    assert lab.node.configuration == voters(2)
    assert lab.node.snapshot_meta(2).configuration == voters(2)


@given(st.lists(st.sampled_from(["command", "change", "cut", "fold"]), max_size=30), st.data())
def test_i15_rolling_back_and_folding_agree_with_the_whole_history(steps, data):
    membership = Membership(1, 0, THREE)
    history = [THREE]  # the configuration as of each index
    base = 0
    for step in steps:
        last = len(history) - 1
        if step == "command":
            membership.take_in([entry(last + 1, 1)])
            history.append(history[-1])
        elif step == "change":
            history.append(voters(data.draw(st.integers(1, 7))))
            membership.take_in([configuration_entry(last + 1, 1, history[-1])])
        elif step == "cut":
            last = data.draw(st.integers(base, last))
            del history[last + 1 :]
            membership.cut(last)
        else:
            base = data.draw(st.integers(base, last))
            membership.fold(base)
        assert membership.current == history[-1]
        held = range(base, len(history))
        assert [membership.at(index) for index in held] == history[base:]


# ------------------------------------------------------------------------------------ changes


def test_thesis_s4_1_one_voter_is_added_in_one_step():
    lab = Lab().lead_and_commit()
    lab.step(ask(1, 2, 3, 4))
    taken = lab.take()
    assert lab.node.configuration == voters(4)
    assert [(each.token, each.index) for each in taken.accepted] == [(9, 2)]
    lab.hear(lab.ack(2))
    assert lab.node.commit_index == 1, "two of four are no majority"
    lab.hear(lab.ack(3))
    assert lab.node.commit_index == 2


def test_thesis_s4_3_more_than_one_voter_goes_through_a_joint_configuration():
    lab = Lab().lead_and_commit()
    lab.step(ask(1, 4, 5))
    lab.take()
    joint = Configuration((1, 4, 5), voters_outgoing=(1, 2, 3))
    assert lab.node.configuration == joint
    lab.hear(lab.ack(2), lab.ack(3))
    assert lab.node.commit_index == 1, "the old majority alone commits nothing"
    lab.hear(lab.ack(4))
    assert lab.node.commit_index == 2
    assert lab.node.configuration == Configuration((1, 4, 5)), "left by itself"
    assert set(lab.node.progress()) == {4, 5}
    lab.take()
    lab.hear(lab.ack(4))
    assert lab.node.commit_index == 3


def test_thesis_s4_1_one_change_at_a_time():
    lab = Lab().lead_and_commit()
    lab.step(ask(1, 2, 3, 4), ask(1, 2, token=8))
    assert rejections(lab) == [(8, RejectReason.MEMBERSHIP_PENDING)]
    lab.hear(lab.ack(2), lab.ack(3))
    lab.step(ask(1, 2, 3, token=7))
    assert lab.node.configuration == THREE


def test_thesis_s4_1_no_change_before_an_entry_of_this_term_is_committed():
    lab = Lab()
    lab.lead()
    lab.step(ask(1, 2))
    assert rejections(lab) == [(9, RejectReason.NOT_READY)]


def test_changes_are_refused_where_they_cannot_begin():
    lab = Lab().step(ask(1, 2))
    assert rejections(lab) == [(9, RejectReason.NO_LEADER)]
    lab = Lab().lead_and_commit()
    lab.step(TransferLeader(2), ask(1, 2))
    assert rejections(lab) == [(9, RejectReason.TRANSFERRING)]


@pytest.mark.parametrize(
    "configuration",
    [
        Configuration(()),
        Configuration((1, 2), voters_outgoing=(1,)),
        Configuration((1, 2), learners_next=(2,)),
        Configuration((1, 2), learners=(2,)),
        Configuration((0, 1)),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(configuration):
    with pytest.raises(ConfigError):
        Lab().lead_and_commit().step(ProposeMembership(9, configuration))


def test_thesis_s4_2_2_a_leader_that_is_removed_leads_until_that_is_committed():
    lab = Lab().lead_and_commit()
    lab.step(ask(2, 3))
    lab.take()
    assert lab.role() is Role.LEADER
    lab.hear(lab.ack(2))
    assert lab.role() is Role.LEADER, "it does not count itself any more"
    lab.hear(lab.ack(3))
    assert lab.role() is Role.FOLLOWER
    lab.tick(100)
    assert lab.role() is Role.FOLLOWER, "nor does it campaign"


@pytest.mark.parametrize("restarts", [False, True])
def test_thesis_s4_2_2_a_node_whose_removal_is_not_committed_may_still_be_needed(restarts):
    """Nobody else can be elected: the other's log is shorter, and both are asked."""
    cluster = Cluster(voters(2))
    cluster.elect(1)
    cluster.isolate(1)
    cluster[1].step(ask(2))
    cluster.settle()
    cluster.tick(times=30)
    assert cluster[1].node.configuration == Configuration((2,))
    assert cluster[1].node.commit_index == 1
    assert cluster[1].node.involved == (1, 2), "what is not committed may yet be cut"
    if restarts:
        cluster[1].crash()
        cluster[1].start()
    cluster.heal()
    cluster.wait_leader()
    cluster.tick(times=100)
    assert cluster.wait_leader().node_id == 2
    cluster.propose(2, b"after")
    assert cluster[2].commands() == [b"after"]
    assert cluster[2].node.involved == (2,)


def test_a_learner_receives_entries_and_counts_for_nothing():
    lab = Lab(Configuration((1, 2, 3), learners=(4,))).lead_and_commit()
    lab.propose(b"x")
    assert len(lab.take().to(4, AppendEntries)) == 1
    lab.hear(lab.ack(4))
    assert lab.node.commit_index == 1


def test_a_voter_that_becomes_a_learner_votes_until_the_joint_configuration_is_left():
    current = voters(3)
    joint = next_step(current, Configuration((1, 4), learners=(3,)))
    assert joint == Configuration((1, 4), (1, 2, 3), learners=(), learners_next=(3,))
    assert leave_joint(joint) == Configuration((1, 4), learners=(3,))


some_ids = st.sets(st.integers(1, 7), min_size=1, max_size=5)


@given(some_ids, some_ids, st.sets(st.integers(1, 7)))
def test_thesis_s4_3_majorities_overlap_at_every_step(before, after, learners):
    current = Configuration(tuple(sorted(before)))
    target = Configuration(tuple(sorted(after)), learners=tuple(sorted(learners - after)))
    step = next_step(current, target)
    assert step.voters == target.voters
    if step.voters_outgoing:
        assert step.voters_outgoing == current.voters
        assert leave_joint(step) == target
        assert not set(step.learners) & set(step.voters_outgoing)
    else:
        assert len(before ^ after) <= 1
        assert step == target


# ----------------------------------------------------------------------------------- a cluster


def test_thesis_s4_a_whole_cluster_is_replaced_under_load():
    cluster = Cluster(voters(3), spare=[4, 5, 6])
    cluster.elect(1)
    for number in range(5):
        cluster.propose(1, b"%d" % number)
    cluster[1].step(ask(4, 5, 6))
    cluster.settle()
    cluster.tick(times=3)
    for number in (1, 2, 3):
        cluster[number].crash()
    leader = cluster.wait_leader()
    assert leader.node.configuration == Configuration((4, 5, 6))
    cluster.propose(leader.node_id, b"after")
    assert cluster[6].commands() == [b"0", b"1", b"2", b"3", b"4", b"after"]
