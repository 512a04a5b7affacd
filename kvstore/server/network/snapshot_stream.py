"""A snapshot file on its way from a leader to a follower, on a connection of its own.

The request's headers make the offer; the 101 answer says from which byte to go on (an earlier
attempt may have left a part); then come the file's bytes, and from the receiver one byte back: 1 if
the whole file verified and is installed, 0 and a text if not::

    GET /raft/snapshot HTTP/1.1                   HTTP/1.1 101 Switching Protocols
    Upgrade: kvstore-snapshot/1                   Kvstore-Offset: <decimal>
    Kvstore-Offer: <hex of the MessagePack offer>
    ... bytes offset..size of the file ...        1 | 0 text
"""

import asyncio
import binascii
import contextlib
import logging
from collections.abc import Awaitable, Callable

import msgspec

from kvstore.server.network.base import (
    NetworkError,
    NetworkReceiver,
    SnapshotOffer,
    SnapshotSink,
)
from kvstore.server.network.handshake import SNAPSHOT_PROTOCOL, Handshake, introduction_headers

log = logging.getLogger("kvstore.peers")

PIECE_BYTES = 256 * 1024
PIECE_SECONDS_MAX = 10.0
"""How long a piece may take to go or to come before the transfer is given up."""
INSTALL_SECONDS_MAX = 300.0
"""How long the receiver may take to verify and load what it got."""


def _streams(handshake: Handshake) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=PIECE_BYTES)
    protocol = asyncio.StreamReaderProtocol(reader)
    handshake.take_over(protocol)
    return reader, asyncio.StreamWriter(handshake.transport, protocol, reader, loop)


async def send_snapshot(
    dial: Callable[[tuple[str, ...]], Awaitable[Handshake]],
    offer: SnapshotOffer,
    read: Callable[[int, int], Awaitable[bytes]],
) -> None:
    """Offer a snapshot and stream what the receiver lacks.

    Raises:
        NetworkError: Refused, broken off, or not verified at the other end.
    """
    handshake = await dial((f"Kvstore-Offer: {msgspec.msgpack.encode(offer).hex()}",))
    reader, writer = _streams(handshake)
    try:
        offset = int(handshake.headers.get("kvstore-offset", "0"))
        while offset < offer.size_bytes:
            piece = await read(offset, min(PIECE_BYTES, offer.size_bytes - offset))
            if writer.is_closing():
                # A write to a closed transport raises RuntimeError on uvloop.
                raise ConnectionResetError("the receiver went away")
            writer.write(piece)
            async with asyncio.timeout(PIECE_SECONDS_MAX):
                await writer.drain()
            offset += len(piece)
        async with asyncio.timeout(INSTALL_SECONDS_MAX):
            verdict = await reader.read(4096)
    except (OSError, TimeoutError, ValueError) as error:
        raise NetworkError(f"the transfer broke off: {str(error) or 'too slow'}") from error
    finally:
        writer.close()
    if verdict[:1] != b"1":
        raise NetworkError(
            f"the receiver says: {verdict[1:].decode('utf-8', 'replace') or 'nothing'}"
        )


def _offer(handshake: Handshake, member: int) -> SnapshotOffer:
    try:
        raw = bytes.fromhex(handshake.headers.get("kvstore-offer", ""))
        offer = msgspec.msgpack.decode(raw, type=SnapshotOffer)
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise NetworkError(f"no snapshot is offered by these headers: {error}") from error
    if offer.sender != member:
        raise NetworkError("the offer names another sender than the connection")
    return offer


async def receive_snapshot(handshake: Handshake, member: int, receiver: NetworkReceiver) -> None:
    """Take an offered snapshot, or refuse it; never raises for what the other side does."""
    try:
        offer = _offer(handshake, member)
    except NetworkError as error:
        handshake.respond("400 Bad Request", str(error).encode())
        return
    sink = await receiver.on_snapshot(offer)
    if isinstance(sink, str):
        handshake.respond("409 Conflict", sink.encode())
        return
    own = introduction_headers(receiver.introduction())
    handshake.switch(SNAPSHOT_PROTOCOL, (f"Kvstore-Offset: {sink.offset}", *own))
    reader, writer = _streams(handshake)
    try:
        verdict = await _drink(reader, sink, offer.size_bytes)
        if not writer.is_closing():
            writer.write(b"0" + verdict.encode() if verdict else b"1")
            with contextlib.suppress(OSError):
                await writer.drain()
    except (OSError, TimeoutError, NetworkError) as error:
        log.warning("a snapshot from member %x broke off: %s", member, str(error) or "too slow")
        await sink.abandon()
    except asyncio.CancelledError:
        await sink.abandon()
        raise
    finally:
        writer.close()


async def _drink(reader: asyncio.StreamReader, sink: SnapshotSink, size_bytes: int) -> str:
    missing = size_bytes - sink.offset
    while missing > 0:
        async with asyncio.timeout(PIECE_SECONDS_MAX):
            piece = await reader.read(min(PIECE_BYTES, missing))
        if not piece:
            raise ConnectionResetError("the sender went away")
        await sink.write(piece)
        missing -= len(piece)
    return await sink.finish()
