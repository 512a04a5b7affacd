"""A member whose state is wrong stays out of use when its process has ended: a file says so.

data-dir/member/diverged     why, as UTF-8 text; what counts is that it is there

What only a process knows the next one forgets: it would serve what is wrong until the members were
compared again. The file goes with the directory, which the remedy takes away.
"""

import logging
import os
from typing import TYPE_CHECKING, Final

from kvstore.errors import DivergedError
from wal.segment import TEMPORARY_SUFFIX

if TYPE_CHECKING:
    from wal.files import Disk

log = logging.getLogger("kvstore.server")

NAME: Final = "diverged"
WHY_BYTES_MAX: Final = 4096


def keep(disk: "Disk", directory: str, why: str) -> None:
    """Write it, durably. Blocks: nothing is served any more.

    Args:
        disk: Where.
        directory: The member's, in use.
        why: What a start is to be refused with.
    """
    path = os.path.join(directory, NAME)
    temporary = path + TEMPORARY_SUFFIX
    try:
        if os.path.basename(temporary) in disk.list(directory):
            disk.remove(temporary)
        file = disk.create(temporary)
        try:
            file.write([why.encode()[:WHY_BYTES_MAX]], 0)
            file.sync()
        finally:
            file.close()
        disk.rename(temporary, path)
        disk.sync_directory(directory)
    except OSError as error:
        log.critical(
            "that this member differs could not be written down (%s): started again, it serves "
            "until the members are compared once more. Do not start it on this directory",
            error,
        )


def refuse(disk: "Disk", directory: str) -> None:
    """Refuse a directory whose member was found to be wrong.

    Raises:
        DivergedError: It was.
    """
    if NAME not in disk.list(directory):
        return
    file = disk.open(os.path.join(directory, NAME))
    why = file.read(min(file.size(), WHY_BYTES_MAX), 0)
    file.close()
    raise DivergedError(why.decode(errors="replace"))
