"""What the server needs of a network.

HTTP (``http.py``) is one implementation, a simulator's another.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from raft.types import SnapshotMeta


class SnapshotOffer(msgspec.Struct, frozen=True):
    """A snapshot that a leader wants to send.

    What it covers, and the file's size in bytes and checksum.
    """

    sender: int
    term: int
    meta: SnapshotMeta
    size_bytes: int
    crc: int


class Introduction(msgspec.Struct, frozen=True):
    """What a member says of itself, either way, before a link with it counts.

    ``blank``: it has taken part in nothing yet. ``log_id``: drawn when its log was made; 0 for logs
    of a time in which they had none. ``replace_me``: whoever knows that it has lost its data may
    give its place to another, which it will be.
    """

    blank: bool = False
    log_id: int = 0
    replace_me: bool = False


class SnapshotSink(Protocol):
    """Where an offered snapshot is written as it arrives."""

    offset: int
    """How many bytes are already here from an earlier attempt: the sender goes on from there."""

    async def write(self, data: bytes) -> None:
        """Append; returns once there is room for more.

        Raises:
            NetworkError: It cannot be stored.
        """

    async def finish(self) -> str:
        """Verify and install. Returns "" if all is well, else what is wrong."""

    async def abandon(self) -> None:
        """The stream broke; what is here may be continued later."""


class NetworkReceiver(Protocol):
    """Who is told of what arrives."""

    def on_frame(self, member: int, frame: bytes) -> None:
        """One frame from a member.

        Raises ``FrameError`` if it means nothing: the connection is closed.
        """

    def on_link(self, member: int, *, up: bool) -> None:
        """The link to a member came up, or broke: what was in flight may be lost."""

    def introduction(self) -> Introduction:
        """What this member says of itself."""

    def refuse_link(self, member: int, introduction: Introduction) -> str:
        """Why a link with this member is refused, "" if it is not.

        One that has lost what it acknowledged would vote, and be counted, as if it had never done
        so: with it a majority could lose what was committed (Raft §5.4 rests on what is
        acknowledged being kept).
        """

    def was_removed(self, member: int) -> bool:
        """Whether this member was taken out of the cluster, which nobody can undo."""

    def on_removed(self, teller: int) -> None:
        """Another member says that this one was taken out of the cluster."""

    def on_lost(self, member: int, introduction: Introduction) -> None:
        """Where this member was dialled there is no link to be had, but one that asks to be
        replaced.

        Never told of who dials: anybody could say so, but only one answers where a member listens.
        """

    async def on_snapshot(self, offer: SnapshotOffer) -> "SnapshotSink | str":
        """A leader offers a snapshot: where it goes, or why it is refused."""

    def members_json(self) -> bytes:
        """The body of GET /members."""

    def cluster_json(self) -> bytes:
        """The body of GET /kvstore/cluster: what a member needs to know to join."""

    def version_json(self) -> bytes:
        """The body of GET /version."""


class Network(Protocol):
    """Links to all other members."""

    async def start(self, receiver: NetworkReceiver) -> None:
        """Listen, and keep connecting to everybody."""

    async def stop(self) -> None:
        """Close everything."""

    def set_peers(self, peers: dict[int, tuple[str, ...]]) -> None:
        """Whom to be linked with: URLs by member id, this member not among them.

        Others may be linked as well, if they come by themselves: they were let in by entries that
        are not here yet. Before the start they are only noted: a member that recovers a long log
        ticks for a while before it listens.
        """

    def send(self, member: int, frame: bytes) -> bool:
        """Send one frame.

        False if there is no link, or too much waits in it already: the frame is dropped.
        """

    def is_up(self, member: int) -> bool:
        """Whether there is a link now."""

    async def send_snapshot(
        self, member: int, offer: SnapshotOffer, read: Callable[[int, int], Awaitable[bytes]]
    ) -> None:
        """Stream a snapshot file; ``read(offset, length)`` yields its bytes.

        Raises:
            NetworkError: It did not arrive whole, or was refused.
        """


class NetworkError(Exception):
    """A link or a transfer failed; the message says how."""


class FrameError(NetworkError):
    """A peer sent bytes that mean nothing."""
