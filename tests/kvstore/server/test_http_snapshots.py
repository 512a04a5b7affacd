"""Snapshots over HTTP, on TCP in memory, beside the frames."""

import asyncio

import pytest

from kvstore.server.network.base import NetworkError, SnapshotOffer
from tests.support.http_member import (
    CONTENT,
    META,
    OFFER,
    FullDisk,
    Member,
    Sink,
    ask,
    on_tcp,
    pair,
    read,
    url,
)
from tests.support.memory_tcp import TcpLoop
from tests.support.virtual_loop import run_virtual


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
async def test_a_snapshot_goes_to_whichever_url_leads_to_the_member(loop: TcpLoop) -> None:
    one, other = await pair(loop)
    other.sink = sink = Sink()
    one.network.set_peers({2: ("http://nowhere:2380", url(2))})
    await one.network.send_snapshot(2, OFFER, read)
    assert bytes(sink.data) == CONTENT
    one.network.set_peers({2: ("http://nowhere:2380", "http://nobody:2380")})
    with pytest.raises(NetworkError, match="refused"):
        await one.network.send_snapshot(2, OFFER, read)


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


@on_tcp
async def test_no_snapshot_goes_to_a_member_that_lost_its_data(loop: TcpLoop) -> None:
    """With it, it would not be blank any more when it starts the next time."""
    one, other = await pair(loop)
    one.acquainted.add(2)
    other.blank = True
    other.sink = sink = Sink()
    with pytest.raises(NetworkError, match="member 2 lost its data"):
        await one.network.send_snapshot(2, OFFER, read)
    await asyncio.sleep(1.0)
    assert sink.data == b""
    assert sink.ended == ["abandon"]
