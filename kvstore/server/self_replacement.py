"""A member that lost its data, or whose state is wrong, becomes a new member in its own place.

It must not come back as it was: it has forgotten what it promised, or knows it wrongly. With
``--replace-damaged-member`` it does by itself what ``kvstore member replace`` asks of an operator:

1. It asks its peers who it is to the cluster.
2. What is left of its directory is set aside, durably (``set_aside.py``).
3. It listens in a *lobby*: as the member that it was, where the cluster looks for that one, it
   takes part in nothing, and answers everybody who dials it that it is to be replaced. Whoever
   leads gives its place to a new member with the same URLs (``replacements.py``).
4. Its peers then know a member with its URLs that was never started: that is who it is now. It
   joins as every new member does, catches up, and the leader lets it vote.

Nothing has to be remembered in between: wherever it is interrupted, the directory and the answers
of its peers say what comes next.
"""

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from kvstore.errors import ConfigError, DivergedError, LostStateError, RemovedError
from kvstore.server import bootstrap, joining, set_aside
from kvstore.server.admission import REPLACING_VOTERS_MIN
from kvstore.server.identity import Identity
from kvstore.server.lobby import Lobby
from kvstore.server.node import Environment, Node
from wal.errors import REPLACE_REMEDY, CorruptError, LockedError
from wal.wal import Wal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kvstore.config import ServerConfig
    from kvstore.server.joining import AskMembers, ClusterView
    from kvstore.types import Member

log = logging.getLogger("kvstore.server")

ASK_AGAIN_SECONDS_MIN: Final = 0.2
ASK_AGAIN_SECONDS_MAX: Final = 3.0
ASK_REMOVED_TIMES: Final = 5
ASK_REMOVED_SECONDS: Final = 0.5
"""How often, and how far apart, one that was removed asks whether it has a new place."""
LOCK_TRIES: Final = 50
LOCK_SECONDS: Final = 0.1


