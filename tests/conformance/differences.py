"""The closed table of what etcd 3.4 answers otherwise than 3.7: a row each, and nothing else.

Where the newer answer changes what is stored, such a call is not part of any sequence: both stores
would part ways. The tests of the rows make these calls of ours alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from tests.conformance.answers import Answer
from tests.conformance.calls import Call


class Exchange(msgspec.Struct):
    """One call and what both answered, in comparable form; rows rewrite what they explain."""

    call: Call
    etcd: Answer
    kvstore: Answer
    auth_on: bool = False
    compacted: int = 0

    def agrees(self) -> bool:
        """Whether nothing is left to be explained."""
        return self.etcd == self.kvstore

    @property
    def path(self) -> str:
        """Of the call, without its prefix."""
        return self.call.path.removeprefix("/v3beta").removeprefix("/v3")


class Row(msgspec.Struct, frozen=True):
    """One difference.

    Args:
        name: of the row and of its test.
        reason: what changed after 3.4.
        rewrite: makes etcd's answer what 3.7 would have said; touches nothing that it does not
            explain.
    """

    name: str
    reason: str
    rewrite: Callable[[Exchange], None]


def _error_code(answer: Answer) -> int:
    return answer.body.get("code", 0) if isinstance(answer.body, dict) else 0


def _failed_precondition(exchange: Exchange) -> None:
    old = exchange.etcd
    if old.status == 412 and _error_code(old) == 9:
        old.status = 400


def _alarm_header(exchange: Exchange) -> None:
    old, new = exchange.etcd, exchange.kvstore
    if exchange.path == "/maintenance/alarm" and old.status == new.status == 200:
        old.body.setdefault("header", new.body.get("header"))


_NEW_IN_STATUS: Final = ("storageVersion", "dbSizeQuota", "downgradeInfo")


def _status_fields(exchange: Exchange) -> None:
    old, new = exchange.etcd, exchange.kvstore
    if exchange.path == "/maintenance/status" and old.status == new.status == 200:
        for field in _NEW_IN_STATUS:
            if field in new.body:
                old.body.setdefault(field, new.body[field])


def _syntax_words(exchange: Exchange) -> None:
    """Both refuse malformed JSON; each parser has its own words."""
    old, new = exchange.etcd, exchange.kvstore
    if (
        old.status == new.status == 400
        and _error_code(old) == _error_code(new) == 3
        and not old.body["message"].startswith("etcdserver:")
        and not new.body["message"].startswith("etcdserver:")
    ):
        old.body = new.body


def _unknown_path(exchange: Exchange) -> None:
    old, new = exchange.etcd, exchange.kvstore
    if old.status == new.status == 404 and old.body == "Not Found\n" and _error_code(new) == 5:
        words = "Not Found"
        old.body = {"error": words, "message": words, "code": 5}
        old.content_type = "application/json"


def _ranges(request: Any, response: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each range that a transaction made, nested ones too, with its response."""
    branch = request.get("success" if response.get("succeeded") else "failure") or []
    for operation, answer in zip(branch, response.get("responses", []), strict=False):
        for name, body in operation.items():
            if name in ("request_range", "requestRange"):
                yield body, answer["response_range"]
            elif name in ("request_txn", "requestTxn"):
                yield from _ranges(body, answer["response_txn"])


def _keys_only_drops_lease(exchange: Exchange) -> None:
    body = exchange.call.body
    if exchange.etcd.status != 200 or not isinstance(body, dict):
        return
    ranges: Iterable[tuple[dict[str, Any], dict[str, Any]]] = ()
    if exchange.path == "/kv/range":
        ranges = [(body, exchange.etcd.body)]
    elif exchange.path == "/kv/txn":
        ranges = _ranges(body, exchange.etcd.body)
    for request, response in ranges:
        if request.get("keys_only") and request.get("sort_target") not in ("VALUE", 4):
            for item in response.get("kvs", []):
                item.pop("lease", None)


_OF_PUTS: Final = ("etcdserver: key not found", "etcdserver: requested lease not found")
_OF_RANGES: Final = (
    "etcdserver: mvcc: required revision is a future revision",
    "etcdserver: mvcc: required revision has been compacted",
)


def _first_error_of_a_txn(exchange: Exchange) -> None:
    """3.4 checks all puts before all ranges, 3.7 one operation after the other."""
    old, new = exchange.etcd, exchange.kvstore
    if (
        exchange.path == "/kv/txn"
        and isinstance(old.body, dict)
        and old.body.get("message") in _OF_PUTS
        and isinstance(new.body, dict)
        and new.body.get("message") in _OF_RANGES
    ):
        exchange.etcd = new


def _tombstone_at_compacted(exchange: Exchange) -> None:
    """A deletion exactly at the compacted revision is still seen by a watch from there."""
    for told in (exchange.etcd.body, exchange.kvstore.body):
        for watcher, entries in told.items():
            told[watcher] = [
                entry
                for entry in entries
                if not (
                    isinstance(entry, dict)
                    and entry.get("type") == "DELETE"
                    and entry["kv"]["mod_revision"] <= exchange.compacted
                )
            ]


TABLE: Final = (
    Row("failed_precondition_is_400", "3.4's gateway answers 412", _failed_precondition),
    Row("alarm_has_a_header", "3.4 leaves it out", _alarm_header),
    Row("status_tells_more", "fields of 3.6", _status_fields),
    Row("syntax_errors_have_other_words", "another JSON reader since 3.6", _syntax_words),
    Row("an_unknown_path_is_answered_in_json", "another router since 3.6", _unknown_path),
    Row("keys_only_drops_the_lease", "3.7 reads it no more", _keys_only_drops_lease),
    Row("a_transaction_tells_its_first_error", "one pass in 3.7", _first_error_of_a_txn),
    Row("a_deletion_at_the_compacted_revision_is_kept", "since 3.4.34", _tombstone_at_compacted),
)
"""All differences that are known. Whatever else differs is a failure."""

LEFT_OUT: Final = (
    # JSON
    "a_field_given_twice_is_refused",
    "two_members_of_a_oneof_are_refused",
    "null_in_a_list_is_refused",
    "null_is_no_message",
    "an_unknown_enum_name_is_its_default",
    "base64_is_taken_in_all_forms",
    # Calls that 3.4 lets pass, does not know, or dies of
    "an_unknown_order_is_refused",
    "a_watch_from_a_negative_revision_is_refused",
    "a_stream_of_nonsense_is_silent",
    "another_method_is_unimplemented",
    "newer_paths_are_served",
    "health_gives_a_reason_and_version_the_storage",
    "urls_that_are_none_are_refused",
    "activating_no_alarm_does_nothing",
)
"""Differences of calls that no sequence makes, by the names of their tests."""

_STORIES: Final = frozenset({"a_deletion_at_the_compacted_revision_is_kept"})


def explain(exchange: Exchange) -> list[str]:
    """Apply the rows until the answers agree; the names of those that changed something."""
    return _apply(exchange, [row for row in TABLE if row.name not in _STORIES])


def explain_story(exchange: Exchange) -> list[str]:
    """The same for what watchers were told."""
    return _apply(exchange, [row for row in TABLE if row.name in _STORIES])


def _apply(exchange: Exchange, rows: list[Row]) -> list[str]:
    used = []
    for row in rows:
        before = msgspec.json.encode((exchange.etcd, exchange.kvstore))
        row.rewrite(exchange)
        if msgspec.json.encode((exchange.etcd, exchange.kvstore)) != before:
            used.append(row.name)
        if exchange.agrees():
            break
    return used
