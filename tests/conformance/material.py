"""What the calls of one sequence are made of: its few keys, values, leases and users."""

from __future__ import annotations

import random
from typing import Any, Final

from tests.conformance.calls import ChosenLease, Revision

_KEYS: Final = (
    b"a",
    b"b",
    b"c",
    b"ab",
    b"a\0",
    b"b\xff",
    b"d/1",
    b"d/2",
    b"\0",
    b"\xff",
    b"\xff\xff",
)
_VALUES: Final = (b"", b"1", b"2", b"10", b"\xff")
_LEASES: Final = (1, 2, 3, -7)

UNKNOWN_LEASE: Final = 999

_CAMEL: Final = {
    "range_end": "rangeEnd",
    "prev_kv": "prevKv",
    "sort_order": "sortOrder",
    "mod_revision": "modRevision",
    "create_revision": "createRevision",
    "request_put": "requestPut",
    "request_range": "requestRange",
    "count_only": "countOnly",
    "ignore_lease": "ignoreLease",
    "min_mod_revision": "minModRevision",
}
"""The names that are sent in their other form now and then."""


class Material:
    """Draws from one generator: everything follows from the seed."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.keys = rng.sample(_KEYS, rng.randint(3, 6))
        self.leases = list(rng.sample(_LEASES, rng.randint(1, 3)))
        self.chosen_leases = 0
        self.auth = False

    def chance(self, probability: float) -> bool:
        """True that often."""
        return self.rng.random() < probability

    def key(self) -> bytes:
        """One of the sequence's keys; none now and then."""
        return b"" if self.chance(0.01) else self.rng.choice(self.keys)

    def value(self) -> bytes:
        """One of few values, so that comparisons meet; a long one now and then."""
        # Which of two errors comes first is no promise: a request is too large, or nobody's.
        if not self.auth and self.chance(0.01):
            return bytes(self.rng.randbytes(1)) * self.rng.choice((3_000, 20_000))
        return self.rng.choice(_VALUES)

    def range_of_keys(self, single: float = 0.45) -> dict[str, Any]:
        """A key and perhaps the end of a range: a prefix, everything after, an empty one."""
        key = self.key()
        if self.chance(single):
            return {"key": key}
        return {"key": key, "range_end": self.range_end(key)}

    def range_end(self, key: bytes) -> bytes:
        """An end for a range that starts at ``key``.

        Whether an empty range is permitted depends, in etcd, on the shape of a tree.
        """
        end = self._any_end(key)
        return key + b"\0" if self.auth and b"\0" != end <= key else end

    def _any_end(self, key: bytes) -> bytes:
        return self.rng.choice(
            (
                b"\0",
                b"\0",
                _after_prefix(key),
                _after_prefix(key),
                self.rng.choice(self.keys),
                self.rng.choice(self.keys) + b"\0",
                key,
            )
        )

    def lease(self) -> Any:
        """A lease that may exist."""
        choices: list[Any] = [*self.leases, *self.leases, UNKNOWN_LEASE]
        if self.chosen_leases:
            choices.append(ChosenLease(self.rng.randrange(self.chosen_leases)))
        return self.rng.choice(choices)

    def revision(self) -> Any:
        """A revision to read at: mostly near the present, at the edges of history, or beyond."""
        rng = self.rng
        return rng.choice(
            (
                Revision(-rng.randint(0, 4)),
                Revision(-rng.randint(0, 4)),
                Revision(-rng.randint(0, 12)),
                Revision(rng.randint(0, 2), from_start=True),
                Revision(1),
                0,
            )
        )

    def count(self) -> Any:
        """A small number, as one or as a text."""
        number = self.rng.choice((0, 1, 1, 2, 2, 3, 10, -1))
        return str(number) if self.chance(0.5) else number

    def enum(self, names: tuple[str, ...]) -> Any:
        """A member by name or by number."""
        number = self.rng.randrange(len(names))
        return number if self.chance(0.3) else names[number]

    def flags(self, probability: float, *names: str) -> dict[str, Any]:
        """Some of these switched on."""
        return {name: True for name in names if self.chance(probability)}

    def spelled(self, tree: dict[str, Any]) -> dict[str, Any]:
        """The same fields, some of them in the other form of their name."""
        if not self.chance(0.15):
            return tree
        return {_CAMEL.get(name, name): value for name, value in tree.items()}

    def path(self, path: str) -> str:
        """Below ``/v3``, or now and then below its old name."""
        return ("/v3beta" if self.chance(0.03) else "/v3") + path

    def user(self) -> str:
        """Whose token is sent."""
        if not self.auth:
            return ""
        return self.rng.choices(("root", "ann", "bob", ""), (50, 25, 15, 10))[0]


def _after_prefix(key: bytes) -> bytes:
    stripped = key.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b"\0"
