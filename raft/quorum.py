"""The arithmetic of majorities, plain and joint (Raft §5.3, thesis §4.3). Pure functions."""

import enum
from collections.abc import Callable, Mapping

from raft.types import Configuration, NodeId


class VoteResult(enum.Enum):
    """How an election stands."""

    PENDING = 0
    WON = 1
    LOST = 2


def majority_value(values: list[int]) -> int:
    """The greatest number that a majority of ``values`` reaches.

    With match indexes this is the index that a majority holds; with acknowledged rounds the round
    that a majority answered. Sorts ``values`` in place.
    """
    values.sort()
    return values[(len(values) - 1) // 2]


def joint_value(configuration: Configuration, value_of: Callable[[NodeId], int]) -> int:
    """The greatest number that a majority reaches, in each half if the configuration is joint.

    Args:
        configuration: Who votes; learners are not asked.
        value_of: What each voter reached (its match index, the round it answered).
    """
    value = majority_value([value_of(node) for node in configuration.voters])
    if configuration.voters_outgoing:
        outgoing = majority_value([value_of(node) for node in configuration.voters_outgoing])
        return min(value, outgoing)
    return value


def vote_result(configuration: Configuration, votes: Mapping[NodeId, bool]) -> VoteResult:
    """How an election stands, given the votes so far; a joint one needs both majorities."""
    result = _half(configuration.voters, votes)
    if not configuration.voters_outgoing:
        return result
    outgoing = _half(configuration.voters_outgoing, votes)
    if VoteResult.LOST in (result, outgoing):
        return VoteResult.LOST
    return VoteResult.WON if result is outgoing is VoteResult.WON else VoteResult.PENDING


def _half(voters: tuple[NodeId, ...], votes: Mapping[NodeId, bool]) -> VoteResult:
    needed = len(voters) // 2 + 1
    granted = refused = 0
    for node in voters:
        vote = votes.get(node)
        if vote is True:
            granted += 1
        elif vote is False:
            refused += 1
    if granted >= needed:
        return VoteResult.WON
    return VoteResult.LOST if len(voters) - refused < needed else VoteResult.PENDING
