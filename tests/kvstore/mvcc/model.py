"""The store as nobody would build it: a full copy of all keys at every revision."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest.mock import patch

from kvstore.errors import ErrorKind
from kvstore.types import KeyValue, RangeRequest, RangeResponse, SortOrder, SortTarget

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL_BLOCK_BITS = 3


@contextmanager
def small_blocks() -> Iterator[None]:
    """Blocks of eight slots, so that few versions fill, thin out and empty many of them."""
    slots = 1 << SMALL_BLOCK_BITS
    with patch.multiple(
        "kvstore.mvcc.log",
        BLOCK_BITS=SMALL_BLOCK_BITS,
        BLOCK_SLOTS=slots,
        _SLOT_MASK=slots - 1,
        _SPARSE_RECORDS_MAX=slots // 2,
    ):
        yield


def in_range(key: bytes, low: bytes, range_end: bytes) -> bool:
    if not range_end:
        return key == low
    return key >= low and (range_end == b"\0" or key < range_end)


class Model:
    """Every revision's keys, and every change."""

    def __init__(self) -> None:
        self.states: list[dict[bytes, KeyValue]] = [{}, {}]
        self.log: list[KeyValue] = []
        self.compacted = -1
        self.state: dict[bytes, KeyValue] = {}
        self.pending: list[KeyValue] = []

    @property
    def revision(self) -> int:
        return len(self.states) - 1

    def put(self, key: bytes, value: bytes, lease: int = 0) -> None:
        old = self.state.get(key)
        revision = self.revision + 1
        created, version = (old.create_revision, old.version + 1) if old else (revision, 1)
        self.state[key] = KeyValue(key, created, revision, version, value, lease)
        self.pending.append(self.state[key])

    def delete(self, key: bytes) -> None:
        if self.state.pop(key, None) is not None:
            self.pending.append(KeyValue(key, 0, self.revision + 1))

    def publish(self) -> None:
        if self.pending:
            self.states.append(dict(self.state))
            self.log += self.pending
            self.pending = []

    def readable(self, revision: int) -> int:
        if revision > self.revision:
            raise ErrorKind.FUTURE_REVISION.error()
        if revision <= 0:
            return self.revision
        if revision < self.compacted:
            raise ErrorKind.COMPACTED.error()
        return revision

    def compact(self, revision: int) -> None:
        if revision <= self.compacted:
            raise ErrorKind.COMPACTED.error()
        if revision > self.revision:
            raise ErrorKind.FUTURE_REVISION.error()
        self.compacted = revision

    def range(self, request: RangeRequest) -> RangeResponse:
        state = self.states[self.readable(request.revision)]
        found = [
            state[key] for key in sorted(state) if in_range(key, request.key, request.range_end)
        ]
        return answer(found, request)

    def kept(self) -> list[KeyValue]:
        """The versions that a finished sweep keeps, in log order."""
        keeper: dict[bytes, KeyValue] = {}
        for record in self.log:
            if record.mod_revision <= self.compacted:
                keeper[record.key] = record
        return [
            record
            for record in self.log
            if record.mod_revision >= self.compacted
            or (keeper[record.key] is record and record.version)
        ]


def answer(found: list[KeyValue], request: RangeRequest) -> RangeResponse:
    """What a range answers if these records lie in it, in key order."""
    count = len(found)
    if request.count_only:
        return RangeResponse(count=count)
    limit = request.limit
    for bound, keep in (
        (request.min_mod_revision, lambda r, n: r.mod_revision >= n),
        (request.max_mod_revision, lambda r, n: r.mod_revision <= n),
        (request.min_create_revision, lambda r, n: r.create_revision >= n),
        (request.max_create_revision, lambda r, n: r.create_revision <= n),
    ):
        if bound:
            found = [record for record in found if keep(record, bound)]
    key = {
        SortTarget.KEY: lambda r: r.key,
        SortTarget.VERSION: lambda r: r.version,
        SortTarget.CREATE: lambda r: r.create_revision,
        SortTarget.MOD: lambda r: r.mod_revision,
        SortTarget.VALUE: lambda r: r.value,
    }[SortTarget(request.sort_target)]
    filtered = any(
        (
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        )
    )
    if request.sort_order == SortOrder.NONE and limit > 0 and not filtered:
        found = found[: limit + 1]
    if request.sort_order == SortOrder.DESCEND:
        found = sorted(found, key=key, reverse=True)
    else:
        found = sorted(found, key=key)
    more = 0 < limit < len(found)
    if more:
        found = found[:limit]
    if request.keys_only:
        by_value = request.sort_target == SortTarget.VALUE
        found = [
            KeyValue(
                r.key,
                r.create_revision,
                r.mod_revision,
                r.version,
                b"",
                r.lease if by_value else 0,
            )
            for r in found
        ]
    return RangeResponse(None, found, more, count)
