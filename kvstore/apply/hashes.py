"""Hashes of what is stored, to be compared between members: both are CRC32C.

``hash_versions`` is over the keys as of a revision, and says the same on every member that holds
the same history: whether compaction has swept already, and whether the member came back through a
snapshot, makes no difference. ``hash_state`` is over everything that is replicated, and says the
same at an equal applied index only.
"""

from typing import TYPE_CHECKING, Final

import google_crc32c

from kvstore.apply.effects import extend_by_version
from kvstore.budget import Budget, Sliced

if TYPE_CHECKING:
    from kvstore.apply.capture import Capture
    from kvstore.mvcc.store import Store

_STEP: Final = 64
"""Versions between two questions to the budget."""

_NO_VERSIONS: Final = int(google_crc32c.value(b"no versions"))
"""Where the hash begins. Not at 0, which in JSON would be an absent field."""


def hash_versions(store: "Store", revision: int, budget: Budget) -> Sliced[int]:
    """Hash every version at or below a revision that the compaction so far leaves.

    Tombstones are among them. Sweeping waits meanwhile.

    Args:
        store: Whose versions.
        revision: A readable one; below 1 there is nothing.
        budget: Where slices end.
    """
    compacted = store.compacted_revision
    stop = store.log_position(revision + 1)
    store.pin()
    try:
        crc = _NO_VERSIONS
        ordinal = 0
        while ordinal < stop:
            records, ordinal = store.log_slice(ordinal, _STEP, stop)
            for record in store.survivors(records, compacted):
                crc = extend_by_version(crc, record)
            if budget.spent():
                yield
        return crc
    finally:
        store.unpin()


def hash_state(capture: "Capture", budget: Budget) -> Sliced[int]:
    """Hash a captured state, and close the capture."""
    try:
        crc = 0
        for chunk in capture.chunks():
            crc = google_crc32c.extend(crc, chunk)
            if budget.spent():
                yield
        return crc
    finally:
        capture.close()
