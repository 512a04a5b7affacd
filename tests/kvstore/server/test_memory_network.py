"""The network in memory keeps to what the one over HTTP does, where whole clusters rely on it."""

import asyncio
import random

import pytest

from kvstore.server.network.base import Introduction, NetworkError, SnapshotOffer, SnapshotSink
from kvstore.server.network.framed import FRAME_BYTES_MAX, UNSENT_BYTES_MAX
from raft.types import Configuration, Index, NodeId, SnapshotMeta, Term
from tests.support.memory_network import MemoryNetwork, Wire
from tests.support.virtual_loop import VirtualLoop, run_virtual

META = SnapshotMeta(Index(9), Term(2), Configuration((NodeId(1), NodeId(2))))
OFFER = SnapshotOffer(1, 2, META, 1000, 77)


class Member:
    """One side, and everything it was told."""

    def __init__(self, wire: Wire, number: int) -> None:
        self.frames: list[bytes] = []
        self.links: list[tuple[int, bool]] = []
        self.offers: list[SnapshotOffer] = []
        self.blank = False
        self.acquainted: set[int] = set()
        self.removed: set[int] = set()
        self.told_removed_by: list[int] = []
        process = wire.loop.new_process(f"m{number}")
        self.network = MemoryNetwork(wire, 0xC1, number, process)

    async def start(self, peer: int) -> None:
        await self.network.start(self)
        self.network.set_peers({peer: ("memory",)})

    def on_frame(self, member: int, frame: bytes) -> None:
        self.frames.append(frame)

    def on_link(self, member: int, *, up: bool) -> None:
        self.links.append((member, up))

    def introduction(self) -> Introduction:
        return Introduction(self.blank)

    def refuse_link(self, member: int, introduction: Introduction) -> str:
        if member in self.removed:
            return f"member {member} was removed"
        lost = introduction.blank and member in self.acquainted
        return f"member {member} lost its data" if lost else ""

    def was_removed(self, member: int) -> bool:
        return member in self.removed

    def on_lost(self, member: int, introduction: Introduction) -> None:
        raise AssertionError(f"member {member} asks to be replaced")

    def on_removed(self, teller: int) -> None:
        self.told_removed_by.append(teller)

    async def on_snapshot(self, offer: SnapshotOffer) -> SnapshotSink | str:
        self.offers.append(offer)
        return "not now"

    def members_json(self) -> bytes:
        return b"[]"

    def cluster_json(self) -> bytes:
        return b"{}"

    def version_json(self) -> bytes:
        return b"{}"


def pair(loop: VirtualLoop) -> tuple[Wire, Member, Member]:
    wire = Wire(loop, random.Random(1))
    return wire, Member(wire, 1), Member(wire, 2)


async def read(offset: int, length: int) -> bytes:
    return bytes(length)


@pytest.mark.parametrize("wiped", [1, 2])
def test_a_member_that_lost_its_data_is_not_linked_with_until_it_is_set_right(wiped: int) -> None:
    async def work(loop: VirtualLoop) -> None:
        wire, one, other = pair(loop)
        lost, kept = (one, other) if wiped == 1 else (other, one)
        lost.blank = True
        kept.acquainted.add(wiped)
        await one.start(2)
        await other.start(1)
        await asyncio.sleep(5.0)
        assert one.links == other.links == []
        assert wire.refused_links == {(3 - wiped, wiped): f"member {wiped} lost its data"}
        with pytest.raises(NetworkError, match=f"member {wiped} lost its data"):
            await one.network.send_snapshot(2, OFFER, read)
        assert other.offers == []
        lost.blank = False
        await asyncio.sleep(5.0)
        assert one.links == [(2, True)]
        assert other.links == [(1, True)]

    run_virtual(work, 60.0)


def test_members_that_are_blank_and_new_to_each_other_are_linked() -> None:
    async def work(loop: VirtualLoop) -> None:
        wire, one, other = pair(loop)
        one.blank = other.blank = True
        await one.start(2)
        await other.start(1)
        await asyncio.sleep(1.0)
        assert one.links == [(2, True)]
        assert wire.refused_links == {}

    run_virtual(work, 60.0)


def test_a_frame_that_is_too_large_is_not_taken_and_a_full_link_takes_none() -> None:
    async def work(loop: VirtualLoop) -> None:
        _, one, other = pair(loop)
        await one.start(2)
        await other.start(1)
        await asyncio.sleep(1.0)
        assert not one.network.send(2, bytes(FRAME_BYTES_MAX + 1))
        assert one.network.send(2, bytes(UNSENT_BYTES_MAX + 1))
        assert not one.network.send(2, b"behind it")
        await asyncio.sleep(1.0)
        assert [len(frame) for frame in other.frames] == [UNSENT_BYTES_MAX + 1]
        assert one.network.dropped_frames_total == 2

    run_virtual(work, 60.0)
