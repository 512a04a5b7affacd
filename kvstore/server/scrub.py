"""The disk is read again in the background, and what is damaged is written anew.

While the member runs its memory holds all that the disk should: damage that is found in time costs
nothing. A damaged snapshot is set aside and another one taken. A damaged segment of the log is
needed no more once a snapshot covers it, and what follows the snapshot stands, once more, at the
start of a new segment (``Wal.begin_anew``): that goes for the segment in use as well.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from kvstore.errors import KvError
from kvstore.server.pacing import in_lane
from wal.errors import CorruptError, WalError
from wal.scrub import Written, scrub_segment, scrub_snapshot
from wal.snapshot_file import SUFFIX

if TYPE_CHECKING:
    from kvstore.server.bootstrap import Layout
    from kvstore.server.rebuild import Rebuild
    from kvstore.server.snapshots import SnapshotKeeper
    from wal.files import Disk, Lane
    from wal.wal import Wal

log = logging.getLogger("kvstore.scrub")

PAUSE_SECONDS = 60.0
"""Between two passes: the start has just read everything, and so has the pass before."""
ATTEMPTS_MAX = 3
"""How often mending a segment is tried in a pass; the next pass finds it again."""


class Scrub:
    """Reads a member's files again, pass by pass.

    Args:
        disk: Where they are.
        layout: Where on it.
        bytes_per_second: How fast it reads; 0: not at all.
    """

    def __init__(
        self,
        *,
        disk: "Disk",
        layout: "Layout",
        wal: "Wal",
        snapshots: "SnapshotKeeper",
        rebuild: "Rebuild",
        bytes_per_second: int,
    ) -> None:
        self._disk = disk
        self._layout = layout
        self._wal = wal
        self._snapshots = snapshots
        self._rebuild = rebuild
        self._bytes_per_second = bytes_per_second
        self._task: asyncio.Task[None] | None = None
        self._lane: Lane
        self.bytes_total = 0
        self.passes_total = 0
        self.damaged_total = 0
        self._mended = 0
        self._owed: list[Callable[[], bool]] = []
        # One for each file that is being written anew: whether that is durable.

    @property
    def mended_total(self) -> int:
        """Damaged files in whose place there is something sound, durably: what is only on its way
        would go with the process.
        """
        owed = [is_durable for is_durable in self._owed if not is_durable()]
        self._mended += len(self._owed) - len(owed)
        self._owed = owed
        return self._mended

    def start(self) -> None:
        """Begin, if it is wanted."""
        if self._bytes_per_second:
            self._lane = self._disk.lane("scrub")
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Let go of whatever is under way."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            if self._rebuild.active:
                # What is damaged is known, and on its way out.
                continue
            try:
                await self._pass()
            except (WalError, OSError, KvError) as error:
                log.warning("the files could not be read again: %s", error)

    async def _pass(self) -> None:
        before = self.bytes_total, self.damaged_total
        for written in self._wal.written():
            damage = await self._read(scrub_segment(self._disk, self._layout.wal, written))
            if damage is not None and self._is_in_use(written):
                self._found(damage)
                await self._mend_log(written)
        directory = self._layout.snapshots
        for name in await in_lane(self._lane, lambda: self._disk.list(directory)):
            if name.endswith(SUFFIX):
                damage = await self._read(scrub_snapshot(self._disk, f"{directory}/{name}"))
                if damage is not None:
                    self._found(damage)
                    await self._snapshots.discard(name)
                    self._owed.append(self._snapshots.has_durable)
        self.passes_total += 1
        read, damaged = self.bytes_total - before[0], self.damaged_total - before[1]
        log.debug("read %d bytes again, %d files were damaged", read, damaged)

    async def _read(self, pieces: Iterator[int]) -> WalError | None:
        """Read a file at the rate that was set; return what is wrong with it."""
        try:
            while (length := await in_lane(self._lane, lambda: next(pieces, None))) is not None:
                self.bytes_total += length
                await asyncio.sleep(length / self._bytes_per_second)
        except WalError as error:
            return error
        return None

    def _is_in_use(self, written: Written) -> bool:
        return not self._is_gone(written.number)

    def _is_gone(self, number: int) -> bool:
        return all(each.number != number for each in self._wal.written())

    def _found(self, damage: WalError) -> None:
        self.damaged_total += 1
        what = damage.summary if isinstance(damage, CorruptError) else str(damage)
        log.error("found damage, and write anew what is lost: %s", what)

    async def _mend_log(self, written: Written) -> None:
        for _ in range(ATTEMPTS_MAX):
            if await self._snapshots.begin_log_anew():
                self._owed.append(partial(self._is_gone, written.number))
                return
        log.error("the log could not be written anew yet: the next pass tries again")
