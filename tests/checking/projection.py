"""A history as one key saw it.

Why it is sound to look at one key alone: every answered call has its place by its revision,
whatever the other keys are, and what it does to a key depends on that key alone once it is known
which branch of a transaction ran. So an order that explains all answers explains those about one
key. The other way round it is not: what is dropped here (which compare failed, how many keys a
delete found, that the parts of a call of unknown outcome happen together, and that each revision
is somebody's) only the search over all keys judges. A key that cannot be explained is a violation,
and a small one to read; keys that can be explained one by one prove nothing yet.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec

from kvstore.types import (
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
)
from tests.checking.calls import Calls, Placed, Possible, Seen, leaves, puts_of
from tests.checking.evidence import executed, facts_of
from tests.checking.model import LeaseEnd
from tests.kvstore.mvcc.model import in_range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvstore.types import Event
    from tests.checking.model import Request


def by_key(calls: Calls) -> dict[bytes, Calls]:
    """The calls of each key, in key order; keys for which that would not be exact are left out."""
    keys, left_out = _keys_of(calls)
    projected = {key: Calls() for key in sorted(keys - left_out)}
    _project_writes(calls, projected)
    for possible in calls.possible:
        for key in (
            [possible.request.key] if isinstance(possible.request, PutRequest) else projected
        ):
            if key in projected:
                projected[key].possible += _possible(possible, key)
    _project_answers(calls, projected)
    for placed in calls.placed:
        if placed.changes is None:
            _project_doubtful(placed, projected)
    return projected


def truth_of(truth: dict[int, list[Event]], key: bytes) -> dict[int, list[Event]]:
    """What really happened to one key. The first revision stays, if only as a beginning."""
    if not truth:
        return {}
    first = min(truth)
    mine = {first: [event for event in truth[first] if event.kv and event.kv.key == key]}
    for revision, events in truth.items():
        if any(event.kv is not None and event.kv.key == key for event in events):
            mine[revision] = [e for e in events if e.kv is not None and e.kv.key == key]
    return mine


def _keys_of(calls: Calls) -> tuple[set[bytes], set[bytes]]:
    """Every key that is named, and those of which one call may do several things."""
    keys: set[bytes] = set()
    several: set[bytes] = set()
    for placed in calls.placed:
        keys.update(write.key for write in executed(placed.request, placed.response))
    for possible in calls.possible:
        names = list(_put_keys(possible.request))
        keys.update(names)
        if isinstance(possible.request, TxnRequest):
            several.update(_several(possible.request, names))
    keys.update(key for key, _ in facts_of(calls))
    return keys, several


def _put_keys(request: Request) -> Iterator[bytes]:
    if isinstance(request, PutRequest):
        yield request.key
    elif isinstance(request, TxnRequest):
        yield from (put.key for put in puts_of(request))


def _several(request: TxnRequest, puts: list[bytes]) -> Iterator[bytes]:
    """Keys that a transaction may both delete and put, in one branch or another."""
    deletes = [leaf for leaf in leaves(request) if isinstance(leaf, DeleteRangeRequest)]
    for key in puts:
        if puts.count(key) > 1 or any(in_range(key, d.key, d.range_end) for d in deletes):
            yield key


def _project_writes(calls: Calls, projected: dict[bytes, Calls]) -> None:
    """What answered writes did to each key. Where one may have deleted it and may not, it is a
    write that may change nothing.
    """
    done: dict[tuple[int, bytes], list[RequestOp]] = defaultdict(list)
    certain: set[tuple[int, bytes]] = set()
    places = {placed.number: placed for placed in calls.placed}
    for placed in calls.placed:
        if not placed.changes:
            continue
        for request in executed(placed.request, placed.response):
            if isinstance(request, PutRequest):
                if request.key in projected:
                    plain = msgspec.structs.replace(request, prev_kv=False)
                    done[placed.number, request.key].append(RequestOp(request_put=plain))
                    certain.add((placed.number, request.key))
                continue
            for key in _covered(request, projected):
                delete = RequestOp(request_delete_range=DeleteRangeRequest(key))
                done[placed.number, key].append(delete)
                if request is placed.request and not request.range_end:
                    certain.add((placed.number, key))
    for (number, key), operations in done.items():
        changes = True if (number, key) in certain else None
        whole = TxnRequest(success=operations)
        projected[key].placed.append(
            msgspec.structs.replace(places[number], request=whole, response=None, changes=changes)
        )


def _covered(request: DeleteRangeRequest, projected: dict[bytes, Calls]) -> list[bytes]:
    if not request.range_end:
        return [request.key] if request.key in projected else []
    return [key for key in projected if in_range(key, request.key, request.range_end)]


def _project_doubtful(placed: Placed, projected: dict[bytes, Calls]) -> None:
    request = placed.request
    for key, mine in projected.items():
        if isinstance(request, DeleteRangeRequest):
            if in_range(key, request.key, request.range_end):
                mine.placed.append(placed)
        elif isinstance(request, TxnRequest):
            if any(in_range(key, leaf.key, b"") for leaf in leaves(request)):
                mine.placed.append(placed)
        elif any(_attaches(each.request, request) for each in mine.placed) or any(
            _attaches(each.request, request) for each in mine.possible
        ):
            mine.placed.append(placed)


def _attaches(request: Request | None, end: Request | None) -> bool:
    if not isinstance(end, LeaseEnd):
        return False
    if isinstance(request, PutRequest):
        return request.lease == end.lease
    return isinstance(request, TxnRequest) and any(
        put.lease == end.lease for put in puts_of(request)
    )


def _possible(possible: Possible, key: bytes) -> Iterator[Possible]:
    """What a call of unknown outcome may have done to a key."""
    request = possible.request
    if isinstance(request, LeaseEnd):
        yield possible
    elif isinstance(request, PutRequest):
        if request.key == key:
            yield possible
    elif isinstance(request, DeleteRangeRequest):
        if in_range(key, request.key, request.range_end):
            yield msgspec.structs.replace(possible, request=DeleteRangeRequest(key))
    elif isinstance(request, TxnRequest):
        for leaf in leaves(request):
            if isinstance(leaf, PutRequest) and leaf.key == key:
                yield msgspec.structs.replace(possible, request=leaf)
            elif isinstance(leaf, DeleteRangeRequest) and in_range(key, leaf.key, leaf.range_end):
                yield msgspec.structs.replace(possible, request=DeleteRangeRequest(key))


def _project_answers(calls: Calls, projected: dict[bytes, Calls]) -> None:
    """What was seen of each key, as reads of that key alone."""
    for seen in calls.seen:
        request, response = seen.request, seen.response
        whole = not (response.more or request.limit or request.count_only or request.keys_only)
        if not whole or request.min_mod_revision or request.max_mod_revision:
            continue
        if request.min_create_revision or request.max_create_revision:
            continue
        found = {record.key: record for record in response.kvs}
        names = projected if request.range_end else [request.key]
        for key in names:
            if key not in projected or not in_range(key, request.key, request.range_end):
                continue
            kvs = [found[key]] if key in found else []
            alone = RangeResponse(kvs=kvs, count=len(kvs))
            one = Seen(seen.number, seen.revision, RangeRequest(key), alone)
            projected[key].seen.append(one)
    for key, fact in facts_of(Calls(placed=calls.placed)):
        if key in projected and fact.record is not None and fact.has_value:
            alone = RangeResponse(kvs=[fact.record], count=1)
            one = Seen(fact.number, fact.revision, RangeRequest(key), alone)
            projected[key].seen.append(one)
    for placed in calls.placed:
        if isinstance(placed.request, DeleteRangeRequest) and placed.changes is False:
            for key in _covered(placed.request, projected):
                one = Seen(placed.number, placed.place, RangeRequest(key), RangeResponse())
                projected[key].seen.append(one)
        elif isinstance(placed.request, TxnRequest) and placed.response is not None:
            _project_compares(placed, placed.request, projected)


def _project_compares(placed: Placed, request: TxnRequest, projected: dict[bytes, Calls]) -> None:
    """Compares that held held for each key; which of several did not hold nobody knows."""
    succeeded = placed.response.succeeded
    if not succeeded and len(request.compare) > 1:
        return
    before = placed.place - 1 if placed.changes else placed.place
    for compare in request.compare:
        if compare.key in projected and not compare.range_end:
            asked = TxnRequest(compare=[compare])
            reader = msgspec.structs.replace(
                placed,
                request=asked,
                response=TxnResponse(succeeded=succeeded),
                changes=False,
                place=before,
            )
            projected[compare.key].placed.append(reader)
