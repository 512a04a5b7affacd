"""The state as a stream: format 2.

A stream of MessagePack arrays, each beginning with its tag; tags never go down. The stream may be
cut anywhere into chunks; whoever stores or sends it adds checksums::

    HEAD, once            [0, 2, index, term, revision, compacted_revision, effects_hash,
                           cluster_version, downgrade_enabled, downgrade_target, roster_version,
                           auth_enabled, auth_revision]
    MEMBER, by ID         [1, [ID, name, peerURLs, clientURLs, isLearner], log_id (, replaced)]
    REMOVED, by ID        [2, ID, peerURLs (, log_id)]
    ALARM, in order       [3, [memberID, alarm]]
    ORIGIN, by member     [4, [member, incarnation, low_watermark, [sequence, ...]]]
    USERS, as added       [5, [[name, hashed_password, no_password, [role, ...]], ...]]
    ROLES, as added       [6, [[name, [[permType, key, range_end], ...]], ...]]
    LEASES, as granted    [7, [[id, ttl, remaining, granted_index], ...]]
    VERSIONS, as written  [8, [[key, create_revision, mod_revision, version, value, lease], ...]]
    END, once             [9, users, roles, leases, versions]: how many rows there were

A log id of 0 was not said. Only a learner in the place of a lost voter has the ID of
that one at its end. A role of many permissions is several rows of at most 16, one after the other.

The versions are all that a compaction at ``compacted_revision`` keeps, whether it had been swept
or not; so equal states make equal streams. Which keys a lease holds is not written: each key's
newest version names its lease. Tokens are no part of the state.
"""

import enum
from typing import Final

FORMAT: Final = 2


class Tag(enum.IntEnum):
    """What a row holds."""

    HEAD = 0
    MEMBER = 1
    REMOVED = 2
    ALARM = 3
    ORIGIN = 4
    USERS = 5
    ROLES = 6
    LEASES = 7
    VERSIONS = 8
    END = 9
