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


_NEEDS_A_USER: Final = (
    "/maintenance/status",
    "/maintenance/alarm",
    "/cluster/member/list",
    "/lease/timetolive",
    "/kv/lease/timetolive",
)
_NEEDS_PERMISSION: Final = (
    "/lease/timetolive",
    "/kv/lease/timetolive",
    "/lease/leases",
    "/kv/lease/leases",
    "/lease/keepalive",
)
_NOBODY: Final = ("etcdserver: user name is empty", "etcdserver: invalid auth token")


def _message(answer: Answer) -> str:
    """The words of an error; of the one that ends a stream too."""
    body = answer.body[-1] if isinstance(answer.body, list) and answer.body else answer.body
    error = body.get("error", "") if isinstance(body, dict) else ""
    return str(error.get("message", "") if isinstance(error, dict) else error)


def _nobody_is_refused(exchange: Exchange) -> None:
    """3.4 answers these to whoever asks."""
    if (
        exchange.auth_on
        and exchange.path in (*_NEEDS_A_USER, *_NEEDS_PERMISSION)
        and exchange.etcd.status == 200
        and _message(exchange.kvstore) in _NOBODY
    ):
        exchange.etcd = exchange.kvstore


def _keys_of_leases_are_guarded(exchange: Exchange) -> None:
    """3.4 shows and renews any lease to any user."""
    if (
        exchange.auth_on
        and exchange.call.user != "root"
        and exchange.path in _NEEDS_PERMISSION
        and exchange.etcd.status == 200
        and _message(exchange.kvstore) == "etcdserver: permission denied"
    ):
        exchange.etcd = exchange.kvstore


_ADMIN_WORDS: Final = {
    "auth: permission denied": "etcdserver: permission denied",
    "auth: user name is empty": "etcdserver: user name is empty",
    "auth: invalid auth token": "etcdserver: invalid auth token",
}


def _admin_errors(exchange: Exchange) -> None:
    """3.4 forgets to translate the errors of these: code 2, with other words."""
    old, new = exchange.etcd, exchange.kvstore
    if (
        exchange.path in ("/maintenance/defragment", "/maintenance/hash", "/maintenance/alarm")
        and old.status == 500
        and _ADMIN_WORDS.get(_message(old)) == _message(new)
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
    Row("nobody_is_told_nothing", "any valid user since 3.5 or 3.7", _nobody_is_refused),
    Row("leases_are_as_secret_as_their_keys", "checked since 3.7", _keys_of_leases_are_guarded),
    Row("admin_calls_answer_with_a_code", "translated since 3.5", _admin_errors),
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
    # Users and permissions
    "a_bad_token_is_nothing_while_authentication_is_off",
    "a_bearer_prefix_is_taken",
    "compaction_and_alarms_are_for_root",
    "granting_and_ending_leases_needs_a_user",
    "nested_operations_are_looked_at",
    "puts_in_a_transaction_are_looked_at_whole",
    "a_watch_to_the_end_needs_all_of_it",
    "role_root_shows_everything",
    "permissions_that_are_none_are_refused",
    "long_passwords_are_refused",
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
