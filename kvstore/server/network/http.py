"""The network over HTTP.

One upgraded connection a pair of members, snapshots on connections of their own.

Of two members the one with the smaller id dials; the other does only if no link comes about for a
while, for it may have been removed, and then nobody else would ever tell it. The request line and
headers of a link, before any frame::

    GET /raft HTTP/1.1                            HTTP/1.1 101 Switching Protocols
    Connection: Upgrade                           Connection: Upgrade
    Upgrade: kvstore-raft/1                       Upgrade: kvstore-raft/1
    Kvstore-Cluster: <hex>                        Kvstore-Log: <hex>
    Kvstore-From: <hex>   Kvstore-To: <hex>       Kvstore-Blank: 1
    Kvstore-Log: <hex>
    Kvstore-Blank: 1

``Kvstore-Log`` names the log that the member keeps, and ``Kvstore-Blank: 1`` is there only if that
log is empty: one that lost its directory no longer knows whom it voted for and what it
acknowledged, and whoever knows which log it had, or that it once took part, refuses it.

A cluster or member that does not fit is refused with 412 and a text that says what differs; the
dialler logs it and goes on trying, slowly, because the other side may be set right. If it is the
dialler that refuses, it closes the connection before any frame. A dialler that was removed from
the cluster finds ``Kvstore-Removed: <its id>`` beside that text. One that has lost its data and
waits to be replaced answers every dialler with 412 and ``Kvstore-Replace-Me: 1`` (which one with an
empty log says in its 101 as well): it is heard by those who dial it, at the URLs that the cluster
has for it, and by nobody whom it dials. The same port answers GET /members, GET /version and GET
/kvstore/cluster (for those who join). Snapshots: ``snapshot_stream.py``.
"""

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

from kvstore.config_tls import is_https
from kvstore.config_values import host_and_port
from kvstore.errors import ConfigError
from kvstore.server.network.base import NetworkError, NetworkReceiver, SnapshotOffer
from kvstore.server.network.framed import FrameLink
from kvstore.server.network.handshake import (
    RAFT_PROTOCOL,
    SNAPSHOT_PROTOCOL,
    Handshake,
    introduction_headers,
    removed_header,
)
from kvstore.server.network.snapshot_stream import receive_snapshot, send_snapshot
from kvstore.server.network.tls import PeerLedger, connect
from kvstore.tls.contexts import reason
from kvstore.tls.listener import Listener
from kvstore.tls.ports import Port

log = logging.getLogger("kvstore.peers")

HEAD_SECONDS_MAX = 5.0
"""How long a connection may take to show its head."""
REDIAL_SECONDS_MIN = 0.05
REDIAL_SECONDS_MAX = 2.0
OTHERS_TURN_SECONDS = 2.0
"""How long the member with the larger id waits for the other to dial."""
NEWCOMERS_MAX = 64
"""Links with members that this one has not heard of yet."""
BACKLOG = 100
INCOMING_MAX = 1024
"""Connections to the peer port that may be open at a time without having shown their head."""


class _LinkRefusedError(NetworkError):
    """This side will not be linked with the one that it dialled."""


