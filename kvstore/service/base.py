"""What all calls share: headers, deadlines, proposing, reading what is current."""

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from kvstore.auth.check import NOBODY, SYSTEM, Identity, authorise
from kvstore.commands import Body, Kind
from kvstore.errors import Code, ErrorKind, KvError, UnknownOutcomeError
from kvstore.server.pacing import SlicedTask
from kvstore.types import RangeRequest, ResponseHeader, SnapshotRequest, StatusRequest
from raft.types import NO_NODE

if TYPE_CHECKING:
    from kvstore.apply import Outcome, StateMachine
    from kvstore.budget import Budget, Sliced
    from kvstore.server.node import Node
    from kvstore.service.caller import Caller
    from kvstore.types import Record

log = logging.getLogger("kvstore.service")

DOUBT_SECONDS_MAX = 1.0
"""How long a refusal waits to learn whether it is still right."""

STALE = (ErrorKind.AUTH_OLD_REVISION.error(), ErrorKind.USER_EMPTY.error())
"""How apply refuses whom it does not know, or not any more."""

_Asked: TypeAlias = tuple[Kind, Body, Callable[[Any], None] | None, Identity, int]
"""What is proposed, what may change its response, as whom, and how often it may be asked again."""


class Calls:
    """Base of the groups of calls.

    Args:
        node: The running member.
    """

    def __init__(self, node: "Node") -> None:
        self.node = node
        self.cluster_id = node.cluster_id
        self.member_id = node.member_id
        self._loop = node.loop
        self._proposals = node.proposals
        self._reads = node.reads
        self._timeout_seconds = node.request_timeout_seconds
        self._limits = node.limits

    @property
    def machine(self) -> "StateMachine":
        """The replicated state of this member, as far as it is applied."""
        return self.node.driver.applier.machine

    def header(self, revision: int | None = None) -> ResponseHeader:
        """A header; ``revision`` defaults to the store's current one."""
        node = self.node
        if revision is None:
            revision = node.driver.applier.machine.store.revision
        return ResponseHeader(self.cluster_id, self.member_id, revision, node.driver.raft.term)

    def _deadline(self, caller: "Caller") -> float:
        own = caller.timeout_seconds
        limit = self._timeout_seconds
        return self._loop.time() + (limit if own is None else min(own, limit))

    def _refused(
        self, caller: "Caller", reply: Callable[[Any], None], *, learners_may: bool = False
    ) -> bool:
        """Answer at once where nothing can be done.

        This member rebuilds its state, or only learns, or the caller wants a leader, and there is
        none.
        """
        if self.node.rebuild.active:
            reply(ErrorKind.REBUILDING.error())
            return True
        if self.node.is_learner and not learners_may:
            reply(ErrorKind.NOT_SUPPORTED_FOR_LEARNER.error())
            return True
        if caller.has_leader and self.node.driver.leader == NO_NODE:
            reply(ErrorKind.NO_LEADER.error())
            return True
        return False

    # --- who may ----------------------------------------------------------------------------------

    def _judge(self, request: "Record", caller: "Caller") -> Identity:
        """Whoever the caller proves to be, if they may do this by what is applied here.

        Raises:
            KvError: They may not, or cannot say who they are.
        """
        machine = self.machine
        auth = machine.auth
        if not auth.enabled:
            return NOBODY
        identity = identify(self.node, caller, auth.revision)
        authorise(auth, identity, request, machine.lessor)
        return identity

    def _admit(
        self,
        request: "Record",
        caller: "Caller",
        reply: Callable[[Any], None],
        then: Callable[[Identity], None],
    ) -> None:
        """Go on as whoever the caller proves to be, if they may do this; else refuse.

        The first step of every call. Exactly one of ``then`` and ``reply`` is called, perhaps
        before this returns, perhaps later on the loop.

        Args:
            request: What is asked for: a request of the API, or the body of a command.
            caller: Carries the token.
            reply: Gets the refusal, a ``KvError``.
            then: Gets the identity to propose with; ``NOBODY`` while authentication is off.
        """
        if self.node.rebuild.active and not isinstance(request, StatusRequest):
            # Its state is an old one, or none: not even who may ask is known.
            reply(ErrorKind.REBUILDING.error())
            return
        if self.node.is_learner and not _is_for_learners(request):
            reply(ErrorKind.NOT_SUPPORTED_FOR_LEARNER.error())
            return
        if not self.machine.auth.enabled:
            then(NOBODY)
            return
        try:
            identity = self._judge(request, caller)
        except KvError as refusal:
            self._doubt(refusal, request, caller, reply, then)
            return
        then(identity)

    def _doubt(
        self,
        refusal: KvError,
        request: "Record",
        caller: "Caller",
        reply: Callable[[Any], None],
        then: Callable[[Identity], None],
    ) -> None:
        """Refuse only by what is current.

        The token or the right may have been given a moment ago, and acknowledged by another member:
        this one asks what there is to know, and judges again. Where that cannot be known the first
        judgement stands.
        """
        if self.node.driver.leader == NO_NODE:
            reply(refusal)
            return

        def current(error: KvError | None) -> None:
            if error is not None:
                reply(refusal)
                return
            try:
                identity = self._judge(request, caller)
            except KvError as final:
                reply(final)
                return
            then(identity)

        patience = self._loop.time() + DOUBT_SECONDS_MAX
        self._reads.submit(current, min(patience, self._deadline(caller)))

    def _still(self, identity: Identity) -> KvError | None:
        """Whether an answer that took a while may still be given; None if it may."""
        auth = self.machine.auth
        if auth.enabled and identity.revision != auth.revision:
            return ErrorKind.AUTH_OLD_REVISION.error()
        return None

    # --- proposing and reading --------------------------------------------------------------------

    def _propose(
        self,
        kind: Kind,
        body: Body,
        caller: "Caller",
        reply: Callable[[Any], None],
        finish: Callable[[Any], None] | None = None,
        *,
        identity: Identity = NOBODY,
        admissions_left: int = 2,
    ) -> None:
        """Put a command through the log and answer with its response, its header filled in.

        ``finish`` may change the response before it goes out. ``identity`` is whom ``_admit``
        admitted; if users have changed meanwhile, so that apply refused it, that is asked again,
        ``admissions_left`` times.
        """
        if self._refused(caller, reply):
            return
        # What may have to be proposed again goes along as one piece: nearly never is it wanted.
        asked = (kind, body, finish, identity, admissions_left)
        self._proposals.submit(
            kind,
            body,
            partial(self._decided, caller, reply, asked),
            self._deadline(caller),
            identity=identity,
        )

    def _decided(
        self,
        caller: "Caller",
        reply: Callable[[Any], None],
        asked: _Asked,
        outcome: "Outcome | KvError",
    ) -> None:
        """Answer with what a proposal came to."""
        if isinstance(outcome, KvError):
            reply(told(caller, outcome))
            return
        response: Any = outcome.response
        if response is None:
            # An earlier command of the same id did the work, and its answer is lost.
            reply(ErrorKind.TIMEOUT.unknown_outcome())
            return
        if isinstance(response, KvError):
            if self._ask_again(caller, reply, asked, response):
                return
        else:
            response.header = self.header(outcome.revision)
            finish = asked[2]
            if finish is not None:
                finish(response)
        reply(response)

    def _ask_again(
        self,
        caller: "Caller",
        reply: Callable[[Any], None],
        asked: _Asked,
        refusal: KvError,
    ) -> bool:
        """Propose once more what was refused only for an identity older than the state."""
        kind, body, finish, identity, admissions_left = asked
        if not (admissions_left and self._is_stale(identity, refusal)):
            return False
        # It did nothing. What is known here now is at least what it was refused by.
        self._admit(
            body,
            caller,
            reply,
            lambda who: self._propose(
                kind,
                body,
                caller,
                reply,
                finish,
                identity=who,
                admissions_left=admissions_left - 1,
            ),
        )
        return True

    def _is_stale(self, identity: Identity, refusal: KvError) -> bool:
        """Whether apply refused an identity for being older than its state."""
        auth = self.machine.auth
        return (
            auth.enabled
            and identity.revision < auth.revision
            and identity is not SYSTEM
            and refusal in STALE
        )

    def _read(
        self, caller: "Caller", reply: Callable[[Any], None], then: Callable[[], None]
    ) -> None:
        """Call ``then`` once the local store shows everything that was acknowledged before now."""
        if self._refused(caller, reply):
            return

        def current(error: KvError | None) -> None:
            if error is None:
                then()
            else:
                reply(told(caller, error))

        self._reads.submit(current, self._deadline(caller))

    def _run(
        self,
        work: "Sliced[Any]",
        budget: "Budget",
        reply: Callable[[Any], None],
        identity: Identity = NOBODY,
    ) -> None:
        """Drive a long read in slices; ``reply`` gets its result or its error.

        ``budget`` is the one that the work itself asks: it is renewed for each slice. If users
        change between two slices, ``identity`` is refused at the end, as in etcd.
        """
        revision = self.machine.store.revision

        def done(result: Any) -> None:
            if isinstance(result, KvError):
                reply(result)
            elif isinstance(result, BaseException):
                log.error("a read failed by a mistake of our own", exc_info=result)
                reply(KvError(Code.INTERNAL, "kvstore: internal error"))
            else:
                # As of when it was read: whoever watches from the next revision on misses nothing.
                result.header = self.header(revision)
                reply(self._still(identity) or result)

        SlicedTask(self.node.rota, work, budget, done)


