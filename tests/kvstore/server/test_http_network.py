"""Members linked over HTTP, on TCP in memory."""

import asyncio
import json
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from kvstore.server.network import http
from kvstore.server.network.base import FrameError, NetworkError, SnapshotOffer, SnapshotSink
from kvstore.server.network.handshake import Handshake
from kvstore.server.network.http import HttpNetwork
from raft.types import Configuration, Index, NodeId, SnapshotMeta, Term
from tests.support.memory_tcp import TcpLoop
from tests.support.virtual_loop import run_virtual

CLUSTER = 0xC1
SILENCE_SECONDS = 5.0
META = SnapshotMeta(Index(9), Term(2), Configuration((NodeId(1), NodeId(2))))
CONTENT = random.Random(5).randbytes(700_000)
OFFER = SnapshotOffer(1, 2, META, len(CONTENT), 77)


class Sink:
    """Takes a snapshot; may be told to refuse it in the end, and may have a part already."""

    def __init__(self, offset: int = 0, verdict: str = "") -> None:
        self.offset = offset
        self.data = bytearray(CONTENT[:offset])
        self.verdict = verdict
        self.ended: list[str] = []

    async def write(self, data: bytes) -> None:
        await asyncio.sleep(0.001)
        self.data += data

    async def finish(self) -> str:
        self.ended.append("finish")
        return self.verdict

    async def abandon(self) -> None:
        self.ended.append("abandon")


class FullDisk(Sink):
    async def write(self, data: bytes) -> None:
        raise NetworkError("the disk is full")


class Member:
    """One side: a network and everything it was told."""

    def __init__(self, loop: TcpLoop, number: int, cluster: int = CLUSTER) -> None:
        self.number = number
        self.frames: list[tuple[int, bytes]] = []
        self.links: list[tuple[int, bool]] = []
        self.offers: list[SnapshotOffer] = []
        self.sink: SnapshotSink | str = "not now"
        self.network = HttpNetwork(
            cluster, number, (url(number),), random.Random(number), SILENCE_SECONDS
        )

    async def start(self, *peers: int) -> None:
        await self.network.start(self)
        self.network.set_peers({peer: (url(peer),) for peer in peers})

    def on_frame(self, member: int, frame: bytes) -> None:
        if frame == b"nonsense":
            raise FrameError("this means nothing")
        self.frames.append((member, frame))

    def on_link(self, member: int, *, up: bool) -> None:
        self.links.append((member, up))

    async def on_snapshot(self, offer: SnapshotOffer) -> SnapshotSink | str:
        self.offers.append(offer)
        return self.sink

    def members_json(self) -> bytes:
        return b'[{"id":1}]'

    def version_json(self) -> bytes:
        return b'{"etcdserver":"3.6.0"}'


def url(number: int) -> str:
    return f"http://m{number}:2380"


