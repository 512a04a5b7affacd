"""Members linked over HTTP on TCP in memory, each with a note of all that it was told."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

from kvstore.server.network.base import (
    FrameError,
    Introduction,
    NetworkError,
    SnapshotOffer,
    SnapshotSink,
)
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
        self.blank = False
        self.log_id = 0
        self.acquainted: set[int] = set()
        """Those that have acknowledged something here, and must not come with an empty log."""
        self.log_ids: dict[int, int] = {}
        self.removed: set[int] = set()
        self.told_removed_by: list[int] = []
        self.told_lost: list[tuple[int, Introduction]] = []
        self.replace_me = False
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

    def introduction(self) -> Introduction:
        return Introduction(self.blank, self.log_id, self.replace_me)

    def refuse_link(self, member: int, introduction: Introduction) -> str:
        if member in self.removed:
            return f"member {member} was removed"
        known = self.log_ids.get(member, introduction.log_id)
        blank = introduction.blank and member in self.acquainted
        return f"member {member} lost its data" if blank or known != introduction.log_id else ""

    def was_removed(self, member: int) -> bool:
        return member in self.removed

    def on_removed(self, teller: int) -> None:
        self.told_removed_by.append(teller)

    def on_lost(self, member: int, introduction: Introduction) -> None:
        self.told_lost.append((member, introduction))

    async def on_snapshot(self, offer: SnapshotOffer) -> SnapshotSink | str:
        self.offers.append(offer)
        return self.sink

    def members_json(self) -> bytes:
        return b'[{"id":1}]'

    def cluster_json(self) -> bytes:
        return b'{"cluster_id":193}'

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


async def ask(request: bytes) -> bytes:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().create_connection(
        lambda: asyncio.StreamReaderProtocol(reader), "m1", 2380
    )
    transport.write(request)
    answer = await reader.read()
    transport.close()
    return answer