def identify(node: "Node", caller: "Caller", revision: int) -> Identity:
    """Whoever a caller proves to be: by a token, or else by a certificate.

    A token that is not good is not made good by a certificate, as in etcd.

    Args:
        node: The member that is asked; with ``--client-cert-auth`` certificates count.
        caller: Who asks.
        revision: Of users and roles.

    Raises:
        KvError: The token is not good.
    """
    if caller.token is not None:
        return node.tokens.identify(caller.token, revision)
    if caller.common_name and node.config.client_cert_auth:
        return Identity(caller.common_name, revision)
    return NOBODY


def _is_for_learners(request: "Record") -> bool:
    """Whether a member that only learns serves this: what is said of itself, or may be stale."""
    if isinstance(request, RangeRequest):
        return request.serializable
    return isinstance(request, StatusRequest | SnapshotRequest)


def told(caller: "Caller", error: KvError) -> KvError:
    """A caller with a limit of its own is told that the limit ended the call, as gRPC would."""
    if caller.timeout_seconds is None:
        return error
    if error.code != Code.UNAVAILABLE or "timed out" not in error.message:
        return error
    kind = ErrorKind.DEADLINE_EXCEEDED
    return kind.unknown_outcome() if isinstance(error, UnknownOutcomeError) else kind.error()
