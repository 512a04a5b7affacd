"""A network in memory: seeded delays, links to cut, to slow and to break, snapshots that stop.

As TCP does, a connection delivers what was sent in its order, or breaks. A direction that is cut
holds frames back (they would be sent again until they arrive); when it stays cut for longer than
``silence_seconds`` the connection breaks, both ends hear of it, and what was under way is lost.
While both ends live and hear each other they are linked again by and by.

``Weather`` (``memory_pipe.py``) is worse than TCP.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any

from kvstore.server.network.base import (
    FrameError,
    NetworkError,
    NetworkReceiver,
    SnapshotOffer,
)
from tests.support.memory_pipe import Pipe, Weather

if TYPE_CHECKING:
    from tests.support.virtual_loop import Process, VirtualLoop

DELAY_SECONDS = (0.0002, 0.002)
REDIAL_SECONDS = (0.05, 0.2)
PIECE_BYTES = 16 * 1024
PIECE_SECONDS_MAX = 10.0


class _Connection:
    """Two members, linked."""

    def __init__(self, wire: Wire, ends: tuple[MemoryNetwork, MemoryNetwork]) -> None:
        self._wire = wire
        self.ends = ends
        self.open = True
        self._pipes = {
            sender.member_id: Pipe(
                wire,
                sender.member_id,
                receiver.member_id,
                partial(receiver.process.call_soon, self._deliver, sender.member_id, receiver),
            )
            for sender, receiver in (ends, ends[::-1])
        }
        for end, other in (ends, ends[::-1]):
            end.links[other.member_id] = self
            end.process.call_soon(self._report, end, other.member_id, True)

    def send(self, sender: int, frame: bytes) -> bool:
        return self.open and self._pipes[sender].send(frame)

    def pump(self) -> None:
        for pipe in self._pipes.values():
            pipe.pump()

    def _deliver(self, sender: int, receiver: MemoryNetwork, frame: bytes) -> None:
        # What the receiving process had not read when the connection broke is lost with it.
        if not self.open:
            return
        try:
            receiver.receiver.on_frame(sender, frame)
        except FrameError as error:
            self._wire.refused_frames.append(str(error))
            self.close()

    def _report(self, end: MemoryNetwork, other: int, up: bool) -> None:
        if not end.stopped:
            end.receiver.on_link(other, up=up)

    def close(self) -> None:
        """Break it; both ends hear of it in their own time."""
        if not self.open:
            return
        self.open = False
        for pipe in self._pipes.values():
            pipe.close()
        for end, other in (self.ends, self.ends[::-1]):
            if end.links.get(other.member_id) is self:
                del end.links[other.member_id]
            end.process.call_soon(self._report, end, other.member_id, False)
        self._wire.redial()


class _Transfer:
    """A snapshot under way, on a connection of its own."""

    def __init__(self, wire: Wire, sender: MemoryNetwork, receiver: MemoryNetwork) -> None:
        self._wire = wire
        self.sender = sender
        self.receiver = receiver
        self._inbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._answer: asyncio.Future[Any] | None = None
        self.open = True

    async def run(self, offer: SnapshotOffer, read: Callable[[int, int], Awaitable[bytes]]) -> None:
        try:
            offset = await self._ask(lambda: self.receiver.process.spawn(self._drink(offer)))
            verdict: object = None
            while offset < offer.size_bytes:
                piece = await read(offset, min(PIECE_BYTES, offer.size_bytes - offset))
                self._wire.count_transferred(self, len(piece))
                offset += len(piece)
                piece = self._wire.spoilt(piece)
                verdict = await self._ask(partial(self._inbox.put_nowait, piece))
            if verdict != "":
                raise NetworkError(f"the receiver says: {verdict}")
        except TimeoutError as error:
            raise NetworkError("the transfer broke off: too slow") from error
        finally:
            self.break_off()

    async def _ask(self, question: Callable[[], object]) -> Any:
        """Say something to the receiver and wait for its next word."""
        if not self.open:
            raise NetworkError("the transfer broke off")
        self._answer = answer = self._wire.loop.create_future()
        self._send(self.sender, self.receiver, question)
        async with asyncio.timeout(PIECE_SECONDS_MAX):
            return await answer

    def _reply(self, word: object) -> None:
        self._send(self.receiver, self.sender, self._settle, word)

    def _settle(self, word: object) -> None:
        answer = self._answer
        if answer is None or answer.done():
            return
        if isinstance(word, NetworkError):
            answer.set_exception(word)
        else:
            answer.set_result(word)

    def _send(
        self, source: MemoryNetwork, target: MemoryNetwork, word: Callable[..., object], *args: Any
    ) -> None:
        wire = self._wire

        def arrive() -> None:
            if wire.is_open(source.member_id, target.member_id):
                target.process.call_soon(word, *args)
            else:
                self.break_off()

        wire.call_at(wire.arrival(source.member_id, target.member_id), arrive)

    async def _drink(self, offer: SnapshotOffer) -> None:
        """The receiving process's side."""
        try:
            sink = await self.receiver.receiver.on_snapshot(offer)
        except NetworkError as error:
            sink = str(error)
        if isinstance(sink, str):
            self._reply(NetworkError(sink))
            return
        missing = offer.size_bytes - sink.offset
        self._wire.resumed_bytes += sink.offset
        self._reply(sink.offset)
        while missing > 0:
            piece = await self._inbox.get()
            if piece is None:
                await sink.abandon()
                return
            try:
                await sink.write(piece)
            except NetworkError as error:
                await sink.abandon()
                self._reply(error)
                return
            missing -= len(piece)
            if missing:
                self._reply(None)
        self._reply(await sink.finish())

    def break_off(self) -> None:
        """Break the connection; each end notices if it waits for the other."""
        if self.open:
            self.open = False
            self._wire.transfers.remove(self)
            self.receiver.process.call_soon(self._inbox.put_nowait, None)
            self.sender.process.call_soon(self._settle, NetworkError("the transfer broke off"))


