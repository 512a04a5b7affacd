"""What compaction takes, and how it is found without looking at every key.

Kept at a compacted revision R: everything written at R or later, so that a watch from R misses
nothing; and of each key that was not written at R its newest version below, unless it is a
tombstone.

Since the last compaction (at Q) left each key at most one version below Q, a version from then can
become garbage only if its key was written again since; and a tombstone only if it was written at Q
or later. So the sweep walks the log from Q to R and looks at the keys that it meets: its cost
follows what was written, not what is stored. Example, Q = 3, R = 6::

    revision   1      3      4      5      6        8
    log        put a  put b  put a  del b  del c    put a
    sweep      a@1 goes at a@4 (superseded), b@3 goes at b@5, b@5 goes (a tombstone), c@6 stays
"""

from typing import Final

from kvstore.mvcc.key_index import History, KeyIndex
from kvstore.mvcc.log import RevisionLog

SWEEP_STEP: Final = 64
"""Slots that a sweep looks at between two questions to the budget."""


def sweep(log: RevisionLog, index: KeyIndex, start: int, stop: int, revision: int) -> None:
    """Take what the versions in the slots from ``start`` to below ``stop`` make unreachable at a
    compacted revision.

    All of the slots hold versions at or below ``revision``; slots are to be visited in rising
    order.
    """
    for ordinal, record in log.walk(start, stop, stop - start)[0]:
        versions = index.versions(record.key)
        assert versions is not None, "a retained version's key is known"
        expired = not record.version and record.mod_revision < revision
        if type(versions) is not History:
            if expired:
                log.remove(ordinal)
                index.remove(record.key)
            continue
        while (oldest := versions.ordinals[versions.first]) < ordinal:
            if record.mod_revision == revision and log.revision_of(oldest) == revision:
                break
            log.remove(oldest)
            versions.drop_oldest()
        if expired:
            log.remove(ordinal)
            versions.drop_oldest()
        if not len(versions):
            index.remove(record.key)
        elif len(versions) == 1:
            index.collapse(versions)
