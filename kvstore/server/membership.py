"""How members come and go while the cluster works.

The roster (``apply/roster.py``) is the one truth of who is in the cluster, and a change of it is a
command like any other. Raft's configuration follows: at every tick the leader compares the two and,
where they differ, begins the change that brings the configuration closer. Nothing has to be
remembered between the two, so whichever leader comes next carries on where the last one stopped.
Who is to be linked with follows from both, in the same way.

A change is checked on the leader (``admission.py``), proposed by the member that was asked, under a
command id that counts once, and refused at apply if the roster has changed since the check: then it
is checked again. So of two changes at once one waits for the other.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from kvstore.apply.roster import Roster
from kvstore.auth.identity import NOBODY, Identity
from kvstore.commands import Kind, MembershipAction, MembershipChange
from kvstore.errors import ErrorKind, KvError, RemovedError
from kvstore.server.admission import Admission, Ask
from kvstore.server.pacing import answer
from kvstore.types import Member, MemberId, MemberListResponse
from raft.events import ProposeMembership
from raft.types import NO_NODE, Configuration, NodeId, Role

if TYPE_CHECKING:
    from kvstore.apply import Outcome
    from kvstore.server.node import Node
    from kvstore.server.peers import CallReply

log = logging.getLogger("kvstore.members")

ASK_AGAIN_SECONDS = 0.05
CHANGES_MAX = 64
"""Changes that may wait on one member, whether asked or asking; more are refused as retryable."""
LEAVE_SECONDS = 0.2
"""What a removed member takes to answer those that wait for that."""
HAND_OVERS_MAX = 2
"""How often a leader that is to leave tries to hand over before it carries its removal out itself.
"""
LONELY_SECONDS = 30.0
"""How often a member that joins and reaches nobody says so."""
_NO_TOKEN = 0
"""Proposals are numbered from a random start, never 0: nobody waits for this one."""

ChangeReply = Callable[["Changed | KvError"], None]

_encode = msgspec.msgpack.Encoder().encode
_decode_ask = msgspec.msgpack.Decoder(Ask).decode
_decode_change = msgspec.msgpack.Decoder(MembershipChange).decode

_NOT_NOW = (ErrorKind.NO_LEADER.error(), ErrorKind.TIMEOUT_CONNECTION_LOST.error())


class Changed(msgspec.Struct, frozen=True):
    """A change that is done: whom it concerned, and all members after it."""

    member_id: int
    members: list[Member]


class _Waiting:
    """A change that was asked for here, from the first question to its end."""

    __slots__ = ("ask", "change", "deadline", "identity", "members", "reply")

    def __init__(self, ask: Ask, reply: ChangeReply, deadline: float, identity: Identity) -> None:
        self.ask = ask
        self.identity = identity
        self.reply = reply
        self.deadline = deadline
        self.change: MembershipChange | None = None
        self.members: list[Member] | None = None


def configuration_of(roster: Roster) -> Configuration:
    """The configuration that this roster asks for."""
    voters = [NodeId(key) for key, member in roster.members.items() if not member.isLearner]
    learners = [NodeId(key) for key, member in roster.members.items() if member.isLearner]
    return Configuration(tuple(sorted(voters)), learners=tuple(sorted(learners)))


class MembershipKeeper:
    """Everything about members on one member.

    Args:
        node: Whose; complete but for this.
        unix_seconds: The time of day; it goes into the ids of members that are added.
    """

    def __init__(self, node: "Node", unix_seconds: Callable[[], float]) -> None:
        self._node = node
        self._admission = Admission(node, unix_seconds)
        self._changes: dict[int, _Waiting] = {}
        self._asked = 0
        self._checks: list[tuple[Ask, CallReply, float]] = []
        self._linked_by: tuple[int, tuple[NodeId, ...]] | None = None
        self._hand_overs = 0
        self._leaving = False
        self._lonely_since: float | None = None
        node.driver.on_tick(self._tick)
        node.peers.serve("member.check", self._on_check)

    @property
    def _roster(self) -> Roster:
        return self._node.applier.machine.roster

    # --- clockwork --------------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        self.refresh()
        if self._node.driver.role == Role.LEADER:
            self._reconcile()
        elif self._is_out():
            self.leave("the log says so")
        elif not self._roster.version:
            self._say_if_lonely(now)
        if self._checks:
            checks, self._checks = self._checks, []
            for ask, reply, give_up in checks:
                self._check(ask, reply, give_up)
        if self._changes:
            for number, waiting in list(self._changes.items()):
                self._look_after(number, waiting, now)

    def refresh(self) -> None:
        """Let the links follow the roster and the configuration, if either has changed."""
        node = self._node
        roster = self._roster
        involved = node.driver.raft.involved
        if self._linked_by == (roster.version, involved):
            return
        self._linked_by = (roster.version, involved)
        own = roster.members.get(MemberId(node.member_id))
        node.is_learner = own is not None and own.isLearner
        # Whoever was removed is needed until the configuration without it is committed.
        peers = {int(one): MemberId(one) for one in involved}
        peers |= {int(key): key for key in roster.members}
        # One that joined, and has not heard of anything since, may have been removed meanwhile:
        # those that it was told of can say so, and of the founders none may be left.
        contacts = () if roster.version else node.identity.contacts
        told = {MemberId(each.ID): each.peerURLs for each in contacts}
        peers |= {int(key): key for key in told}
        peers.pop(node.member_id, None)
        # One that took a lost member's place has its URLs, and may not have heard yet that the
        # other is gone: there it would find nobody but itself.
        here = own.peerURLs if own is not None else node.config.initial_advertise_peer_urls
        where = {
            key: roster.urls_of(member) or told.get(member, ()) for key, member in peers.items()
        }
        node.network.set_peers(
            {key: tuple([url for url in urls if url not in here]) for key, urls in where.items()}
        )

    def _say_if_lonely(self, now: float) -> None:
        """Tell an operator if nobody answers whom a member that joins was told of."""
        node = self._node
        contacts = node.identity.contacts
        linked = not contacts or any(node.network.is_up(each.ID) for each in contacts)
        if linked or self._lonely_since is None:
            self._lonely_since = now
        elif now - self._lonely_since >= LONELY_SECONDS:
            self._lonely_since = now
            log.warning(
                "none of the members that this one was told of when it joined answers (%s): see "
                "that they run and reach it; if it was removed meanwhile (kvstore member list, "
                "against any member), stop it",
                ", ".join(url for each in contacts for url in each.peerURLs),
            )

    def _knows_all(self) -> bool:
        """Whether this leader has applied all that its predecessors committed.

        Before that its roster may be older than the configuration in its log, and it would undo
        what has been done.
        """
        raft = self._node.driver.raft
        return self._node.applier.machine.applied_term == raft.term

    def _reconcile(self) -> None:
        node = self._node
        raft = node.driver.raft
        target = configuration_of(self._roster)
        if raft.configuration == target or not raft.may_change_membership:
            return
        if not self._knows_all() or not target.voters:
            return
        if node.member_id not in self._roster.members and self._hand_overs < HAND_OVERS_MAX:
            # A successor that goes on at once spares the clients an election. It finds what is left
            # to do in the roster.
            self._hand_overs += 1
            if node.transfer.begin():
                log.info("this leader is to leave the cluster: handing leadership on first")
                return
        log.info(
            "changing the configuration to voters %s, learners %s",
            ", ".join(f"{voter:x}" for voter in target.voters),
            ", ".join(f"{learner:x}" for learner in target.learners) or "none",
        )
        node.driver.step(ProposeMembership(_NO_TOKEN, target))

    # --- leaving ----------------------------------------------------------------------------------

    def _is_out(self) -> bool:
        node = self._node
        return (
            MemberId(node.member_id) in self._roster.removed
            and NodeId(node.member_id) not in node.driver.raft.involved
        )

    def on_removed(self, teller: int) -> None:
        """Another member says that this one was removed."""
        self.leave(f"member {teller:x} says so")

    def leave(self, why: str) -> None:
        """Stop for good: this member was removed, which is committed and never undone."""
        if self._leaving:
            return
        self._leaving = True
        node = self._node
        config = node.config
        error = RemovedError(
            f"member {node.member_id:x} ({config.name}) was removed from cluster "
            f"{node.cluster_id:x} ({why}). Its data directory is of no further use; to let it in "
            f"again, take that away, kvstore member add {config.name} "
            f"--peer-urls={','.join(config.initial_advertise_peer_urls)}, and start it with "
            "--initial-cluster-state=existing"
        )
        log.warning("this member was removed from its cluster: stopping")
        for number, waiting in list(self._changes.items()):
            if waiting.ask.member_id == node.member_id:
                self._finish(number, waiting)
        node.loop.call_later(LEAVE_SECONDS, node.fail, error)

    # --- links ------------------------------------------------------------------------------------

    def on_link(self, member: int, *, up: bool) -> None:
        """A link came up or broke: how long it has lasted tells who is healthy."""
        self._admission.on_link(member, up=up)

    # --- changes, on the member that was asked ----------------------------------------------------

    def change(
        self, ask: Ask, reply: ChangeReply, deadline: float, identity: Identity = NOBODY
    ) -> None:
        """Change the roster, and see the change through.

        Args:
            ask: What is to be done; its URLs have been checked.
            reply: Gets what came of it once the configuration is committed that the roster asks
                for; of a new member, once it is in force: the second voter of a cluster has to be
                started before anything can be committed. Else an error, of unknown outcome if the
                change may yet happen.
            deadline: When to give up, on the loop's clock, in seconds.
            identity: Who asks; whether they may is asked again when the change is applied.
        """
        if len(self._changes) >= CHANGES_MAX:
            reply(ErrorKind.TOO_MANY_REQUESTS.error())
            return
        self._asked = number = self._asked + 1
        self._changes[number] = _Waiting(ask, reply, deadline, identity)
        self._attempt(number)

    def _attempt(self, number: int) -> None:
        waiting = self._changes.get(number)
        if waiting is None:
            return
        node = self._node
        leader = node.driver.leader

        def checked(result: "bytes | KvError") -> None:
            if self._changes.get(number) is not waiting or waiting.change is not None:
                return
            if not isinstance(result, KvError):
                waiting.change = change = _decode_change(result)
                node.proposals.submit(
                    Kind.MEMBERSHIP,
                    change,
                    lambda outcome: self._decided(number, waiting, outcome),
                    waiting.deadline,
                    identity=waiting.identity,
                )
            elif result in _NOT_NOW:
                self._again(number)
            else:
                self._settle(number, result)

        if node.driver.role == Role.LEADER:
            self._check(waiting.ask, checked, waiting.deadline)
        elif leader == NO_NODE:
            self._again(number)
        else:
            left = max(0.0, waiting.deadline - node.loop.time())
            node.peers.call(leader, "member.check", _encode(waiting.ask), left, checked)

    def _again(self, number: int) -> None:
        self._node.loop.call_later(ASK_AGAIN_SECONDS, self._attempt, number)

    def _decided(self, number: int, waiting: _Waiting, outcome: "Outcome | KvError") -> None:
        if self._changes.get(number) is not waiting:
            return
        if isinstance(outcome, KvError):
            self._settle(number, outcome)
            return
        response = outcome.response
        if isinstance(response, MemberListResponse):
            waiting.members = response.members
            self._look_after(number, waiting, self._node.loop.time())
        elif isinstance(response, KvError):
            if response == ErrorKind.UNHEALTHY.error():
                # Somebody else's change came first: this one has to be checked against it.
                waiting.change = None
                self._attempt(number)
            else:
                self._settle(number, response)
        else:
            self._settle(number, ErrorKind.TIMEOUT.unknown_outcome())

    def _look_after(self, number: int, waiting: _Waiting, now: float) -> None:
        if waiting.members is not None and self._is_carried_out(waiting):
            self._finish(number, waiting)
        elif waiting.deadline <= now:
            if waiting.change is None:
                self._settle(number, ErrorKind.TIMEOUT.error())
            elif waiting.members is not None:
                self._settle(number, ErrorKind.TIMEOUT.unknown_outcome())

    def _is_carried_out(self, waiting: _Waiting) -> bool:
        change = waiting.change
        assert change is not None, "what is applied was proposed"
        raft = self._node.driver.raft
        if change.action == MembershipAction.UPDATE:
            return True
        if change.action == MembershipAction.ADD:
            return change.member_id in raft.configuration.members()
        target = configuration_of(self._roster)
        return raft.configuration == target and raft.configuration_is_committed

    def _finish(self, number: int, waiting: _Waiting) -> None:
        """The change is done; of a removal of this member the list may be as it knows it."""
        members = waiting.members
        if members is None:
            own = self._node.member_id
            members = [member for member in self._roster.listed() if own != member.ID]
        change = waiting.change
        member_id = waiting.ask.member_id if change is None else change.member_id
        self._settle(number, Changed(member_id, members))

    def _settle(self, number: int, result: Changed | KvError) -> None:
        waiting = self._changes.pop(number)
        answer(waiting.reply, result)

    def fail_all(self, kind: ErrorKind) -> None:
        """The member stops: nobody will hear an answer from it any more."""
        for number, waiting in list(self._changes.items()):
            error = kind.error() if waiting.change is None else kind.unknown_outcome()
            self._settle(number, error)

    # --- checks, on the leader --------------------------------------------------------------------

    def _on_check(self, body: bytes, reply: "CallReply") -> None:
        give_up = self._node.loop.time() + self._node.request_timeout_seconds
        self._check(_decode_ask(body), reply, give_up)

    def _check(self, ask: Ask, reply: "CallReply", give_up: float) -> None:
        """Answer with the change to propose, or why there is none; later if that has to wait."""
        node = self._node
        if node.driver.role != Role.LEADER:
            reply(ErrorKind.NO_LEADER.error())
            return
        raft = node.driver.raft
        settled = (
            self._knows_all()
            and raft.configuration == configuration_of(self._roster)
            and raft.configuration_is_committed
        )
        try:
            change = self._admission.admit(ask) if settled else None
        except KvError as error:
            reply(error.with_traceback(None))
            return
        if change is not None:
            reply(_encode(change))
        elif node.loop.time() >= give_up:
            # The change before this one is not carried out, or links are too young to count.
            reply(ErrorKind.UNHEALTHY.error())
        elif len(self._checks) >= CHANGES_MAX:
            reply(ErrorKind.TOO_MANY_REQUESTS.error())
        else:
            self._checks.append((ask, reply, give_up))
