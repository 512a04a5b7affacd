"""The Watch service: a stream of the hub's, with headers, for those who may read."""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from kvstore.auth.check import NOBODY, Identity, authorise
from kvstore.errors import ErrorKind, KvError
from kvstore.service.base import identify
from kvstore.types import ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse
from raft.types import NO_NODE

if TYPE_CHECKING:
    from kvstore.budget import Budget
    from kvstore.server.node import Node
    from kvstore.service.caller import Caller
    from kvstore.watch.watcher import Watcher

LEADERLESS_ELECTIONS = 3
"""A stream whose client asked for a leader ends after so many election timeouts without one."""

WATCHERS_BETWEEN_CHECKS = 64

Admit: TypeAlias = Callable[
    [WatchCreateRequest, Callable[[KvError], None], Callable[[Identity], None]], None
]
"""Calls the first with a refusal, or the second with who asks; perhaps later."""


class ServiceWatch:
    """One client's stream of watchers.

    Pulled by its face: ``take`` again once what it gave is written, or once ``on_ready`` was
    called. So a slow client holds a cursor, not a queue.

    Whoever may not read a range gets no watcher of it; and no event leaves after users have changed
    before it is known that its reader still may.

    Args:
        node: The running member.
        caller: Who watches.
        admit: Asked for each new watcher while authentication is on.
        on_ready: Called when there is something to take again.
        on_close: Called once when the stream is over.
    """

    __slots__ = (
        "_admit",
        "_admitting",
        "_caller",
        "_checked_revision",
        "_closed",
        "_failure",
        "_left",
        "_node",
        "_on_close",
        "_on_ready",
        "_requests",
        "_stream",
        "_user",
        "_user_revision",
        "_working",
    )

    def __init__(
        self,
        node: "Node",
        caller: "Caller",
        admit: Admit,
        on_ready: Callable[[], None],
        on_close: Callable[["ServiceWatch"], None],
    ) -> None:
        self._node = node
        self._caller = caller
        self._admit = admit
        self._on_ready = on_ready
        self._on_close = on_close
        self._stream = node.hub.open_stream(on_ready)
        self._user = ""
        self._user_revision = 0
        self._requests: deque[WatchRequest] = deque()
        self._admitting = False
        self._working = False
        self._checked_revision = 0
        self._left: list[Watcher] = []
        self._failure: KvError | None = None
        self._closed = False

    @property
    def wants_leader(self) -> bool:
        """Whether the client would rather hear of it than wait when there is no leader."""
        return self._caller.has_leader

    # --- what the client asks ---------------------------------------------------------------------

    def request(self, request: WatchRequest) -> None:
        """Create, cancel, or ask for progress; answers come out of ``take``.

        Raises:
            KvError: TOO_MANY_REQUESTS: the client asks on and on and takes no answers.
        """
        if not self._requests and not self._asks_whether_it_may(request):
            self._stream.request(request)
            return
        # In order, also where the first has to wait for its judgement.
        if len(self._requests) >= self._node.hub.limits.answers_max:
            raise ErrorKind.TOO_MANY_REQUESTS.error()
        self._requests.append(request)
        self._work()

    def _asks_whether_it_may(self, request: WatchRequest) -> bool:
        enabled = self._node.driver.applier.machine.auth.enabled
        return enabled and request.create_request is not None

    def _work(self) -> None:
        if self._working:
            return
        self._working = True
        while self._requests and not self._admitting and not self._closed:
            request = self._requests[0]
            create = request.create_request
            if create is None or not self._asks_whether_it_may(request):
                self._requests.popleft()
                self._carry_out(request)
            else:
                self._admitting = True
                self._admit(create, self._refused, self._admitted)
        self._working = False

    def _refused(self, error: KvError) -> None:
        self._admitting = False
        if not self._closed:
            self._requests.popleft()
            self._stream.refuse(rpc_text(error))
            self._work()

    def _admitted(self, identity: Identity) -> None:
        self._admitting = False
        if not self._closed:
            if self._user != identity.user:
                self._user = identity.user
                self._user_revision = identity.revision
            self._carry_out(self._requests.popleft())
            self._work()

    def _carry_out(self, request: WatchRequest) -> None:
        try:
            self._stream.request(request)
        except KvError as error:
            self.fail(error)

    # --- what the member tells --------------------------------------------------------------------

    def wake(self) -> None:
        """Users have changed: who watches is to be judged again at the next ``take``."""
        self._on_ready()

    def fail(self, error: KvError) -> None:
        """End the stream: the next ``take`` raises this."""
        self._failure = error
        self._on_ready()

    # --- what the client takes --------------------------------------------------------------------

    def take(self, budget: "Budget", bytes_max: int) -> list[WatchResponse]:
        """The next responses.

        Of at most about ``bytes_max`` bytes, within a slice of ``budget``.

        Raises:
            KvError: The stream is over: NO_LEADER for a client that wants one, or it asked for too
                much.
        """
        if self._failure is not None:
            raise self._failure
        node = self._node
        if node.driver.applier.machine.auth.enabled and not self._judge_again(budget):
            # Nothing leaves before all are judged.
            self._on_ready()
            return []
        responses = self._stream.take(budget, bytes_max)
        term = node.driver.raft.term
        for response in responses:
            revision = response.header.revision if response.header is not None else 0
            response.header = ResponseHeader(node.cluster_id, node.member_id, revision, term)
        return responses

    def _judge_again(self, budget: "Budget") -> bool:
        """Cancel the watchers that lost their right; False if there are more to look at."""
        machine = self._node.driver.applier.machine
        auth = machine.auth
        left = self._left
        if auth.revision != self._checked_revision:
            self._checked_revision = auth.revision
            left = self._left = self._stream.open_watchers()
        if not left:
            return True
        identity = self._identity(auth.revision)
        while left:
            watcher = left.pop()
            try:
                authorise(
                    auth,
                    identity,
                    WatchCreateRequest(watcher.key, watcher.range_end),
                    machine.lessor,
                )
            except KvError as error:
                self._stream.revoke(watcher, rpc_text(error))
            if not len(left) % WATCHERS_BETWEEN_CHECKS and budget.spent():
                break
        return not left

    def _identity(self, revision: int) -> Identity:
        """Who watches, by the present right: it is not the token that is judged again."""
        if self._user:
            # Whoever was given the name anew is somebody else.
            same = self._node.driver.applier.machine.auth.is_since(self._user, self._user_revision)
            return Identity(self._user, revision) if same else NOBODY
        # Its watchers were made while nobody was asked.
        try:
            user = identify(self._node, self._caller, revision).user
            return Identity(user, revision) if user else NOBODY
        except KvError:
            return NOBODY

    def close(self) -> None:
        """End all watchers of the stream."""
        if not self._closed:
            self._closed = True
            self._requests.clear()
            self._left = []
            self._stream.close()
            self._on_close(self)


