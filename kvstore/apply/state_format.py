"""The state as a stream: format 1.

A stream of MessagePack arrays, each beginning with its tag; tags never go down. The stream may be
cut anywhere into chunks; whoever stores or sends it adds checksums::

    [0, 1, index, term, revision, compacted_revision, effects_hash, cluster_version]     HEAD, once
    [1, [ID, name, peerURLs, clientURLs, isLearner]]                                     MEMBER,
    by ID [2, [memberID, alarm]]
    ALARM, in order [3, [member, incarnation, low_watermark, [sequence, ...]]]
    ORIGIN, by member [4, [[id, ttl, remaining], ...]]
    LEASES, by id [5, [[key, create_revision, mod_revision, version, value, lease], ...]]
    VERSIONS, as written [6, leases, versions]
    END, once: how many there were

The versions are all that a compaction at ``compacted_revision`` keeps, whether it had been swept
or not; so equal states make equal streams. Which keys a lease holds is not written: each key's
newest version names its lease.
"""

import enum
from typing import Final

FORMAT: Final = 1


class Tag(enum.IntEnum):
    """What a row holds."""

    HEAD = 0
    MEMBER = 1
    ALARM = 2
    ORIGIN = 3
    LEASES = 4
    VERSIONS = 5
    END = 6
