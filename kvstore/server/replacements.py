"""Members that lost their data are replaced, one after the other, by whichever member leads.

A member that may replace itself says so where it listens for its peers (``self_replacement.py``),
and whoever dials it there hears it. The leader then gives its place in the roster to a new member
with the same URLs: one command removes the one and adds the other, so that nothing is left half
done whoever fails. The new member learns; once it has caught up the leader lets it vote. What is
left to do can always be told from the roster and from who asks.

Raft would keep the cluster safe in any order of these steps. The checks (``admission.py``) keep it
available: who is linked with anybody is not lost, and one place at a time is given away.
"""

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from kvstore.auth.identity import SYSTEM
from kvstore.commands import MembershipAction
from kvstore.errors import KvError
from kvstore.server.admission import Ask
from kvstore.types import MemberId
from raft.types import Role

if TYPE_CHECKING:
    from kvstore.server.membership import Changed
    from kvstore.server.network.base import Introduction
    from kvstore.server.node import Node
    from kvstore.server.peers import CallReply

log = logging.getLogger("kvstore.members")

ASKED_SECONDS_MAX: Final = 10.0
"""Who has not asked for so long may have been mended: a dialler asks every few seconds."""
PAUSE_SECONDS_MIN: Final = 0.5
PAUSE_SECONDS_MAX: Final = 8.0
ANSWER_SECONDS_MAX: Final = 2.0

_LINKED: Final = "replacement.linked"
_YES: Final = b"1"
_NO: Final = b"0"

_encode = msgspec.msgpack.Encoder().encode
_decode_member = msgspec.msgpack.Decoder(int).decode


class ReplacementKeeper:
    """What a member does so that others are replaced.

    Args:
        node: Whose; complete but for its peer port.

    Attributes:
        said: The last word about it in the log.
    """

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._asked: dict[int, float] = {}
        self._next_step = 0.0
        self._pause = PAUSE_SECONDS_MIN
        self._busy = False
        self.said = ""
        self.replaced_total = 0
        self.promoted_total = 0
        node.peers.serve(_LINKED, self._on_linked)
        node.driver.on_tick(self._tick)

    # --- who asks ---------------------------------------------------------------------------------

    def on_lost(self, member: int, introduction: "Introduction") -> None:
        """A member asks, where it listens, to be replaced."""
        node = self._node
        roster = node.applier.machine.roster
        if MemberId(member) not in roster.members:
            return
        own = roster.log_ids.get(MemberId(member), introduction.log_id)
        who = f"member {member:x}"
        if not node.config.replace_damaged_member:
            self._say(f"{who} asks to be replaced, which --replace-damaged-member would allow")
        elif node.network.is_up(member):
            self._say(f"{who} is not replaced: it is alive")
        elif not introduction.blank and introduction.log_id not in (0, own):
            self._say(f"{who} is not replaced: the log that it lost was not its own")
        else:
            self._asked[member] = node.loop.time()

    def on_link(self, member: int, *, up: bool) -> None:
        """Whoever is linked with this one is as it should be."""
        if up:
            self._asked.pop(member, None)

    def asks(self, member: int) -> bool:
        """Whether this member has asked to be replaced, and is likely to ask still."""
        asked = self._asked.get(member)
        return asked is not None and self._node.loop.time() - asked <= ASKED_SECONDS_MAX

    # --- the leader -------------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        if self._node.driver.role != Role.LEADER or self._busy or now < self._next_step:
            return
        self._next_step = now + self._pause
        ask = self._next_ask()
        if ask is None:
            self._pause = PAUSE_SECONDS_MIN
            return
        self._busy = True
        if ask.action == MembershipAction.REPLACE:
            self._ask_around(ask)
        else:
            self._begin(ask)

    def _next_ask(self) -> Ask | None:
        """What is to be done next: see the replacement under way through, or begin one."""
        node = self._node
        roster = node.applier.machine.roster
        for learner in roster.successors:
            if self.asks(learner):
                return Ask(MembershipAction.REPLACE, learner, [])
            if learner in roster.log_ids and node.network.is_up(learner):
                return Ask(MembershipAction.PROMOTE, learner, [])
            return None
        for member in sorted(self._asked):
            if MemberId(member) in roster.members and self.asks(member):
                return Ask(MembershipAction.REPLACE, member, [])
        return None

    def _ask_around(self, ask: Ask) -> None:
        """Begin unless somebody is linked with the member: then it is well, and only the way from
        here to there leads elsewhere.
        """
        node = self._node
        lost = ask.member_id
        others = [int(member) for member in sorted(node.applier.machine.members)]
        waiting = {member for member in others if member not in (lost, node.member_id)}
        linked: list[int] = []

        def heard(member: int, answer: "bytes | KvError") -> None:
            waiting.discard(member)
            if answer == _YES:
                linked.append(member)
            if waiting:
                return
            if linked:
                self._end(f"member {lost:x} is not replaced: member {linked[0]:x} hears it")
            else:
                self._begin(ask)

        if not waiting:
            self._begin(ask)
        body = _encode(lost)
        for member in sorted(waiting):
            node.peers.call(member, _LINKED, body, ANSWER_SECONDS_MAX, partial(heard, member))

    def _on_linked(self, body: bytes, reply: "CallReply") -> None:
        reply(_YES if self._node.network.is_up(_decode_member(body)) else _NO)

    def _begin(self, ask: Ask) -> None:
        node = self._node
        if node.driver.role != Role.LEADER:
            self._end("")
            return

        def changed(result: "Changed | KvError") -> None:
            who = f"member {ask.member_id:x}"
            if isinstance(result, KvError):
                self._end(f"{who} gets no vote yet: {result.message}" if promote else str(result))
                return
            if promote:
                self.promoted_total += 1
                self._end(f"{who} has caught up, and votes in the place of the one that was lost")
            else:
                self.replaced_total += 1
                self._asked.pop(ask.member_id, None)
                self._end(f"{who}, which lost its data, has given its place to a new member")
            self._pause = PAUSE_SECONDS_MIN

        promote = ask.action == MembershipAction.PROMOTE
        give_up = node.loop.time() + node.request_timeout_seconds
        node.membership.change(ask, changed, give_up, SYSTEM)

    def _end(self, words: str) -> None:
        self._busy = False
        self._pause = min(2 * self._pause, PAUSE_SECONDS_MAX)
        self._next_step = self._node.loop.time() + self._pause
        self._say(words)

    def _say(self, words: str) -> None:
        """Once, not at every attempt."""
        if words and words != self.said:
            self.said = words
            log.warning("%s", words)
