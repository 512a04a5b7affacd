"""Answering a range: read, filter, sort, cut, in this order, in slices.

The order of work is etcd's, for clients see it: the revision filters come before the sort and the
limit; ``count`` heeds neither; a sort target without a sort order sorts ascending, but only what
the limit let through.
"""

import heapq
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, Final

from kvstore.budget import Budget, Sliced
from kvstore.errors import ErrorKind
from kvstore.mvcc.key_index import KeyIndex
from kvstore.mvcc.keyrange import upper_bound
from kvstore.types import KeyValue, RangeRequest, RangeResponse, SortOrder, SortTarget

BATCH_KEYS: Final = 256
"""Keys looked at between two questions to the budget."""

AT_ONCE_KEYS_MAX: Final = 64
AT_ONCE_BYTES_MAX: Final = 1 << 18
"""A range of no more keys and bytes than these is answered without slices."""

ANSWER_OVERHEAD_BYTES: Final = 64
"""What a record counts beside its key and value against the limit of an answer."""

_SORT_RUN: Final = 512

_SORT_KEYS: Final[dict[int, Callable[[KeyValue], Any]]] = {
    SortTarget.KEY: attrgetter("key"),
    SortTarget.VERSION: attrgetter("version"),
    SortTarget.CREATE: attrgetter("create_revision"),
    SortTarget.MOD: attrgetter("mod_revision"),
    SortTarget.VALUE: attrgetter("value"),
}


def range_at_once(index: KeyIndex, request: RangeRequest, revision: int) -> RangeResponse | None:
    """Answer a range that touches few keys; None if it is larger than that, or asks for a sort."""
    key = request.key
    if not request.range_end:
        record = index.at(key, revision)
        if record is None:
            return RangeResponse()
        return _answer(request, [record], 1)
    if request.sort_order or request.sort_target:
        return None
    keys = index.keys_from(key, True, upper_bound(key, request.range_end), AT_ONCE_KEYS_MAX + 1)
    if len(keys) > AT_ONCE_KEYS_MAX:
        return None
    at = index.at
    found = [record for name in keys if (record := at(name, revision)) is not None]
    if sum([len(record.value) for record in found]) > AT_ONCE_BYTES_MAX:
        return None
    return _answer(request, found, len(found))


def _answer(request: RangeRequest, found: list[KeyValue], count: int) -> RangeResponse:
    if request.count_only:
        return RangeResponse(count=count)
    passes = _filter(request)
    if passes is not None:
        found = [record for record in found if passes(record)]
    limit = request.limit
    more = 0 < limit < len(found)
    if more:
        del found[limit:]
    if request.keys_only:
        found = [_without_value(request, record) for record in found]
    return RangeResponse(None, found, more, count)


def read_range(
    index: KeyIndex, request: RangeRequest, revision: int, budget: Budget, bytes_max: int
) -> Sliced[RangeResponse]:
    """Answer any range, as of one revision, in slices.

    Raises:
        KvError: RESPONSE_TOO_LARGE.
    """
    found, count = yield from _collect(index, request, revision, budget)
    if request.count_only:
        return RangeResponse(count=count)
    order = request.sort_order
    if not order and request.sort_target:
        order = SortOrder.ASCEND
    if order == SortOrder.DESCEND or (order and request.sort_target):
        found = yield from _sorted(found, request.sort_target, order, budget)
    limit = request.limit
    more = 0 < limit < len(found)
    if more:
        del found[limit:]
    if request.keys_only:
        found = yield from _strip(request, found, budget)
    yield from _measure(found, budget, bytes_max)
    return RangeResponse(None, found, more, count)


def _collect(
    index: KeyIndex, request: RangeRequest, revision: int, budget: Budget
) -> Sliced[tuple[list[KeyValue], int]]:
    """The records that pass the filters, as many as the answer or a sort may need, and how many
    keys there are.
    """
    passes = _filter(request)
    wanted: int | None = None
    if request.count_only:
        wanted = 0
    elif request.limit > 0 and passes is None and not request.sort_order:
        # One more than the limit tells whether there is more.
        wanted = request.limit + 1
    high = upper_bound(request.key, request.range_end)
    at = index.at
    found: list[KeyValue] = []
    count = 0
    keys = index.keys_from(request.key, True, high, BATCH_KEYS)
    while keys:
        batch = [record for key in keys if (record := at(key, revision)) is not None]
        count += len(batch)
        if passes is not None:
            batch = [record for record in batch if passes(record)]
        if wanted is None:
            found += batch
        elif len(found) < wanted:
            found += batch[: wanted - len(found)]
        if len(keys) < BATCH_KEYS:
            break
        if budget.spent():
            yield
        keys = index.keys_from(keys[-1], False, high, BATCH_KEYS)
    return found, count


