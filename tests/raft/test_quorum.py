"""The arithmetic of majorities, against a definition that counts."""

# Ids, terms and indexes are written as plain numbers here.
# mypy: disable-error-code="arg-type,assignment"

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft.quorum import VoteResult, joint_value, majority_value, vote_result
from raft.types import Configuration

some_voters = st.lists(st.integers(1, 9), unique=True, min_size=1, max_size=7).map(
    lambda each: tuple(sorted(each))
)
joint_or_not = st.builds(Configuration, some_voters, some_voters | st.just(()))


def reached_by_majority(voters, value, values):
    return 2 * sum(values[each] >= value for each in voters) > len(voters)


@given(joint_or_not, st.lists(st.integers(0, 5), min_size=10, max_size=10))
def test_paper_s5_3_the_greatest_index_that_each_majority_holds(configuration, values):
    found = joint_value(configuration, values.__getitem__)
    halves = [configuration.voters, configuration.voters_outgoing or configuration.voters]
    expected = max(
        value
        for value in range(6)
        if all(reached_by_majority(half, value, values) for half in halves)
    )
    assert found == expected


@pytest.mark.parametrize(
    "configuration",
    [
        Configuration((1,)),
        Configuration((1, 2)),
        Configuration((1, 2, 3)),
        Configuration((1, 2, 3, 4)),
        Configuration((1, 2, 3), (1,)),
        Configuration((1, 2, 3), (3, 4)),
        Configuration((1, 2, 3), (3, 4, 5)),
        Configuration((1,), (2, 3, 4, 5)),
    ],
)
def test_thesis_s4_3_an_election_asks_both_majorities(configuration):
    """Every way to vote, against its definition: decided is what nobody's silence can change."""
    halves = [configuration.voters, configuration.voters_outgoing or configuration.voters]
    members = configuration.members()

    def wins(votes):
        return all(2 * sum(votes[each] for each in half) > len(half) for half in halves)

    for answers in product([True, False, None], repeat=len(members)):
        votes = {
            member: answer
            for member, answer in zip(members, answers, strict=True)
            if answer is not None
        }
        best = wins({member: votes.get(member, True) for member in members})
        worst = wins({member: votes.get(member, False) for member in members})
        expected = VoteResult.WON if worst else VoteResult.PENDING if best else VoteResult.LOST
        assert vote_result(configuration, votes) is expected


def test_majorities_of_small_clusters():
    assert majority_value([7]) == 7
    assert majority_value([7, 3]) == 3
    assert majority_value([7, 3, 5]) == 5
    assert majority_value([7, 3, 5, 1]) == 3
    assert majority_value([7, 3, 5, 1, 9]) == 5


def test_learners_do_not_count():
    configuration = Configuration((1, 2, 3), learners=(4, 5))
    values = {1: 0, 2: 0, 3: 9, 4: 9, 5: 9}
    assert joint_value(configuration, values.__getitem__) == 0
    votes = dict.fromkeys((3, 4, 5), True)
    assert vote_result(configuration, votes) is VoteResult.PENDING