def on_tcp(function: Callable[[TcpLoop], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def test() -> None:
        run_virtual(function, 300.0, TcpLoop)

    return test


async def pair(loop: TcpLoop) -> tuple[Member, Member]:
    one, other = Member(loop, 1), Member(loop, 2)
    await one.start(2)
    await other.start(1)
    await asyncio.sleep(3.0)
    return one, other


async def read(offset: int, length: int) -> bytes:
    return CONTENT[offset : offset + length]


@on_tcp
async def test_two_members_share_one_connection_that_the_smaller_id_dialled(loop: TcpLoop) -> None:
    one, other = await pair(loop)
    assert len(loop.connections) == 1
    assert one.links == [(2, True)]
    assert other.links == [(1, True)]
    assert one.network.is_up(2)
    for number in range(50):
        assert one.network.send(2, b"%d" % number)
    assert other.network.send(1, b"back")
    await asyncio.sleep(1.0)
    assert other.frames == [(1, b"%d" % number) for number in range(50)]
    assert one.frames == [(2, b"back")]
    await one.network.stop()
    await other.network.stop()
    await asyncio.sleep(1.0)
    assert not other.network.is_up(1)
    assert all(end.is_closing() for ends in loop.connections for end in ends)


@on_tcp
async def test_a_broken_link_is_told_and_dialled_anew(loop: TcpLoop) -> None:
    one, other = await pair(loop)
    loop.connections[0][0].abort()
    await asyncio.sleep(1.0)
    assert one.links == [(2, True), (2, False), (2, True)]
    assert other.links == [(1, True), (1, False), (1, True)]
    assert one.network.send(2, b"again")


@on_tcp
async def test_a_frame_that_means_nothing_costs_the_connection_only(loop: TcpLoop) -> None:
    one, other = await pair(loop)
    one.network.send(2, b"nonsense")
    one.network.send(2, b"later")
    await asyncio.sleep(1.0)
    assert other.frames == []
    assert other.links == [(1, True), (1, False), (1, True)]


@on_tcp
async def test_a_link_that_fell_silent_is_dropped_and_dialled_anew(loop: TcpLoop) -> None:
    one, other = await pair(loop)
    await asyncio.sleep(4 * SILENCE_SECONDS)
    assert len(loop.connections) == 1, "an idle link is kept alive"
    for end in loop.connections[0]:
        end.stalled = True
    await asyncio.sleep(2.5 * SILENCE_SECONDS)
    assert len(loop.connections) == 2
    assert one.links == [(2, True), (2, False), (2, True)]
    assert other.links[0] == (1, True)
    assert other.links[-2:] == [(1, False), (1, True)]


@on_tcp
async def test_a_connection_that_replaces_another_tells_that_frames_were_lost(
    loop: TcpLoop,
) -> None:
    """The dialler lost the connection and came back before the other side noticed."""
    one, other = await pair(loop)
    client, server = loop.connections[0]
    server.peer = None
    client.peer = None
    client.abort()
    await asyncio.sleep(1.0)
    assert len(loop.connections) == 2
    assert other.links == [(1, True), (1, False), (1, True)]
    assert server.is_closing()
    assert one.network.send(2, b"again")
    await asyncio.sleep(1.0)
    assert other.frames == [(1, b"again")]


@on_tcp
async def test_a_connection_that_ends_right_behind_its_head_is_no_link(loop: TcpLoop) -> None:
    one, other = Member(loop, 1), Member(loop, 2)
    settle = Handshake._settle

    def settle_and_end(handshake: Handshake) -> None:
        settle(handshake)
        if handshake._client and len(loop.connections) == 1:
            # In the same turn, before the dialling coroutine goes on.
            handshake.transport.lose()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Handshake, "_settle", settle_and_end)
        await one.start(2)
        await other.start(1)
        await asyncio.sleep(3.0)
    assert one.links == [(2, True), (2, False), (2, True)]
    assert one.network.send(2, b"alive")
    await asyncio.sleep(1.0)
    assert other.frames == [(1, b"alive")]


@on_tcp
async def test_a_member_of_another_cluster_is_refused(loop: TcpLoop) -> None:
    one, other = Member(loop, 1, cluster=0xBAD), Member(loop, 2)
    await one.start(2)
    await other.start(1)
    await asyncio.sleep(10.0)
    assert one.links == other.links == []
    refusal = one.network._complained[2]
    assert "412" in refusal
    assert "--initial-cluster-token" in refusal
    # It goes on trying, ever more slowly: the other side may be set right.
    assert 5 < len(loop.connections) < 20


@on_tcp
async def test_a_connection_to_the_wrong_member_is_refused(loop: TcpLoop) -> None:
    one, other = Member(loop, 1), Member(loop, 2)
    await one.network.start(one)
    one.network.set_peers({3: (url(2),)})
    await other.start(1, 3)
    await asyncio.sleep(1.0)
    assert one.links == other.links == []
    assert "this is member 2, not 3" in one.network._complained[3]


@on_tcp
async def test_a_member_that_was_removed_is_refused_and_its_link_closed(loop: TcpLoop) -> None:
    one, other = await pair(loop)
    other.network.set_peers({})
    await asyncio.sleep(1.0)
    assert not other.network.is_up(1)
    assert not one.network.is_up(2)
    assert "is not in this cluster" in one.network._complained[2]


@on_tcp
async def test_what_a_port_in_use_is_called(loop: TcpLoop) -> None:
    await Member(loop, 1).start()
    with pytest.raises(NetworkError, match=r"--listen-peer-urls.*Address already in use"):
        await Member(loop, 1).start()


# --- plain HTTP ---------------------------------------------------------------------------------


async def ask(request: bytes) -> bytes:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().create_connection(
        lambda: asyncio.StreamReaderProtocol(reader), "m1", 2380
    )
    transport.write(request)
    answer = await reader.read()
    transport.close()
    return answer


@on_tcp
async def test_the_peer_port_answers_who_and_what_it_is(loop: TcpLoop) -> None:
    await Member(loop, 1).start()
    head = b" HTTP/1.1\r\nHost: m1\r\n\r\n"
    assert (await ask(b"GET /members" + head)).endswith(b'\r\n\r\n[{"id":1}]')
    assert b"X-Etcd-Cluster-ID: c1\r\n" in await ask(b"GET /members" + head)
    assert (await ask(b"GET /version" + head)).endswith(b'{"etcdserver":"3.6.0"}')
    assert (await ask(b"GET /nothing" + head)).startswith(b"HTTP/1.1 404 ")
    assert (await ask(b"DELETE /members" + head)).startswith(b"HTTP/1.1 405 ")
    upgrade = b"GET /raft HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: "
    assert (await ask(upgrade + b"websocket\r\n\r\n")).startswith(b"HTTP/1.1 426 ")
    refused = await ask(upgrade + b"kvstore-raft/1\r\nKvstore-Cluster: not hex\r\n\r\n")
    assert refused.startswith(b"HTTP/1.1 412 ")
    assert "hexadecimal" in json.loads(refused.partition(b"\r\n\r\n")[2])["error"]


@on_tcp
async def test_a_head_that_never_ends_is_dropped_in_time(loop: TcpLoop) -> None:
    await Member(loop, 1).start()
    started = loop.now
    assert await ask(b"GET /members HTTP/1.1\r\nHost:") == b""
    assert http.HEAD_SECONDS_MAX <= loop.now - started < http.HEAD_SECONDS_MAX + 0.1


@on_tcp
async def test_too_many_connections_without_a_head_are_dropped_at_once(loop: TcpLoop) -> None:
    await Member(loop, 1).start()
    waiting = [loop.create_task(ask(b"GET")) for _ in range(http.INCOMING_MAX + 5)]
    await asyncio.sleep(1.0)
    assert sum(task.done() for task in waiting) == 5
    await asyncio.sleep(http.HEAD_SECONDS_MAX)
    assert all(task.done() for task in waiting)


# --- snapshots ----------------------------------------------------------------------------------


@on_tcp
async def test_a_snapshot_travels_whole_beside_the_frames(loop: TcpLoop) -> None:
    one, other = await pair(loop)
    other.sink = sink = Sink()
    sending = loop.create_task(one.network.send_snapshot(2, OFFER, read))
    one.network.send(2, b"meanwhile")
    await sending
    assert other.offers == [OFFER]
    assert bytes(sink.data) == CONTENT
    assert sink.ended == ["finish"]
    assert other.frames == [(1, b"meanwhile")]
    assert len(loop.connections) == 2


@on_tcp
async def test_a_snapshot_goes_on_where_an_earlier_attempt_stopped(loop: TcpLoop) -> None:
    one, other = await pair(loop)
    other.sink = sink = Sink(offset=600_000)
    offsets: list[int] = []

    async def read_and_note(offset: int, length: int) -> bytes:
        offsets.append(offset)
        return await read(offset, length)

    await one.network.send_snapshot(2, OFFER, read_and_note)
    assert offsets[0] == 600_000
    assert bytes(sink.data) == CONTENT


@on_tcp
async def test_a_refused_snapshot_says_why(loop: TcpLoop) -> None:
    one, other = await pair(loop)
    with pytest.raises(NetworkError, match="409: not now"):
        await one.network.send_snapshot(2, OFFER, read)
    other.sink = Sink(verdict="the checksum differs")
    with pytest.raises(NetworkError, match="the checksum differs"):
        await one.network.send_snapshot(2, OFFER, read)
    with pytest.raises(NetworkError, match="400: the offer names another sender"):
        await one.network.send_snapshot(2, SnapshotOffer(3, 2, META, 1, 1), read)
    with pytest.raises(NetworkError, match="no longer a member"):
        await one.network.send_snapshot(3, OFFER, read)


@pytest.mark.parametrize("end", [0, 1])
def test_a_transfer_that_breaks_off_is_told_at_both_ends(end: int) -> None:
    async def work(loop: TcpLoop) -> None:
        one, other = await pair(loop)
        other.sink = sink = Sink()

        async def read_and_break(offset: int, length: int) -> bytes:
            if offset > 300_000:
                loop.connections[1][end].abort()
                await asyncio.sleep(0.01)
            return await read(offset, length)

        with pytest.raises(NetworkError):
            await one.network.send_snapshot(2, OFFER, read_and_break)
        await asyncio.sleep(1.0)
        assert sink.ended == ["abandon"]
        assert CONTENT.startswith(bytes(sink.data))

    run_virtual(work, 300.0, TcpLoop)


@on_tcp
async def test_a_transfer_that_stalls_is_given_up_by_the_receiver(loop: TcpLoop) -> None:
    one, other = await pair(loop)
    other.sink = sink = Sink()

    async def read_and_stall(offset: int, length: int) -> bytes:
        if offset:
            await asyncio.sleep(30.0)
        return await read(offset, length)

    with pytest.raises(NetworkError):
        await one.network.send_snapshot(2, OFFER, read_and_stall)
    assert sink.ended == ["abandon"]


@on_tcp
async def test_a_snapshot_that_cannot_be_stored_is_given_up(loop: TcpLoop) -> None:
    one, other = await pair(loop)
    other.sink = sink = FullDisk()
    with pytest.raises(NetworkError):
        await one.network.send_snapshot(2, OFFER, read)
    assert sink.ended == ["abandon"]


@on_tcp
async def test_an_offer_that_is_none_is_refused(loop: TcpLoop) -> None:
    await Member(loop, 1).start(2)
    head = (
        b"GET /raft/snapshot HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: kvstore-snapshot/1\r\n"
        b"Kvstore-Cluster: c1\r\nKvstore-From: 2\r\nKvstore-To: 1\r\n"
    )
    for offer in (b"", b"Kvstore-Offer: zz\r\n", b"Kvstore-Offer: 93010203\r\n"):
        assert (await ask(head + offer + b"\r\n")).startswith(b"HTTP/1.1 400 ")