def read_piece(
    index: KeyIndex,
    request: RangeRequest,
    revision: int,
    budget: Budget,
    records_max: int,
    bytes_max: int,
) -> Sliced[tuple[list[KeyValue], bytes | None]]:
    """The first records of a range, in key order, as of one revision.

    Args:
        index: where the keys are.
        request: the range; its limit, order and revision filters do not count here.
        revision: as of which it is read.
        budget: ends a slice.
        records_max: most records.
        bytes_max: no more records once their keys and values exceed it.

    Returns:
        The records, and the last key that was looked at; None instead at the range's end.
    """
    high = upper_bound(request.key, request.range_end)
    found: list[KeyValue] = []
    size = 0
    keys = index.keys_from(request.key, True, high, BATCH_KEYS)
    while keys:
        for key in keys:
            record = index.at(key, revision)
            if record is None:
                continue
            if request.keys_only:
                record = _without_value(request, record)
            found.append(record)
            size += len(record.key) + len(record.value) + ANSWER_OVERHEAD_BYTES
            if len(found) >= records_max or size >= bytes_max:
                return found, key
        if len(keys) < BATCH_KEYS:
            break
        if budget.spent():
            yield
        keys = index.keys_from(keys[-1], False, high, BATCH_KEYS)
    return found, None


def _filter(request: RangeRequest) -> Callable[[KeyValue], bool] | None:
    """Whether a record passes the four revision filters; None if all of them are off."""
    mod_min, mod_max = request.min_mod_revision, request.max_mod_revision
    create_min, create_max = request.min_create_revision, request.max_create_revision
    if not (mod_min or mod_max or create_min or create_max):
        return None

    def passes(record: KeyValue) -> bool:
        return (
            (not mod_min or record.mod_revision >= mod_min)
            and (not mod_max or record.mod_revision <= mod_max)
            and (not create_min or record.create_revision >= create_min)
            and (not create_max or record.create_revision <= create_max)
        )

    return passes


def _sorted(
    records: list[KeyValue], target: int, order: int, budget: Budget
) -> Sliced[list[KeyValue]]:
    """Sort in slices: short runs first, then their merge. Equal records stay in key order."""
    by = _SORT_KEYS[target]
    descending = order == SortOrder.DESCEND
    runs: list[Iterable[KeyValue]] = []
    for start in range(0, len(records), _SORT_RUN):
        run = sorted(records[start : start + _SORT_RUN], key=by, reverse=descending)
        if len(records) <= _SORT_RUN:
            return run
        runs.append(run)
        if budget.spent():
            yield
    merged: list[KeyValue] = []
    for record in heapq.merge(*runs, key=by, reverse=descending):
        merged.append(record)
        if not len(merged) & 63 and budget.spent():
            yield
    return merged


def _strip(
    request: RangeRequest, records: list[KeyValue], budget: Budget
) -> Sliced[list[KeyValue]]:
    stripped: list[KeyValue] = []
    for record in records:
        stripped.append(_without_value(request, record))
        if not len(stripped) & 255 and budget.spent():
            yield
    return stripped


def _without_value(request: RangeRequest, record: KeyValue) -> KeyValue:
    """A record as keys_only shows it. etcd leaves out the lease too, unless it had to read values
    for a sort.
    """
    lease = record.lease if request.sort_target == SortTarget.VALUE else 0
    return KeyValue(
        record.key, record.create_revision, record.mod_revision, record.version, b"", lease
    )


def _measure(records: list[KeyValue], budget: Budget, bytes_max: int) -> Sliced[None]:
    size = 0
    for start in range(0, len(records), BATCH_KEYS):
        batch = records[start : start + BATCH_KEYS]
        size += sum([len(record.key) + len(record.value) for record in batch])
        size += ANSWER_OVERHEAD_BYTES * len(batch)
        if size > bytes_max:
            raise ErrorKind.RESPONSE_TOO_LARGE.error()
        if len(batch) == BATCH_KEYS and budget.spent():
            yield