class HttpNetwork:
    """Implements ``Network``.

    Args:
        cluster_id: Which cluster; must be equal on both ends.
        member_id: Who this is.
        listen_urls: Where to listen for peers.
        rng: For the jitter of redialling.
        silence_seconds_max: A link that has been silent for so long is dropped and dialled anew.
        tls: For https URLs, one's own and others'.
    """

    def __init__(
        self,
        cluster_id: int,
        member_id: int,
        listen_urls: tuple[str, ...],
        rng: random.Random,
        silence_seconds_max: float,
        tls: Port | None = None,
    ) -> None:
        self._cluster_id = cluster_id
        self._member_id = member_id
        self._listen_urls = listen_urls
        self._rng = rng
        self._silence_seconds_max = silence_seconds_max
        self._peers: dict[int, tuple[str, ...]] = {}
        self._links: dict[int, FrameLink] = {}
        self._diallers: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._tls = tls
        self._servers: list[asyncio.Server | Listener] = []
        self._incoming: dict[Handshake, asyncio.TimerHandle] = {}
        self._receiver: NetworkReceiver
        self._loop: asyncio.AbstractEventLoop
        self._started = False
        self._complained: dict[int, str] = {}
        self._stopped = False
        self.dropped_frames_total = 0

    # --- life -------------------------------------------------------------------------------------

    async def start(self, receiver: NetworkReceiver) -> None:
        """Listen, and keep connecting to everybody."""
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()
        for url in self._listen_urls:
            try:
                host, port = host_and_port(url)
                server = await self._listen(url, host, port)
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or str(error)
                raise NetworkError(
                    f"cannot listen for peers on {url} (--listen-peer-urls): {why}"
                ) from error
            self._servers.append(server)
        self._spawn(self._keep_alive())
        self._started = True
        self._dial_known()

    async def stop(self) -> None:
        """Close everything."""
        self._stopped = True
        for server in self._servers:
            server.close()
        for task in (*self._diallers.values(), *self._tasks):
            task.cancel()
        await asyncio.gather(*self._diallers.values(), *self._tasks, return_exceptions=True)
        for link in list(self._links.values()):
            link.close("this member stops")
        for handshake in list(self._incoming):
            handshake.abort("this member stops")

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def set_peers(self, peers: dict[int, tuple[str, ...]]) -> None:
        """Whom to be linked with."""
        gone = [member for member in self._peers if member not in peers]
        self._peers = dict(peers)
        for member in [member for member in self._diallers if not peers.get(member)]:
            self._diallers.pop(member).cancel()
        for member in gone:
            if member in self._links:
                self._links[member].close("no longer a member")
        if self._started:
            self._dial_known()

    def _dial_known(self) -> None:
        """Keep connecting to everybody who is not connected to yet."""
        for member in sorted(self._peers):
            if self._peers[member] and member not in self._diallers:
                self._diallers[member] = self._loop.create_task(self._keep_dialling(member))

    # --- frames -----------------------------------------------------------------------------------

    def send(self, member: int, frame: bytes) -> bool:
        """Send one frame, or drop it."""
        link = self._links.get(member)
        if link is not None and link.send(frame):
            return True
        self.dropped_frames_total += 1
        return False

    def is_up(self, member: int) -> bool:
        """Whether there is a link now."""
        return member in self._links

    def _link_up(self, handshake: Handshake, member: int) -> None:
        older = self._links.pop(member, None)
        if older is not None:
            # The other side lost the connection that we still hold, and dialled anew.
            older.close("replaced by a newer connection")
            self._receiver.on_link(member, up=False)
        link = FrameLink(
            lambda frame: self._receiver.on_frame(member, frame),
            lambda link, reason: self._link_down(link, member, reason),
            self._loop.time,
        )
        self._links[member] = link
        handshake.take_over(link)
        if self._complained.pop(member, None) is not None:
            log.info("linked with member %x again", member)
        self._receiver.on_link(member, up=True)

    def _link_down(self, link: FrameLink, member: int, reason: str) -> None:
        if self._links.get(member) is link:
            del self._links[member]
            if not self._stopped:
                self._complain(member, f"link broke: {reason}")
                self._receiver.on_link(member, up=False)

    def _complain(
        self, member: int, text: str, level: int = logging.WARNING, cause: Exception | None = None
    ) -> None:
        """Log a trouble with a peer once, not at every attempt."""
        if self._complained.get(member) != text:
            self._complained[member] = text
            log.log(level, "member %x: %s", member, text, exc_info=cause)

    async def _keep_alive(self) -> None:
        """Tell every link that this side lives.

        And drop those that have gone silent (a half-open connection never ends by itself).
        """
        while True:
            await asyncio.sleep(self._silence_seconds_max / 4)
            now = self._loop.time()
            for link in list(self._links.values()):
                if now - link.heard_at > self._silence_seconds_max:
                    link.close(f"silent for {now - link.heard_at:.1f} s")
                else:
                    link.send_alive()

    # --- dialling ---------------------------------------------------------------------------------

    async def _keep_dialling(self, member: int) -> None:
        others_turn = member < self._member_id
        pause = REDIAL_SECONDS_MIN
        attempt = 0
        while True:
            if member in self._links:
                pause = REDIAL_SECONDS_MIN
                await asyncio.sleep(REDIAL_SECONDS_MAX if others_turn else REDIAL_SECONDS_MIN)
                continue
            if others_turn:
                await asyncio.sleep(OTHERS_TURN_SECONDS)
                if member in self._links:
                    continue
            urls = self._peers[member]
            url = urls[attempt % len(urls)]
            attempt += 1
            try:
                handshake = await self._dial(member, url, "/raft", RAFT_PROTOCOL)
                self._link_up(handshake, member)
                continue
            except _LinkRefusedError as error:
                self._complain(member, f"not linked: {error}", logging.ERROR)
            except NetworkError as error:
                self._complain(member, f"cannot link with {url}: {error}")
            except Exception as error:  # noqa: BLE001
                # Nobody else would ever dial: without this task the link is gone for good.
                self._complain(member, f"cannot dial {url}: {error!r}", logging.ERROR, error)
            await asyncio.sleep(pause * self._rng.uniform(0.5, 1.0))
            pause = min(2 * pause, REDIAL_SECONDS_MAX)

    async def _dial(
        self, member: int, url: str, path: str, protocol: str, headers: tuple[str, ...] = ()
    ) -> Handshake:
        """Connect and upgrade.

        Raises:
            NetworkError: No connection, no answer in time, or a refusal, whose text it carries.
        """
        answered: asyncio.Future[str] = self._loop.create_future()

        def settle(_: Handshake, reason: str = "") -> None:
            if not answered.done():
                answered.set_result(reason)

        handshake = Handshake(client=True, on_head=settle, on_lost=settle)
        try:
            host, port = host_and_port(url)
            lines = (
                f"GET {path} HTTP/1.1",
                f"Host: {host}:{port}",
                "Connection: Upgrade",
                f"Upgrade: {protocol}",
                f"Kvstore-Cluster: {self._cluster_id:x}",
                f"Kvstore-From: {self._member_id:x}",
                f"Kvstore-To: {member:x}",
                *introduction_headers(self._receiver.introduction()),
                *headers,
            )
            head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
            async with asyncio.timeout(HEAD_SECONDS_MAX):
                await connect(handshake, host, port, self._tls if is_https(url) else None)
                handshake.write(head)
                self._judge(handshake, member, await answered)
        except BaseException as error:
            # However this ended, nobody is left to close the connection.
            handshake.drop()
            if isinstance(error, TimeoutError):
                raise NetworkError("no answer in time") from error
            if isinstance(error, OSError):
                raise NetworkError(reason(error)) from error
            if isinstance(error, ConfigError):
                raise NetworkError(str(error)) from error
            if isinstance(error, ValueError):
                # The URL, or a host that the resolver cannot even encode.
                raise NetworkError(f"no address: {error}") from error
            raise
        return handshake

    def _judge(self, handshake: Handshake, member: int, reason: str) -> None:
        """Whether the answer to a call is a link.

        Raises:
            NetworkError: It is not.
        """
        if not reason and handshake.says_removed(self._member_id):
            self._receiver.on_removed(member)
        introduction = handshake.introduction
        if not reason and not handshake.upgraded and introduction.replace_me:
            self._receiver.on_lost(member, introduction)
        if reason or not handshake.upgraded:
            raise NetworkError(reason or f"refused with {handshake.status}: {handshake.body}")
        refusal = self._receiver.refuse_link(member, introduction)
        if refusal and introduction.replace_me:
            self._receiver.on_lost(member, introduction)
        if refusal:
            raise _LinkRefusedError(refusal)

    # --- accepting --------------------------------------------------------------------------------

    async def _listen(self, url: str, host: str, port: int) -> asyncio.Server | Listener:
        if not is_https(url):
            return await self._loop.create_server(self._accept, host, port)
        assert self._tls is not None, f"{url} without a certificate"
        listener = self._tls.listener(self._accept, PeerLedger(self._has_room))
        await listener.open(host, port, BACKLOG)
        return listener

    def _has_room(self) -> bool:
        handshakes = sum(len(each) for each in self._servers if isinstance(each, Listener))
        return len(self._incoming) + handshakes < INCOMING_MAX

    def _accept(self) -> Handshake:
        handshake = Handshake(client=False, on_head=self._on_request, on_lost=self._on_refused)
        if not self._has_room():
            # It closes as soon as there is a connection to close.
            handshake.abort("too many connections")
        else:
            self._incoming[handshake] = self._loop.call_later(
                HEAD_SECONDS_MAX, handshake.abort, "no whole head in time"
            )
        return handshake

    def _no_longer_incoming(self, handshake: Handshake) -> None:
        timer = self._incoming.pop(handshake, None)
        if timer is not None:
            timer.cancel()

    def _on_refused(self, handshake: Handshake, reason: str) -> None:
        self._no_longer_incoming(handshake)
        log.debug("a connection to the peer port ended before its head: %s", reason)

    def _on_request(self, handshake: Handshake) -> None:
        self._no_longer_incoming(handshake)
        upgrade = handshake.headers.get("upgrade", "") if handshake.upgraded else ""
        if upgrade in (RAFT_PROTOCOL, SNAPSHOT_PROTOCOL):
            self._on_upgrade(handshake, upgrade)
        elif handshake.upgraded:
            handshake.respond("426 Upgrade Required", b"", (f"Upgrade: {RAFT_PROTOCOL}",))
        elif handshake.method != "GET":
            handshake.respond("405 Method Not Allowed", b"", ("Allow: GET",))
        elif handshake.path == "/members":
            cluster = f"X-Etcd-Cluster-ID: {self._cluster_id:x}"
            handshake.respond("200 OK", self._receiver.members_json(), (cluster,))
        elif handshake.path == "/kvstore/cluster":
            handshake.respond("200 OK", self._receiver.cluster_json())
        elif handshake.path == "/version":
            handshake.respond("200 OK", self._receiver.version_json())
        else:
            handshake.respond("404 Not Found", b'{"error":"Not Found"}')

    def _on_upgrade(self, handshake: Handshake, upgrade: str) -> None:
        member, stranger = self._identify(handshake.headers)
        refusal = stranger or self._receiver.refuse_link(member, handshake.introduction)
        if not stranger and not refusal:
            refusal = self._misdirected(member, handshake.headers)
        if refusal:
            if stranger:
                log.warning("refused a peer: %s", refusal)
            else:
                self._complain(member, f"not linked: {refusal}", logging.ERROR)
            removed = not stranger and self._receiver.was_removed(member)
            headers = (removed_header(member),) if removed else ()
            own = self._receiver.introduction()
            if own.replace_me and handshake.headers.get("kvstore-to") == f"{self._member_id:x}":
                headers = (*headers, *introduction_headers(own))
            body = json.dumps({"error": refusal}).encode()
            handshake.respond("412 Precondition Failed", body, headers)
        elif upgrade == RAFT_PROTOCOL:
            handshake.switch(RAFT_PROTOCOL, introduction_headers(self._receiver.introduction()))
            self._link_up(handshake, member)
        else:
            self._spawn(receive_snapshot(handshake, member, self._receiver))

    def _identify(self, headers: dict[str, str]) -> tuple[int, str]:
        """Who dials, and why nobody of this cluster would do so ("" if they might)."""
        try:
            cluster = int(headers.get("kvstore-cluster", ""), 16)
            sender = int(headers.get("kvstore-from", ""), 16)
        except ValueError:
            return 0, "the Kvstore-Cluster and -From headers must be hexadecimal ids"
        if cluster != self._cluster_id:
            return sender, (
                f"member {sender:x} is of cluster {cluster:x}, this member {self._member_id:x} is "
                f"of {self._cluster_id:x}: --initial-cluster and --initial-cluster-token must be "
                "equal everywhere"
            )
        if sender not in self._peers and len(self._links) - len(self._peers) >= NEWCOMERS_MAX:
            return sender, "too many that this member does not know are linked with it already"
        return sender, ""

    def _misdirected(self, sender: int, headers: dict[str, str]) -> str:
        """Whether a member dials another than this one, or itself: "" if it does not."""
        if headers.get("kvstore-to") != f"{self._member_id:x}" or sender == self._member_id:
            return (
                f"this is member {self._member_id:x}, not {headers.get('kvstore-to')}: "
                "the peer URLs name the wrong process"
            )
        return ""

    # --- snapshots --------------------------------------------------------------------------------

    async def send_snapshot(
        self, member: int, offer: SnapshotOffer, read: Callable[[int, int], Awaitable[bytes]]
    ) -> None:
        """Stream a snapshot file to a member.

        Raises:
            NetworkError: It did not arrive whole, or was refused.
        """
        await send_snapshot(
            lambda headers: self._dial_for_snapshot(member, headers),
            offer,
            read,
        )

    async def _dial_for_snapshot(self, member: int, headers: tuple[str, ...]) -> Handshake:
        """Connect where the member can be reached: of several URLs not all need lead there.

        Raises:
            NetworkError: None does, or it refuses.
        """
        problems: list[str] = []
        for url in self._peers.get(member, ()):
            try:
                return await self._dial(member, url, "/raft/snapshot", SNAPSHOT_PROTOCOL, headers)
            except _LinkRefusedError:
                raise
            except NetworkError as error:
                problems.append(str(error))
        raise NetworkError("; ".join(dict.fromkeys(problems)) or "no longer a member")