class MemberOpening:
    """Makes a member of whatever a directory holds.

    Args:
        config: Its settings.
        environment: Disk, network, randomness.
        ask: Asks other members; by HTTP in production.
    """

    def __init__(self, config: "ServerConfig", environment: Environment, ask: "AskMembers") -> None:
        self._config = config
        self._environment = environment
        self._ask = ask
        self._urls = joining.peers_of(config)
        self._said = ""
        self._member_id = 0
        self._node: Node | None = None
        self._lobby: Lobby | None = None
        self._missed_since: float | None = None

    async def open(self, failure: BaseException | None = None) -> Node:
        """Open the directory, found or join a cluster, or be replaced first.

        Args:
            failure: What the life before ended with, if ``ends_in_replacement`` says so.

        Raises:
            RemovedError: ``failure``, and nobody else is to take this place.
            ConfigError: The flags, the directory and the cluster do not go together.
            WalError: The directory is damaged, locked, or of another format.
            StateError: A snapshot does not hold together.
            NetworkError: The peer port cannot be listened on.
        """
        if failure is None:
            try:
                return await self._open()
            except (CorruptError, DivergedError, LostStateError, joining.LostMemberError) as error:
                if not self.ends_in_replacement(error):
                    raise
                failure = error
        log.error("this member is to be replaced: %s", failure)
        if self._node is not None:
            # Whom it knew when it ended: all that its flags name may have been replaced since.
            self._look_further(self._node.applier.machine.roster.listed())
            self._node = None
        if isinstance(failure, RemovedError):
            identity = await self._find_new_place(failure)
        else:
            identity = await self._be_replaced(failure)
        return self._new_node(identity)

    def ends_in_replacement(self, failure: BaseException) -> bool:
        """Whether a member that ended like this may go on as another.

        Not if there is a better remedy, as for a file that has no place in the directory.
        """
        if not self._config.replace_damaged_member:
            return False
        if isinstance(failure, CorruptError):
            return REPLACE_REMEDY in failure.remedy
        lost = (LostStateError, DivergedError, RemovedError, joining.LostMemberError)
        return isinstance(failure, lost)

    async def _open(self) -> Node:
        config, disk = self._config, self._environment.disk
        if Wal.exists(disk, bootstrap.layout(config.data_dir).wal):
            return self._new_node(None)
        if config.replace_damaged_member and set_aside.kept(disk, config.data_dir):
            # Even if nobody answers: who has been a member founds nothing.
            raise joining.LostMemberError(
                f"{config.data_dir} holds no log any more, only what was set aside"
            )
        left = set_aside.remains(disk, config.data_dir)
        if left and config.initial_cluster_state != "existing":
            # Even if nobody answers. Who joins gets a new id, whatever lies there.
            raise joining.LostMemberError(
                f"{left[0]} is left of a log that is gone: "
                f"{joining.REPLACE.format(who=config.name)}"
            )
        return self._new_node(await joining.ask_who_this_is(config, self._ask))

    def _new_node(self, identity: Identity | None) -> Node:
        node = Node(self._config, self._environment, identity)
        self._member_id = node.member_id
        self._node = node
        return node

    # --- who this is now --------------------------------------------------------------------------

    async def _find_new_place(self, removed: RemovedError) -> Identity:
        """Who this member is, if it was removed for another in its place.

        An operator who removes it, and adds another with its URLs, does not mean this one.

        Raises:
            RemovedError: It was not.
        """
        for _ in range(ASK_REMOVED_TIMES):
            views = await self._ask(self._urls)
            if views:
                newest = max(views, key=lambda view: view.version)
                places = [new for new, old in newest.successors if old == self._member_id]
                with contextlib.suppress(ConfigError):
                    identity = joining.find_own(self._config, views)
                    if identity.member_id in places:
                        await self._set_aside()
                        return identity
            await asyncio.sleep(ASK_REMOVED_SECONDS)
        raise removed

    async def _be_replaced(self, failure: BaseException) -> Identity:
        """Wait until the cluster has a new member in this one's place: that is who this is then.

        Raises:
            ConfigError: That cannot be.
        """
        if not self._urls:
            raise ConfigError(
                f"{failure}. --replace-damaged-member does not help a cluster of one: nobody else "
                "has what it lost"
            ) from failure
        pause = ASK_AGAIN_SECONDS_MIN
        try:
            while True:
                views = await self._ask(self._urls)
                identity = await self._come_closer(failure, views)
                if identity is not None:
                    self._say(f"this is member {identity.member_id:x} now: joining")
                    return identity
                await asyncio.sleep(pause)
                pause = min(2 * pause, ASK_AGAIN_SECONDS_MAX)
        finally:
            await self._leave_lobby()

    async def _come_closer(
        self, failure: BaseException, views: "list[ClusterView]"
    ) -> Identity | None:
        """Do what the answers call for; returns who this is once that is known."""
        if not views:
            self._say(f"waiting to be replaced: nobody answers at {','.join(self._urls)}")
            return None
        newest = max(views, key=lambda view: view.version)
        self._look_further(newest.members)
        try:
            identity = joining.find_own(self._config, views)
        except joining.NotThereYetError as error:
            # An operator who replaces it takes it out first.
            now = asyncio.get_running_loop().time()
            self._missed_since = now if self._missed_since is None else self._missed_since
            if now - self._missed_since >= joining.JOIN_SECONDS_MAX:
                raise
            self._say(f"the cluster has no place for this member: {error}")
            return None
        except joining.LostMemberError as lost:
            if self._lobby is None or self._lobby.member_id != lost.member_id:
                await self._leave_lobby()
                self._refuse_in_small_cluster(failure, newest, lost.member_id)
                self._check_owner(failure, newest, lost.member_id)
                await self._set_aside()
                self._lobby = await self._enter_lobby(newest, lost.member_id)
            self._lobby.view = newest
            return None
        self._check_owner(failure, newest, identity.member_id)
        await self._set_aside()
        return identity

    def _look_further(self, members: "Iterable[Member]") -> None:
        """Ask all whom the cluster has, which may be others than those that the flags name."""
        own = self._config.initial_advertise_peer_urls
        for member in members:
            self._urls += [url for url in member.peerURLs if url not in (*own, *self._urls)]

    @staticmethod
    def _refuse_in_small_cluster(
        failure: BaseException, view: "ClusterView", member_id: int
    ) -> None:
        voters = [member.ID for member in view.members if not member.isLearner]
        if member_id in voters and len(voters) < REPLACING_VOTERS_MIN:
            raise ConfigError(
                f"{failure}. --replace-damaged-member does not help a cluster of {len(voters)}: "
                "what is left of it is no majority"
            ) from failure

    def _check_owner(self, failure: BaseException, view: "ClusterView", member_id: int) -> None:
        """Whether the directory is of the member that this is, or was.

        Raises:
            ConfigError: It is not. Nothing was changed.
        """
        owner = set_aside.owner_of(self._environment.disk, self._config.data_dir)
        if owner is None:
            return
        known = (member_id, *view.removed)
        if owner.cluster_id != view.cluster_id or owner.member_id not in known:
            raise ConfigError(
                f"{failure}. It is not replaced: {self._config.data_dir} is of member "
                f"{owner.member_id:x} of cluster {owner.cluster_id:x}, and the peer URLs "
                f"{','.join(self._config.initial_advertise_peer_urls)} are those of member "
                f"{member_id:x} of cluster {view.cluster_id:x}"
            ) from failure

    # --- steps ------------------------------------------------------------------------------------

    async def _set_aside(self) -> None:
        """Raises LockedError if somebody else goes on using the directory."""
        config = self._config
        for left in reversed(range(LOCK_TRIES)):
            try:
                set_aside.set_aside(self._environment.disk, config.data_dir)
            except LockedError:
                # What could not be opened may not be closed yet.
                if not left:
                    raise
                await asyncio.sleep(LOCK_SECONDS)
            else:
                return

    async def _enter_lobby(self, view: "ClusterView", member_id: int) -> Lobby:
        identity = Identity(view.cluster_id, member_id, view.founders)
        owner = set_aside.owner_of(self._environment.disk, self._config.data_dir)
        log_id = owner.log_id if owner is not None and owner.member_id == member_id else 0
        lobby = Lobby(member_id, log_id, view, self._environment.new_network(identity))
        await lobby.start()
        self._missed_since = None
        name = self._config.name
        self._say(
            f"waiting until the leader replaces member {member_id:x} ({name}). Where "
            "--replace-damaged-member is not set on all members, help it: kvstore member "
            f"replace {name} (against a member that runs)"
        )
        return lobby

    async def _leave_lobby(self) -> None:
        lobby, self._lobby = self._lobby, None
        if lobby is not None:
            await lobby.stop()

    def _say(self, words: str) -> None:
        """Once, not at every attempt."""
        if words != self._said:
            self._said = words
            log.warning("%s", words)
