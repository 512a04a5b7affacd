"""What the answers say about a key before anybody has searched: a look ahead for the search.

A record names its create and mod revision and its version, so one read tells much of the past: at
which revision its key was created and last changed, that it was quiet since, and how many puts
there were in between. An order that contradicts this will be contradicted by that answer at last;
the search turns back at once.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import msgspec

from kvstore.types import (
    DeleteRangeRequest,
    DeleteRangeResponse,
    KeyValue,
    PutRequest,
    PutResponse,
    RangeResponse,
    TxnRequest,
    TxnResponse,
)
from tests.kvstore.mvcc.model import in_range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.checking.calls import Calls, Placed


class Fact(msgspec.Struct):
    """A key was like this as of a revision. ``record`` None: it was not there.

    ``has_value``: whether the record shows its value and lease. ``number``: who says so.
    """

    revision: int
    record: KeyValue | None
    has_value: bool
    number: int


class Window(msgspec.Struct):
    """Between two revisions, exclusive, somebody must have changed a key who is not known."""

    after: int
    before: int
    key: bytes
    deletes: bool


class Evidence:
    """All facts of a history, by key."""

    def __init__(self, calls: Calls) -> None:
        self._facts: dict[bytes, list[Fact]] = defaultdict(list)
        self._puts: dict[bytes, list[int]] = defaultdict(list)
        self._deletes: list[tuple[int, DeleteRangeRequest]] = []
        self.forced: dict[int, set[bytes]] = defaultdict(set)
        """Revisions at which these keys were changed."""
        for key, fact in facts_of(calls):
            self._facts[key].append(fact)
        for placed in calls.placed:
            if placed.changes:
                self._note_write(placed)
        for key, facts in self._facts.items():
            facts.sort(key=lambda fact: fact.revision)
            for fact in facts:
                if fact.record is not None:
                    self.forced[fact.record.mod_revision].add(key)
                    self.forced[fact.record.create_revision].add(key)
        for places in self._puts.values():
            places.sort()
        self._revisions = {
            key: [fact.revision for fact in facts] for key, facts in self._facts.items()
        }
        self.windows = [window for key in self._facts for window in self._windows(key)]

    def _note_write(self, placed: Placed) -> None:
        for request in executed(placed.request, placed.response):
            if isinstance(request, PutRequest):
                self._puts[request.key].append(placed.place)
            else:
                self._deletes.append((placed.place, request))

    def next_fact(self, key: bytes, revision: int) -> Fact | None:
        """What is known of a key as of a revision, or of the first one after it."""
        revisions = self._revisions.get(key)
        if revisions is None:
            return None
        place = bisect_left(revisions, revision)
        return self._facts[key][place] if place < len(revisions) else None

    def puts_between(self, key: bytes, after: int, until: int) -> int:
        """How many puts of a key were acknowledged in (after, until]."""
        places = self._puts.get(key, [])
        return bisect_right(places, until) - bisect_right(places, after)

    def allows(self, key: bytes, record: KeyValue | None, revision: int) -> bool:
        """Whether a key can have become this at a revision, by what is known of it later."""
        fact = self.next_fact(key, revision)
        if fact is None or fact.record is None:
            return True
        known = fact.record
        if known.create_revision > revision:
            return True
        if record is None or known.mod_revision < revision:
            return False
        if record.create_revision != known.create_revision:
            return False
        if known.mod_revision == revision:
            return record.version == known.version and (
                not fact.has_value or (record.value, record.lease) == (known.value, known.lease)
            )
        return record.version < known.version and (
            record.version + self.puts_between(key, revision, known.mod_revision) <= known.version
        )

    def _windows(self, key: bytes) -> Iterator[Window]:
        """Where more changes of a key are needed than were acknowledged: a hint where to look for
        them, and no more than that.
        """
        before: Fact | None = None
        for fact in self._facts[key]:
            known = fact.record
            present = self._present_before(key, before, fact)
            created = fact.revision + 1 if known is None else known.create_revision
            if (
                present is not None
                and present < created
                and not self._deleted(key, present, created)
            ):
                yield Window(present, created, key, deletes=True)
            if known is not None:
                start, version = known.create_revision, 1
                older = None if before is None else before.record
                if older is not None and older.create_revision == start:
                    start, version = older.mod_revision, older.version
                missing = known.version - version
                missing -= self.puts_between(key, start, known.mod_revision)
                if missing > 0:
                    yield Window(start, known.mod_revision, key, deletes=False)
            before = fact

    def _present_before(self, key: bytes, before: Fact | None, fact: Fact) -> int | None:
        """The last revision before a fact's life of the key at which it is known to be there."""
        high = fact.revision if fact.record is None else fact.record.create_revision - 1
        places = self._puts.get(key, [])
        place = bisect_right(places, high)
        found = places[place - 1] if place else None
        if before is not None and before.record is not None and before.revision <= high:
            found = max(found or 0, before.revision)
        return found

    def _deleted(self, key: bytes, after: int, before: int) -> bool:
        return any(
            after < place < before and in_range(key, request.key, request.range_end)
            for place, request in self._deletes
        )


def executed(request: Any, response: Any) -> Iterator[PutRequest | DeleteRangeRequest]:
    """The writes that an answered call carried out, in order."""
    if isinstance(request, PutRequest | DeleteRangeRequest):
        yield request
    elif isinstance(request, TxnRequest):
        succeeded = response is None or response.succeeded
        answers = [None] * len(request.success) if response is None else response.responses
        operations = request.success if succeeded else request.failure
        for asked, done in zip(operations, answers, strict=False):
            if asked.request_put is not None:
                yield asked.request_put
            elif asked.request_delete_range is not None:
                yield asked.request_delete_range
            elif asked.request_txn is not None and done is not None:
                yield from executed(asked.request_txn, done.response_txn)


def facts_of(calls: Calls) -> Iterator[tuple[bytes, Fact]]:
    """What the answers say, key by key."""
    for seen in calls.seen:
        request, response = seen.request, seen.response
        for record in response.kvs:
            yield record.key, Fact(seen.revision, record, not request.keys_only, seen.number)
        if not request.range_end and not response.count and not response.kvs:
            yield request.key, Fact(seen.revision, None, True, seen.number)
    for placed in calls.placed:
        before = placed.place - 1 if placed.changes else placed.place
        for record, has_value in _shown(placed.request, placed.response):
            # What a transaction shows of itself was the state at no revision.
            if record.mod_revision <= before:
                yield record.key, Fact(before, record, has_value, placed.number)


def _shown(request: Any, response: Any) -> Iterator[tuple[KeyValue, bool]]:
    """The records in an answer that are the state just before the call."""
    if isinstance(response, PutResponse):
        if response.prev_kv is not None:
            yield response.prev_kv, True
    elif isinstance(response, DeleteRangeResponse):
        for record in response.prev_kvs:
            yield record, True
    elif isinstance(response, TxnResponse) and isinstance(request, TxnRequest):
        operations = request.success if response.succeeded else request.failure
        for asked, done in zip(operations, response.responses, strict=False):
            yield from _shown(None, done.response_put or done.response_delete_range)
            found = done.response_range
            if asked.request_range is not None and isinstance(found, RangeResponse):
                if asked.request_range.revision <= 0:
                    for record in found.kvs:
                        yield record, not asked.request_range.keys_only
            elif asked.request_txn is not None:
                yield from _shown(asked.request_txn, done.response_txn)
