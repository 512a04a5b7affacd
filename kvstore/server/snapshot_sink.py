"""A snapshot that is arriving.

Written as it comes, verified as a whole, loaded, offered to raft.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from kvstore.errors import KvstoreError
from kvstore.server.network.base import NetworkError, SnapshotOffer
from kvstore.server.pacing import in_lane
from wal.errors import WalError
from wal.snapshot_file import SnapshotFile, SnapshotReceiver

if TYPE_CHECKING:
    from kvstore.apply import StateMachine
    from wal.files import Disk, Lane

log = logging.getLogger("kvstore.snapshot")


class ReceivedSnapshot:
    """Implements ``SnapshotSink``.

    Args:
        disk: Where the file goes.
        directory: Its directory.
        lane: Runs file work off the loop.
        offer: What the leader says of it.
        load: Builds the state from the verified file.
        accept: Takes the loaded state: raft decides whether it is wanted.
        ended: Called once when nothing is arriving any more.
    """

    def __init__(
        self,
        disk: "Disk",
        directory: str,
        lane: "Lane",
        offer: SnapshotOffer,
        *,
        load: Callable[[SnapshotFile], "Awaitable[StateMachine]"],
        accept: Callable[[SnapshotOffer, SnapshotFile, "StateMachine"], None],
        ended: Callable[[], None],
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._lane = lane
        self._offer = offer
        self._load = load
        self._accept = accept
        self._ended = ended
        self._receiver: SnapshotReceiver
        self.offset = 0

    async def open(self) -> None:
        """Open the file, and find what an earlier attempt left."""
        offer = self._offer

        def begin() -> SnapshotReceiver:
            file = SnapshotFile("", offer.meta, offer.size_bytes, offer.crc)
            return SnapshotReceiver(self._disk, self._directory, file)

        self._receiver = await in_lane(self._lane, begin)
        self.offset = self._receiver.offset

    async def write(self, data: bytes) -> None:
        """Append; returns once it is written, which is what slows the sender down.

        Raises:
            NetworkError: The disk refused, or the bytes go beyond what was announced.
        """
        try:
            await in_lane(self._lane, lambda: self._receiver.write(self.offset, data))
        except (OSError, WalError) as error:
            raise NetworkError(f"the snapshot cannot be stored: {error}") from error
        self.offset += len(data)

    async def finish(self) -> str:
        """Verify the file, load it, and hand it to raft; returns what is wrong, or ""."""
        try:
            file = await in_lane(self._lane, self._receiver.finish)
            machine = await self._load(file)
        except (OSError, WalError, KvstoreError) as error:
            log.warning("the snapshot that arrived is no good: %s", error)
            return str(error)
        finally:
            self._ended()
        self._accept(self._offer, file, machine)
        return ""

    async def abandon(self) -> None:
        """The stream broke; what arrived stays for the next attempt."""
        self._ended()
        self._lane.submit(self._receiver.suspend, lambda _: None)