class Leaderless:
    """A stream that is no watch, and ends as one would when there is no leader."""

    __slots__ = ("lost",)

    def __init__(self, lost: Callable[[KvError], None]) -> None:
        self.lost = lost


class WatchGuard:
    """All open streams of a member, and what they are to be told besides events."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._patience_seconds = LEADERLESS_ELECTIONS * node.config.election_timeout_ms / 1000
        self._open: dict[ServiceWatch, None] = {}
        self._leaderless: dict[Leaderless, None] = {}
        self._seen = (False, 0)
        self._leaderless_since: float | None = None
        node.driver.on_tick(self._tick)

    def open(self, caller: "Caller", admit: Admit, on_ready: Callable[[], None]) -> ServiceWatch:
        """A new stream.

        Raises:
            KvError: There are too many.
        """
        watch = ServiceWatch(self._node, caller, admit, on_ready, self._forget)
        self._open[watch] = None
        return watch

    def when_leaderless(self, lost: Callable[[KvError], None]) -> Callable[[], None]:
        """Call ``lost`` with NO_LEADER once there has been no leader for too long.

        Returns:
            To be called when that is of no interest any more; as often as one likes.
        """
        waiting = Leaderless(lost)
        self._leaderless[waiting] = None

        def leave() -> None:
            self._leaderless.pop(waiting, None)

        return leave

    def _forget(self, watch: ServiceWatch) -> None:
        self._open.pop(watch, None)

    def _tick(self, now: float) -> None:
        driver = self._node.driver
        auth = driver.applier.machine.auth
        users = (auth.enabled, auth.revision)
        if users != self._seen:
            self._seen = users
            for watch in list(self._open):
                watch.wake()
        if driver.leader != NO_NODE:
            self._leaderless_since = None
            return
        if self._leaderless_since is None:
            self._leaderless_since = now
        if now - self._leaderless_since >= self._patience_seconds:
            for watch in [watch for watch in self._open if watch.wants_leader]:
                watch.fail(ErrorKind.NO_LEADER.error())
            waiting = list(self._leaderless)
            self._leaderless.clear()
            for other in waiting:
                other.lost(ErrorKind.NO_LEADER.error())


def rpc_text(error: KvError) -> str:
    """An error as etcd writes it into a watch response."""
    name = "".join(part.title() for part in error.code.name.split("_"))
    return f"rpc error: code = {name} desc = {error.message}"