class MemoryNetwork:
    """One process's ``kvstore.server.network.base.Network``."""

    def __init__(self, wire: Wire, cluster_id: int, member_id: int, process: Process) -> None:
        self._wire = wire
        self.cluster_id = cluster_id
        self.member_id = member_id
        self.process = process
        self.receiver: NetworkReceiver
        self.peers: dict[int, tuple[str, ...]] = {}
        self.links: dict[int, _Connection] = {}
        self.stopped = False
        self.dropped_frames_total = 0

    async def start(self, receiver: NetworkReceiver) -> None:
        self.receiver = receiver
        self._wire.attach(self)

    async def stop(self) -> None:
        self.stopped = True
        self._wire.detach(self.member_id)

    def set_peers(self, peers: dict[int, tuple[str, ...]]) -> None:
        gone = [member for member in self.peers if member not in peers]
        self.peers = dict(peers)
        for member in gone:
            if member in self.links:
                self.links[member].close()
        self._wire.redial()

    def send(self, member: int, frame: bytes) -> bool:
        link = self.links.get(member)
        if link is not None and link.send(self.member_id, frame):
            return True
        self.dropped_frames_total += 1
        return False

    def is_up(self, member: int) -> bool:
        return member in self.links

    async def send_snapshot(
        self, member: int, offer: SnapshotOffer, read: Callable[[int, int], Awaitable[bytes]]
    ) -> None:
        transfer = self._wire.open_transfer(self.member_id, member)
        await transfer.run(offer, read)


