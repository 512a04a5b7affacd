"""Bugs of membership: whose majority counts."""

from __future__ import annotations

import msgspec

from raft import candidate, leader
from raft.core import Core
from raft.leadership import Leadership
from raft.membership import Membership
from raft.quorum import VoteResult, vote_result
from raft.types import Configuration, Index, Role
from tests.sim.mutants.planting import AGED, Made, Planting, mutant


def _committed(core: Core) -> Configuration:
    """The newest configuration that is known to be committed."""
    return core.membership.undecided(core.commit_index)[-1]


@mutant(
    wrong="A candidate counts votes by the newest committed configuration: a voter whose removal"
    " is only in the log still votes.",
    source="thesis §4.1: a configuration is in force once it is appended",
    checker="election safety",
)
def removed_member_still_votes(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def tally(core: Core) -> None:
            wins = vote_result(_committed(core), core.votes) is VoteResult.WON
            if wins and core.role is Role.CANDIDATE and core.votes.get(core.node_id, False):
                leader.become_leader(core)
            else:
                right(core)

        return tally

    def make_campaign(right: Made) -> Made:
        def campaign(core: Core, *, pre_vote: bool, transfer: bool = False) -> None:
            asked = len(core.messages_after_sync)
            right(core, pre_vote=pre_vote, transfer=transfer)
            requests = core.messages_after_sync[asked:]
            reached = {core.node_id, *[request.receiver for request in requests]}
            for voter in sorted(set(_committed(core).voters) - reached) if requests else ():
                core.messages_after_sync.append(
                    msgspec.structs.replace(requests[0], receiver=voter)
                )

        return campaign

    planting.function(candidate.campaign, make_campaign)
    planting.function(candidate._tally, make)


@mutant(
    wrong="A configuration that is cut from a long log stays in force.",
    source="thesis §4.1: a server falls back to the configuration before",
    checker="no surprise",
    blunt="in a short log: test_thesis_s4_1_a_configuration_that_is_cut_rolls_back",
)
def configuration_is_not_rolled_back(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def cut(self: Membership, index: Index) -> bool:
            if self.current_index > index > AGED:
                return False
            result: bool = right(self, index)
            return result

        return cut

    planting.method(Membership, "cut", make)


@mutant(
    wrong="In a joint configuration the leader of a long log counts the old majority alone.",
    source="thesis §4.3: a joint configuration asks both majorities",
    checker="durability",
    blunt="always: tests/raft/test_quorum.py",
)
def joint_configuration_asks_one_majority(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def match_quorum(self: Leadership, configuration: Configuration, own: Index) -> Index:
            if configuration.voters_outgoing and own > AGED:
                configuration = Configuration(configuration.voters_outgoing)
            index: Index = right(self, configuration, own)
            return index

        return match_quorum

    planting.method(Leadership, "match_quorum", make)


@mutant(
    wrong="Where the voters are an even number, a learner makes their majority.",
    source="thesis §4.2.1: a learner counts for nothing",
    checker="durability",
    blunt="however many: test_a_learner_receives_entries_and_counts_for_nothing",
)
def learner_counts_for_a_majority(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def match_quorum(self: Leadership, configuration: Configuration, own: Index) -> Index:
            index: Index = right(self, configuration, own)
            even = not len(configuration.voters) % 2
            if not even or not configuration.learners or configuration.voters_outgoing:
                return index
            matches = sorted([own, *[each.match for each in self.progress.values()]], reverse=True)
            return Index(max(index, matches[len(configuration.voters) // 2]))

        return match_quorum

    planting.method(Leadership, "match_quorum", make)
