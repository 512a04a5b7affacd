"""A seeded sequence of calls: few keys, small ranges, revisions at the edge, so that they meet."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from tests.conformance import generate_auth, generate_kv, generate_other, generate_watch
from tests.conformance.calls import Call
from tests.conformance.material import Material

CALLS: Final = 50

_Maker = Callable[[Material], Call]

_KV: Final[tuple[tuple[int, _Maker], ...]] = (
    (22, generate_kv.put),
    (22, generate_kv.range_),
    (9, generate_kv.delete_range),
    (22, generate_kv.txn),
    (4, generate_kv.compaction),
    (5, generate_other.lease_grant),
    (3, generate_other.lease_revoke),
    (2, generate_other.lease_keep_alive),
    (4, generate_other.lease_time_to_live),
    (2, generate_other.lease_leases),
    (3, generate_other.maintenance),
    (2, generate_other.cluster),
    (6, generate_other.malformed),
    (4, generate_other.concurrency),
)

_WATCHES: Final = ((8, generate_watch.watch),)


def sequence(seed: int, length: int = CALLS) -> list[Call]:
    """The calls of one seed."""
    rng = random.Random(seed)
    material = Material(rng)
    table = list(_KV)
    calls: list[Call] = []
    if rng.random() < 0.4:
        table += _WATCHES
    if rng.random() < 0.25:
        material.auth = True
        calls += generate_auth.founding(material)
        table = [row for row in table if row[1] not in _TOO_OPEN_IN_3_4] + list(generate_auth.TABLE)
    weights = [weight for weight, _ in table]
    makers: list[Any] = [maker for _, maker in table]
    watches = 0
    while len(calls) < length:
        maker = rng.choices(makers, weights)[0]
        if maker is generate_watch.watch:
            watches += 1
            if watches > 3:
                continue
        calls.append(maker(material))
    return calls[:length]


# With authentication on, 3.4 lets anybody do these, or does not look at what they nest: both
# stores would part ways. Ours alone is asked for these by the tests of the table's rows.
_TOO_OPEN_IN_3_4: Final[tuple[_Maker, ...]] = (generate_other.malformed, generate_other.concurrency)
