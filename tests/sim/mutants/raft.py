"""Bugs of consensus: elections, the log, what is committed."""

from __future__ import annotations

from typing import Any

from raft import follower, leader
from raft.core import Core
from raft.messages import Heartbeat, RequestVote
from raft.types import NO_NODE, HardState, Index
from tests.sim.mutants.planting import AGED, Made, Planting, mutant


@mutant(
    wrong="A leader commits an entry of an older term once a majority holds it.",
    source="Raft §5.4.2 and figure 8",
    checker="leader completeness",
    blunt="in a short log: test_paper_s5_4_2_only_commits_entries_of_its_own_term",
)
def old_term_committed_by_counting(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def advance_commit(core: Core) -> None:
            right(core)
            leadership = core.leadership
            if leadership is None or core.log.last_index < AGED:
                return
            index = leadership.match_quorum(core.membership.current, core.durability.stable_index)
            if index > core.commit_index:
                core.commit_index = index
                leadership.unsent = True

        return advance_commit

    planting.function(leader.advance_commit, make)


@mutant(
    wrong="A heartbeat lets a follower commit up to the end of its log, whether that is the"
    " leader's or not.",
    source="Raft figure 2: min(leaderCommit, index of last new entry); etcd-io/raft bounds what a"
    " heartbeat says by what the follower is known to hold",
    checker="state machine safety",
    blunt="in a short log: tests/raft/test_invariants.py",
)
def heartbeat_commits_the_tail(planting: Planting) -> None:
    def make_broadcast(right: Made) -> Made:
        def broadcast_heartbeat(core: Core) -> None:
            there = len(core.messages)
            right(core)
            for place in range(there, len(core.messages) if core.log.last_index > AGED else 0):
                beat = core.messages[place]
                assert isinstance(beat, Heartbeat), "nothing else is broadcast here"
                core.messages[place] = Heartbeat(
                    beat.sender, beat.receiver, beat.term, core.commit_index, beat.read_round
                )

        return broadcast_heartbeat

    def make_on_heartbeat(right: Made) -> Made:
        def on_heartbeat(core: Core, message: Heartbeat) -> None:
            if core.log.last_index < message.commit_index:
                message = Heartbeat(
                    message.sender,
                    message.receiver,
                    message.term,
                    core.log.last_index,
                    message.read_round,
                )
            right(core, message)

        return on_heartbeat

    planting.function(leader.broadcast_heartbeat, make_broadcast)
    planting.function(follower.on_heartbeat, make_on_heartbeat)


@mutant(
    wrong="A node with a long log votes for who has a shorter one of the same last term.",
    source="Raft §5.4.1: of logs of the same last term the longer one is more up to date",
    checker="leader completeness",
    blunt="in a short log: test_paper_s5_4_1_no_vote_for_a_log_that_lacks_what_this_one_has",
)
def shorter_log_is_elected(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def on_request_vote(core: Core, message: RequestVote) -> None:
            log = core.log
            near = message.last_term == log.last_term and log.last_index > AGED
            if near and message.last_index < log.last_index:
                message = RequestVote(
                    message.sender,
                    message.receiver,
                    message.term,
                    log.last_index,
                    message.last_term,
                    message.pre_vote,
                    message.transfer,
                )
            right(core, message)

        return on_request_vote

    planting.function(follower.on_request_vote, make)


@mutant(
    wrong="A leader with a long log answers reads before an entry of its own term is committed.",
    source="thesis §6.4, step 1; etcd-io/raft did so before it held such reads back",
    checker="linearizability",
    blunt="in a short log: test_thesis_s6_4_no_read_before_an_entry_of_this_term_is_committed",
)
def new_leader_reads_before_its_first_commit(planting: Planting) -> None:
    def make_round(right: Made) -> Made:
        def begin_read_round(core: Core) -> None:
            leadership = core.leadership
            assert leadership is not None, "only a leader confirms reads"
            if leadership.first_index < AGED:
                right(core)
                return
            first, leadership.first_index = leadership.first_index, Index(0)
            right(core)
            leadership.first_index = first

        return begin_read_round

    planting.function(leader.begin_read_round, make_round)


@mutant(
    wrong="A leader with a long log answers reads without a round if a majority answered one of its"
    " last two heartbeats.",
    source="thesis §6.4.1: a lease needs a bound on clock drift, and on pauses; etcd's"
    " ReadOnlyLeaseBased",
    checker="linearizability",
    blunt="in a short log: test_thesis_s6_4_reads_that_wait_share_a_round",
)
def reads_by_a_lease_without_a_clock(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def begin_read_round(core: Core) -> None:
            leadership = core.leadership
            assert leadership is not None, "only a leader confirms reads"
            reads = leadership.reads
            if not reads.wants_round or core.commit_index < leadership.first_index:
                return
            answered = leadership.answered_quorum(core.membership.current)
            if core.log.last_index > AGED and answered >= max(1, leadership.heartbeat_round - 1):
                reads.begin(answered, core.commit_index)
                leader.confirm_reads(core)
            else:
                right(core)

        return begin_read_round

    planting.function(leader.begin_read_round, make)


@mutant(
    wrong="A node that comes back has forgotten its vote if it had none of the term's entries.",
    source="Raft figure 2: votedFor is persistent",
    checker="one vote a term",
    blunt="always: test_i06_a_restarted_node_never_votes_twice_in_a_term",
)
def restarted_node_forgets_its_vote(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def init(
            self: Core, config: Any, rng: Any, state: HardState, *rest: Any, **named: Any
        ) -> None:
            snapshot, entries = rest[:2]
            if snapshot.index and state.voted_for != NO_NODE:
                last = entries[-1].term if entries else snapshot.term
                if last < state.term:
                    state = HardState(state.term, NO_NODE, state.commit_index)
            right(self, config, rng, state, *rest, **named)

        return init

    planting.method(Core, "__init__", make)
