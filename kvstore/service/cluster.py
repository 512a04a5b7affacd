"""The Cluster service: who the members are, and how they change."""

from collections.abc import Callable
from typing import Any

from kvstore.auth.identity import Identity
from kvstore.commands import MembershipAction
from kvstore.config_values import checked_url
from kvstore.errors import ConfigError, ErrorKind, KvError
from kvstore.server.admission import Ask
from kvstore.server.membership import Changed
from kvstore.service.base import Calls
from kvstore.service.caller import Caller
from kvstore.types import (
    Member,
    MemberAddRequest,
    MemberAddResponse,
    MemberListRequest,
    MemberListResponse,
    MemberPromoteRequest,
    MemberPromoteResponse,
    MemberRemoveRequest,
    MemberRemoveResponse,
    MemberUpdateRequest,
    MemberUpdateResponse,
    Record,
)

URLS_MAX = 64
"""Peer URLs that a member may have."""


class ClusterCalls(Calls):
    """Who is in the cluster. Every member takes changes; the leader checks them."""

    def member_list(
        self,
        request: MemberListRequest,
        caller: Caller,
        reply: Callable[[MemberListResponse | KvError], None],
    ) -> None:
        """The members, sorted by id."""

        def here() -> None:
            reply(MemberListResponse(self.header(0), self.machine.roster.listed()))

        def admitted(_: Identity) -> None:
            if request.linearizable:
                self._read(caller, reply, here)
            else:
                here()

        self._admit(request, caller, reply, admitted)

    def member_add(
        self,
        request: MemberAddRequest,
        caller: Caller,
        reply: Callable[[MemberAddResponse | KvError], None],
    ) -> None:
        """Let a member in, as voter or as learner. It has to be started then."""

        def done(changed: Changed) -> None:
            added = next((row for row in changed.members if changed.member_id == row.ID), None)
            reply(MemberAddResponse(self.header(0), added, changed.members))

        ask = self._ask(MembershipAction.ADD, 0, request.peerURLs, reply)
        if ask is not None:
            ask = Ask(ask.action, 0, ask.peer_urls, request.isLearner)
            self._change(request, ask, caller, reply, done)

    def member_remove(
        self,
        request: MemberRemoveRequest,
        caller: Caller,
        reply: Callable[[MemberRemoveResponse | KvError], None],
    ) -> None:
        """Take a member out for good; one that runs stops."""
        ask = Ask(MembershipAction.REMOVE, request.ID, [])
        self._change(request, ask, caller, reply, self._lister(MemberRemoveResponse, reply))

    def member_update(
        self,
        request: MemberUpdateRequest,
        caller: Caller,
        reply: Callable[[MemberUpdateResponse | KvError], None],
    ) -> None:
        """Give a member other peer URLs; it has to listen there by itself."""
        ask = self._ask(MembershipAction.UPDATE, request.ID, request.peerURLs, reply)
        if ask is not None:
            self._change(request, ask, caller, reply, self._lister(MemberUpdateResponse, reply))

    def member_promote(
        self,
        request: MemberPromoteRequest,
        caller: Caller,
        reply: Callable[[MemberPromoteResponse | KvError], None],
    ) -> None:
        """Let a learner vote that has caught up."""
        ask = Ask(MembershipAction.PROMOTE, request.ID, [])
        self._change(request, ask, caller, reply, self._lister(MemberPromoteResponse, reply))

    def _lister(
        self, response: Callable[[Any, list[Member]], Any], reply: Callable[[Any], None]
    ) -> Callable[[Changed], None]:
        return lambda changed: reply(response(self.header(0), changed.members))

    @staticmethod
    def _ask(
        action: MembershipAction, member_id: int, urls: list[str], reply: Callable[[Any], None]
    ) -> Ask | None:
        """What to ask for, with URLs that can be dialled; else the refusal is answered."""
        try:
            checked = sorted({checked_url(url, "peerURLs") for url in urls})
        except ConfigError:
            checked = []
        if not checked or len(checked) > URLS_MAX:
            reply(ErrorKind.MEMBER_BAD_URLS.error())
            return None
        return Ask(action, member_id, checked)

    def _change(
        self,
        request: Record,
        ask: Ask,
        caller: Caller,
        reply: Callable[[Any], None],
        done: Callable[[Changed], None],
    ) -> None:
        def changed(result: Changed | KvError) -> None:
            if isinstance(result, KvError):
                reply(result)
            else:
                done(result)

        def admitted(identity: Identity) -> None:
            if not self._refused(caller, reply):
                self.node.membership.change(ask, changed, self._deadline(caller), identity)

        self._admit(request, caller, reply, admitted)