class Wire:
    """Everything between the members.

    Args:
        loop: Whose time delays are in.
        rng: Decides delays.
        silence_seconds: A connection whose one direction is cut for so long breaks.
    """

    def __init__(self, loop: VirtualLoop, rng: random.Random, silence_seconds: float = 5.0) -> None:
        self.loop = loop
        self._rng = rng
        self._silence_seconds = silence_seconds
        self._ends: dict[int, MemoryNetwork] = {}
        self._cut: dict[tuple[int, int], float] = {}
        self._slow: dict[tuple[int, int], float] = {}
        self._redialling = False
        self.transfers: list[_Transfer] = []
        self.break_transfer_after_bytes: int | None = None
        """The next transfer breaks once it has carried so much."""
        self.weather: dict[tuple[int, int], Weather] = {}
        """By sender and receiver; none is fair weather."""
        self.frames_lost = 0
        self.frames_repeated = 0
        self.pieces_to_spoil = 0
        """So many of the next pieces of snapshots arrive with a bit flipped."""
        self.transfers_broken = 0
        self.transferred_bytes = 0
        self.resumed_bytes = 0
        self.frames_total = 0
        self.refused_frames: list[str] = []
        self.refused_links: dict[tuple[int, int], str] = {}
        """Why one member would not be linked with the other, the last time that it was asked."""

    # --- what members do --------------------------------------------------------------------------

    def attach(self, end: MemoryNetwork) -> None:
        self._ends[end.member_id] = end
        self.redial()

    def detach(self, member: int) -> None:
        """A process ended, in whatever way: its connections break."""
        end = self._ends.pop(member, None)
        if end is None:
            return
        for link in list(end.links.values()):
            link.close()
        for transfer in list(self.transfers):
            if end in (transfer.sender, transfer.receiver):
                transfer.break_off()

    def is_attached(self, end: MemoryNetwork) -> bool:
        """Whether this very process is to be reached."""
        return self._ends.get(end.member_id) is end

    def answers(self, asker: int, end: MemoryNetwork) -> bool:
        """Whether a question gets there now, and its answer back."""
        return not end.process.paused and self._both_open(asker, end.member_id)

    def open_transfer(self, sender: int, receiver: int) -> _Transfer:
        """Connect for a snapshot.

        Raises:
            NetworkError: The receiver cannot be reached, or one refuses the other.
        """
        if receiver not in self._ends or not self._both_open(sender, receiver):
            raise NetworkError("cannot connect")
        refusal = self._refusal((self._ends[sender], self._ends[receiver]))
        if refusal:
            raise NetworkError(refusal)
        transfer = _Transfer(self, self._ends[sender], self._ends[receiver])
        self.transfers.append(transfer)
        return transfer

    def count_transferred(self, transfer: _Transfer, length: int) -> None:
        self.transferred_bytes += length
        limit = self.break_transfer_after_bytes
        if limit is not None and self.transferred_bytes >= limit:
            self.break_transfer_after_bytes = None
            self.transfers_broken += 1
            transfer.break_off()

    def spoilt(self, piece: bytes) -> bytes:
        """A piece of a snapshot as it arrives."""
        if not self.pieces_to_spoil:
            return piece
        self.pieces_to_spoil -= 1
        return piece[:-1] + bytes([piece[-1] ^ 1])

    def count_weather(self, arrivals: list[float]) -> None:
        """So often a frame arrives that was sent once."""
        self.frames_lost += not arrivals
        self.frames_repeated += len(arrivals) > 1

    def call_at(self, when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        """A timer of the network's own: no process's death or pause concerns it."""
        return self.loop.call_at(when, callback, context=self.loop.nobody)

    def arrival(self, sender: int, receiver: int) -> float:
        """When something sent now arrives."""
        delay = self._rng.uniform(*DELAY_SECONDS) + self._slow.get((sender, receiver), 0.0)
        return self.loop.now + delay

    def redial(self) -> None:
        """Link whoever is not linked and could be, in a while."""
        if not self._redialling:
            self._redialling = True
            self.call_at(self.loop.now + self._rng.uniform(*REDIAL_SECONDS), self._dial_all)

    def _dial_all(self) -> None:
        self._redialling = False
        missing = False
        for one, other in combinations(sorted(self._ends), 2):
            ends = self._ends[one], self._ends[other]
            if other in ends[0].links or not self._acquainted(ends):
                continue
            awake = not any(end.process.paused for end in ends)
            if awake and self._both_open(one, other) and not self._refusal(ends):
                _Connection(self, ends)
            else:
                missing = True
        if missing:
            self.redial()

    @staticmethod
    def _acquainted(ends: tuple[MemoryNetwork, MemoryNetwork]) -> bool:
        one, other = ends
        return one.cluster_id == other.cluster_id and (
            other.member_id in one.peers or one.member_id in other.peers
        )

    def _refusal(self, ends: tuple[MemoryNetwork, MemoryNetwork]) -> str:
        """Why either will not be linked with the other, "" if both will."""
        for one, other in (ends, ends[::-1]):
            own = other.receiver.introduction()
            refusal = one.receiver.refuse_link(other.member_id, own)
            if refusal and one.receiver.was_removed(other.member_id):
                other.process.call_soon(other.receiver.on_removed, one.member_id)
            if refusal:
                self._tell_lost(one, other)
                self._tell_lost(other, one)
            if refusal:
                self.refused_links[one.member_id, other.member_id] = refusal
                return refusal
        return ""

    @staticmethod
    def _tell_lost(dialler: MemoryNetwork, dialled: MemoryNetwork) -> None:
        """Whoever looks for a member hears there that it wants to be replaced."""
        own = dialled.receiver.introduction()
        if own.replace_me and dialled.member_id in dialler.peers:
            dialler.process.call_soon(dialler.receiver.on_lost, dialled.member_id, own)

    # --- what tests do ----------------------------------------------------------------------------

    def is_open(self, sender: int, receiver: int) -> bool:
        """Whether anything gets through in this direction."""
        return (sender, receiver) not in self._cut

    def _both_open(self, one: int, other: int) -> bool:
        return self.is_open(one, other) and self.is_open(other, one)

    def cut(self, sender: int, receiver: int) -> None:
        """Let nothing through from one to the other; the way back stays open."""
        self._cut[sender, receiver] = since = self.loop.now

        def silence() -> None:
            if self._cut.get((sender, receiver)) == since:
                self.reset(sender, receiver)

        self.call_at(since + self._silence_seconds, silence)

    def mend(self, sender: int, receiver: int) -> None:
        """Let everything through again in this direction."""
        self._cut.pop((sender, receiver), None)
        end = self._ends.get(sender)
        link = end.links.get(receiver) if end is not None else None
        if link is not None:
            link.pump()
        self.redial()

    def partition(self, *groups: Iterable[int]) -> None:
        """Let members hear only those of their own group."""
        group_of = {member: place for place, group in enumerate(groups) for member in group}
        for one in sorted(group_of):
            for other in sorted(group_of):
                if group_of[one] != group_of[other]:
                    self.cut(one, other)

    def isolate(self, member: int) -> None:
        """Cut one member off from all others, both ways."""
        others = {other for end in self._ends.values() for other in end.peers} | set(self._ends)
        self.partition([member], others - {member})

    def heal(self) -> None:
        """Let everything through again."""
        self._cut.clear()
        self._slow.clear()
        self.weather.clear()
        for end in self._ends.values():
            for link in end.links.values():
                link.pump()
        self.redial()

    def slow(self, sender: int, receiver: int, seconds: float) -> None:
        """Delay everything in this direction by so much."""
        self._slow[sender, receiver] = seconds

    def reset(self, one: int, other: int) -> None:
        """Break the connection of two members; they are linked anew if nothing is in the way."""
        end = self._ends.get(one)
        link = end.links.get(other) if end is not None else None
        if link is not None:
            link.close()
