"""Snapshots for clients: the state as of now, as a file that is read while it is sent.

It is taken as one of the member's own, and is the same kind of file. So a backup leaves nothing of
its own behind on the disk, and a client that goes away holds nothing back: what is open can be
read to its end even when its name is gone.

Zeros follow it up to whole sectors (``backup.py``): etcdctl takes a file for whole only if it has
so many bytes and those of its SHA-256.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Final

from kvstore.errors import Code, ErrorKind, KvError
from kvstore.server.backup import padded
from kvstore.server.pacing import in_lane
from wal.errors import WalError
from wal.snapshot_file import SnapshotReader

if TYPE_CHECKING:
    from kvstore.server.snapshots import SnapshotKeeper
    from wal.files import Disk, Lane
    from wal.snapshot_file import SnapshotFile

EXPORTS_MAX: Final = 4
"""Snapshots on their way to clients at a time; more are refused at once as retryable.

Each holds a file open, and so the room that it takes.
"""

PIECE_BYTES: Final = 256 * 1024


class SnapshotExports:
    """All that are on their way.

    Args:
        keeper: Takes snapshots.
        disk: Where they are.
        lane: Runs file work off the loop.
    """

    def __init__(self, keeper: "SnapshotKeeper", disk: "Disk", lane: "Lane") -> None:
        self._keeper = keeper
        self._disk = disk
        self._lane = lane
        self.open = 0
        self.exported_total = 0
        self.refused_total = 0

    async def stream(self) -> AsyncGenerator[tuple[bytes, int], None]:
        """A snapshot of the state as it is now, in pieces, each with the bytes that follow it.

        Raises:
            KvError: Too many are on their way, the disk refused, or the member stops.
        """
        if self.open >= EXPORTS_MAX:
            self.refused_total += 1
            raise ErrorKind.TOO_MANY_REQUESTS.error()
        self.open += 1
        reader: SnapshotReader | None = None
        try:
            file = await self._keeper.current()
            reader = await self._opened(file)
            offset = 0
            total = padded(file.size_bytes)
            while offset < file.size_bytes:
                piece = await self._piece(reader, offset)
                if offset + len(piece) == file.size_bytes:
                    piece += bytes(total - file.size_bytes)
                offset += len(piece)
                yield piece, total - offset
            self.exported_total += 1
        except (OSError, WalError) as error:
            raise KvError(
                Code.UNAVAILABLE, f"kvstore: no snapshot can be had: {error}", retryable=True
            ) from error
        finally:
            self.open -= 1
            if reader is not None:
                self._lane.submit(reader.close, lambda _: None)

    async def _opened(self, file: "SnapshotFile") -> SnapshotReader:
        opening = asyncio.ensure_future(
            in_lane(self._lane, lambda: SnapshotReader(self._disk, file))
        )
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The file is opened all the same: somebody must close it.
            opening.add_done_callback(self._close_unwanted)
            raise

    def _close_unwanted(self, opening: "asyncio.Future[SnapshotReader]") -> None:
        if not opening.cancelled() and opening.exception() is None:
            self._lane.submit(opening.result().close, lambda _: None)

    async def _piece(self, reader: SnapshotReader, offset: int) -> bytes:
        return await in_lane(self._lane, lambda: reader.read_raw(offset, PIECE_BYTES))
