"""What a member with an empty directory asks the others before it begins: who am I to you?

A founder asks whether it was known before: then it has lost what it promised. One that joins a
running cluster (``--initial-cluster-state existing``) learns its own id and the cluster's founders.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import aiohttp
import msgspec

from kvstore.apply.roster import Roster
from kvstore.config_tls import is_https
from kvstore.errors import ConfigError
from kvstore.server.bootstrap import founding_identity
from kvstore.server.identity import Identity
from kvstore.types import Member, Uint64

if TYPE_CHECKING:
    from kvstore.config import ServerConfig
    from kvstore.tls.ports import Port

log = logging.getLogger("kvstore.server")

ASK_SECONDS_MAX = 2.0
"""How long a fresh member waits for its peers to say whether they know it."""
JOIN_SECONDS_MAX = 10.0
"""How long one that joins goes on asking: whom it asks may not have heard of it yet."""
ASK_AGAIN_SECONDS = 0.5
ANSWER_BYTES_MAX = 1024 * 1024

REPLACE = (
    "a member that lost its data must not come back under its old id, for it has forgotten what it "
    "promised. Replace it: kvstore member replace {who} (against a member that runs), then start "
    "this one with --initial-cluster-state=existing; or restore the directory"
)


class ClusterView(msgspec.Struct, frozen=True):
    """The cluster as one of its members sees it: what GET /kvstore/cluster on a peer port says.

    Attributes:
        version: Of its roster: the higher, the newer.
        started: Ids of members that have published themselves.
        removed: Ids of members that were removed.
        successors: Who learns in the place of a voter that was lost: its id, and that voter's.
    """

    cluster_id: Uint64
    version: Uint64
    founders: tuple[Member, ...]
    members: tuple[Member, ...]
    started: tuple[Uint64, ...]
    removed: tuple[Uint64, ...]
    successors: tuple[tuple[Uint64, Uint64], ...] = ()


_encode = msgspec.json.Encoder().encode
_decode_view = msgspec.json.Decoder(ClusterView).decode


def view_of(
    cluster_id: int, founders: tuple[Member, ...], roster: Roster, said: Sequence[int] = ()
) -> ClusterView:
    """What a member with this roster says; ``said`` have published themselves, as its log has it
    that may not be committed yet.
    """
    started = [
        int(member_id)
        for member_id, member in sorted(roster.members.items())
        if member.clientURLs or member_id in roster.log_ids or member_id in said
    ]
    return ClusterView(
        cluster_id=cluster_id,
        version=roster.version,
        founders=founders,
        members=tuple(roster.listed()),
        started=tuple(started),
        removed=tuple([int(member_id) for member_id in sorted(roster.removed)]),
        successors=tuple([(int(new), int(old)) for new, old in sorted(roster.successors.items())]),
    )


def encode_view(view: ClusterView) -> bytes:
    """As JSON."""
    return _encode(view)


class NotThereYetError(ConfigError):
    """No member that was asked has this one in its list."""


class LostMemberError(ConfigError):
    """The cluster has a place for this member, which knows nothing of it, or not any more.

    Attributes:
        member_id: Who it is, or was, to the cluster; 0 if that was not asked.
    """

    def __init__(self, message: str, member_id: int = 0) -> None:
        super().__init__(message)
        self.member_id = member_id


AskMembers = Callable[[Sequence[str]], Awaitable[list[ClusterView]]]
"""Asks who listens for peers at these URLs what the cluster is; those that answer count."""


def find_own(config: "ServerConfig", views: list[ClusterView]) -> Identity:
    """Who this member is, by its peer URLs, to a cluster that was asked.

    Raises:
        ConfigError: They are of several clusters, do not know these URLs, or know them as those of
            a member that has been started before.
    """
    clusters = sorted({view.cluster_id for view in views})
    if len(clusters) > 1:
        raise ConfigError(
            "--initial-cluster names members of different clusters: "
            f"{', '.join(f'{cluster:x}' for cluster in clusters)}"
        )
    urls = set(config.initial_advertise_peer_urls)
    newest = max(views, key=lambda view: view.version)
    own = [member for member in newest.members if not urls.isdisjoint(member.peerURLs)]
    if not own:
        raise NotThereYetError(
            f"--initial-cluster-state is existing, but no member of cluster {clusters[0]:x} has "
            f"the peer URLs {','.join(sorted(urls))}: add this one first: kvstore member add "
            f"{config.name} --peer-urls={','.join(sorted(urls))}"
        )
    member = own[0]
    if any(member.ID in view.started for view in views):
        raise _lost(config, member.ID, member.name)
    others = tuple([other for other in newest.members if other.ID != member.ID])
    return Identity(newest.cluster_id, member.ID, newest.founders, others)


def _lost(config: "ServerConfig", member_id: int, name: str) -> LostMemberError:
    return LostMemberError(
        f"member {member_id:x} ({name}) is known to its cluster, but {config.data_dir} is empty: "
        + REPLACE.format(who=name),
        member_id,
    )


def peers_of(config: "ServerConfig") -> list[str]:
    """Where the other members in --initial-cluster listen."""
    others = [urls for name, urls in config.initial_cluster.items() if name != config.name]
    return [url for each in others for url in each]


async def ask_who_this_is(config: "ServerConfig", ask: AskMembers) -> Identity | None:
    """For an empty directory: who this member is to the cluster that it joins.

    None if it is to found one, and nobody knows it yet.

    Raises:
        ConfigError: See ``join`` and ``refuse_if_known``.
    """
    if config.initial_cluster_state == "existing":
        return await join(config, ask)
    await refuse_if_known(config, founding_identity(config), ask)
    return None


async def join(config: "ServerConfig", ask: AskMembers) -> Identity:
    """Ask the members in --initial-cluster who this one is.

    Raises:
        ConfigError: The flags contradict each other, none of them answers, or see ``find_own``.
    """
    config.check_initial_cluster()
    loop = asyncio.get_running_loop()
    give_up = loop.time() + JOIN_SECONDS_MAX
    urls = peers_of(config)
    while True:
        views = await ask(urls)
        problem: ConfigError
        if views:
            try:
                return find_own(config, views)
            except NotThereYetError as error:
                problem = error
        else:
            problem = ConfigError(
                f"--initial-cluster-state is existing, but {config.data_dir} is empty and none of "
                f"the other members in --initial-cluster answers ({', '.join(urls) or 'none'}): "
                "name members that run; to found a new cluster say new"
            )
        if loop.time() + ASK_AGAIN_SECONDS >= give_up or not urls:
            raise problem
        log.info("not a member yet, asking again: %s", problem)
        await asyncio.sleep(ASK_AGAIN_SECONDS)


async def refuse_if_known(config: "ServerConfig", identity: Identity, ask: AskMembers) -> None:
    """Ask the other founders before a fresh directory takes part as a founder.

    A member that lost its directory has forgotten whom it voted for and what it acknowledged. Were
    it to start anew under its id, a majority could be made of members that never saw what was
    promised. Peers that cannot be reached are not waited for: at the founding nobody may be up yet.

    Raises:
        ConfigError: The cluster already knows this member as started, or as removed; or these are
            the members of a cluster that was founded with others.
    """
    others = [member for member in identity.members if identity.member_id != member.ID]
    views = await ask([url for member in others for url in member.peerURLs])
    own_id = identity.member_id
    for view in views:
        if view.cluster_id != identity.cluster_id:
            _refuse_if_it_has_a_place(config, view)
            continue
        if own_id in view.removed:
            _refuse_if_it_has_a_place(config, view)
            raise ConfigError(
                f"member {own_id:x} ({config.name}) was removed from its cluster: to let this one "
                f"in again, kvstore member add {config.name} "
                f"--peer-urls={','.join(config.initial_advertise_peer_urls)}, then start it with "
                "--initial-cluster-state=existing"
            )
        if own_id in view.started:
            raise _lost(config, own_id, config.name)


def _refuse_if_it_has_a_place(config: "ServerConfig", view: ClusterView) -> None:
    """Refuse to found a cluster with members of one in which another id has this one's URLs.

    Either it was replaced since, or these are today's members and not the founders: the ids that
    follow from them are nobody's. No member would ever be linked with this one.
    """
    urls = set(config.initial_advertise_peer_urls)
    for member in view.members:
        if urls.isdisjoint(member.peerURLs):
            continue
        if member.ID in view.started:
            raise _lost(config, member.ID, member.name)
        raise LostMemberError(
            f"cluster {view.cluster_id:x} waits for member {member.ID:x} at "
            f"{','.join(member.peerURLs)}: to join it, start with "
            "--initial-cluster-state=existing; to found it, with the others' --initial-cluster and "
            "--initial-cluster-token",
            member.ID,
        )


def over_http(tls: "Port") -> AskMembers:
    """Asks by HTTP, with TLS where a URL is https."""

    async def ask(urls: Sequence[str]) -> list[ClusterView]:
        if not urls:
            return []
        timeout = aiohttp.ClientTimeout(total=ASK_SECONDS_MAX)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            answers = await asyncio.gather(*(_view_at(session, url, tls) for url in urls))
        return [view for view in answers if view is not None]

    return ask


async def _view_at(session: aiohttp.ClientSession, url: str, tls: "Port") -> ClusterView | None:
    try:
        context = tls.dial_context() if is_https(url) else True
        async with session.get(f"{url}/kvstore/cluster", ssl=context) as response:
            if response.status == 200 and (response.content_length or 0) <= ANSWER_BYTES_MAX:
                return _decode_view(await response.read())
    except aiohttp.ClientSSLError as error:
        # Nothing will come of it by waiting.
        log.warning("%s does not say who its members are: %s", url, error)
    except (aiohttp.ClientError, TimeoutError, ValueError, ConfigError) as error:
        log.debug("%s does not say who its members are: %s", url, error)
    return None
