"""An answer, and the same answer without what must differ between any two servers."""

from __future__ import annotations

import base64
import json
from typing import Any, Final, Protocol

import msgspec

from tests.conformance.calls import State


class Answer(msgspec.Struct):
    """What came back. ``body`` is a JSON tree, a list of them for a stream, or text.

    A ``status`` of 0 is a connection that was closed without an answer.
    """

    status: int
    body: Any
    content_type: str = ""


CLOSED: Final = "the connection was closed without an answer"


def read_answer(status: int, body: bytes, content_type: str) -> Answer:
    """An answer from the bytes of one."""
    kind = content_type.partition(";")[0]
    if kind != "application/json":
        return Answer(status, body.decode(errors="replace"), kind)
    lines = [line for line in body.split(b"\n") if line.strip()]
    try:
        trees = [json.loads(line) for line in lines]
    except ValueError:
        # Newer servers may lay a body out over several lines.
        trees = [json.loads(body)]
    return Answer(status, trees[0] if len(trees) == 1 else trees, kind)


CHOSEN_MIN: Final = 1 << 32
"""Ids that the servers choose are larger (but for one in billions), those of sequences smaller."""


class Known(Protocol):
    """What names a server's own things."""

    state: State
    cluster_id: str
    member_id: str
    urls: list[str]
    names: list[str]


_REVISIONS: Final = frozenset(
    {"revision", "create_revision", "mod_revision", "compact_revision", "rev", "hash_revision"}
)
_LEASES: Final = frozenset({"ID", "lease"})
_MEASURED: Final = frozenset(
    {
        "raft_term",
        "raftTerm",
        "raftIndex",
        "raftAppliedIndex",
        "dbSize",
        "dbSizeInUse",
        "hash",
        "version",
        "token",
        "etcdserver",
        "etcdcluster",
        "remaining_bytes",
        "blob",
    }
)
"""Fields whose presence counts, not what they hold. A key's version is told by its place."""


def comparable(tree: Any, known: Known, name: str = "", inside: str = "") -> Any:
    """A tree with revisions counted from the start, and names for what a server calls its own."""
    if isinstance(tree, dict):
        is_key_value = "mod_revision" in tree
        return {
            field: value
            if field == "version" and is_key_value
            else comparable(value, known, field, name)
            for field, value in tree.items()
        }
    if isinstance(tree, list):
        return [comparable(item, known, name, inside) for item in tree]
    return _scalar(tree, known, name)


def _scalar(value: Any, known: Known, name: str) -> Any:
    if name in _REVISIONS and isinstance(value, str):
        return int(value) - known.state.base
    if name in _MEASURED:
        return f"<{name}>"
    if value == known.cluster_id:
        return "<cluster>"
    if value == known.member_id:
        return "<member>"
    if name in _LEASES and isinstance(value, str):
        return _lease(int(value), known)
    if value in known.urls:
        return "<url>"
    if value in known.names:
        return "<name>"
    if name == "key" and isinstance(value, str):
        return _without_chosen_lease(value, known)
    return value


def _lease(lease: int, known: Known) -> str:
    """A lease that was asked for by its id keeps it; others are told apart by their order."""
    if lease in known.state.leases:
        return f"<lease {known.state.leases.index(lease)}>"
    return f"{lease}" if abs(lease) < CHOSEN_MIN else "<a lease>"


def _without_chosen_lease(value: str, known: Known) -> str:
    """A lock's key ends with its lease in hex: a name for that, if the server chose the lease."""
    _, slash, end = base64.b64decode(value).rpartition(b"/")
    for number, lease in enumerate(known.state.leases):
        if slash and end == b"%x" % lease:
            return f"<key of lease {number}>"
    return value
