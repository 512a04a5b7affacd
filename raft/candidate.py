"""Elections: when a node campaigns, and when it has won (Raft §5.2, thesis §9.6)."""

from raft.core import Core
from raft.follower import ask_again, become_follower, heard_from_leader, set_leader
from raft.leader import become_leader
from raft.membership import votes_in
from raft.messages import RequestVote, RequestVoteReply, TimeoutNow
from raft.quorum import VoteResult, vote_result
from raft.types import NO_NODE, Role, Term


def tick(core: Core) -> None:
    """A tick went by on a node that does not lead."""
    ask_again(core)
    core.election_elapsed += 1
    if core.election_elapsed < core.election_timeout:
        return
    if may_campaign(core):
        campaign(core, pre_vote=True)
    else:
        core.reset_election_timer()
        set_leader(core, NO_NODE)


def may_campaign(core: Core) -> bool:
    """Only voters campaign, none that is mute (I17), and none whose state machine is about to be
    replaced.

    One that the configuration in force leaves out campaigns as long as that is not committed: it
    may be the only one that has it, and so the only one that can be elected (thesis §4.2.2).
    """
    if core.required_index or core.pending_snapshot is not None:
        return False
    return any(
        votes_in(configuration, core.node_id)
        for configuration in core.membership.undecided(core.commit_index)
    )


def campaign(core: Core, *, pre_vote: bool, transfer: bool = False) -> None:
    """Ask all voters for their vote, or first whether they would give it.

    A pre-vote changes nothing that is durable, so a node that cannot win raises no terms (thesis
    §9.6), and its own answer counts at once. The real vote counts once it is on this node's disk:
    if it were counted before, the node could win a term by its peers' votes, crash, come back in
    the term before, win the same term again, and put another entry in the same place.
    """
    term = Term(core.term + 1)
    set_leader(core, NO_NODE)
    core.reset_election_timer()
    if pre_vote:
        core.role = Role.PRE_CANDIDATE
        core.votes = {core.node_id: True}
    else:
        core.role = Role.CANDIDATE
        core.term = term
        core.voted_for = core.node_id
        core.votes = {}
    last_index, last_term = core.log.last_index, core.log.last_term
    for peer in core.membership.peers:
        if core.membership.is_voter(peer):
            core.messages_after_sync.append(
                RequestVote(core.node_id, peer, term, last_index, last_term, pre_vote, transfer)
            )
    if pre_vote:
        _tally(core)


def on_vote_reply(core: Core, message: RequestVoteReply) -> None:
    """A voter answered, this campaign or an earlier one."""
    if message.pre_vote:
        if core.role is not Role.PRE_CANDIDATE:
            return
        if message.granted and message.term != core.term + 1:
            return
    elif core.role is not Role.CANDIDATE:
        return
    core.votes.setdefault(message.sender, message.granted)
    _tally(core)


def on_vote_durable(core: Core) -> None:
    """Something reached the disk: if it was this candidate's own vote, it counts from now on."""
    if core.role is Role.CANDIDATE and core.durability.vote_is_durable(core.term, core.node_id):
        core.votes[core.node_id] = True
        _tally(core)


def _tally(core: Core) -> None:
    result = vote_result(core.membership.current, core.votes)
    if result is VoteResult.LOST:
        become_follower(core, core.term, NO_NODE)
    elif result is VoteResult.WON:
        if core.role is Role.PRE_CANDIDATE:
            campaign(core, pre_vote=False)
        elif core.votes.get(core.node_id, False):
            # Others' votes may make a majority before this node's own is durable: wait for it.
            become_leader(core)


def on_timeout_now(core: Core, message: TimeoutNow) -> None:
    """The leader hands over: campaign at once, past everybody's stickiness (thesis §3.10)."""
    heard_from_leader(core, message.sender)
    if may_campaign(core):
        campaign(core, pre_vote=False, transfer=True)
