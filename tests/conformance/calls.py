"""A call before it is sent: what depends on the server that it goes to is still open in it."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

import msgspec

V3: Final = "/v3"
WATCH: Final = V3 + "/watch"
KEEP_ALIVE: Final = V3 + "/lease/keepalive"

FENCE_ID: Final = 900
"""The watcher that the bench adds to each stream: its answer tells that all others have come."""

FENCE_KEY: Final = b"\xff\xff~fence"


class Revision(msgspec.Struct, frozen=True):
    """A revision counted from where the server is when the call is made, or began to be tested.

    Args:
        offset: what to add.
        from_start: count from the beginning of the sequence.
        least: never less than this.
    """

    offset: int
    from_start: bool = False
    least: int = -(1 << 62)

    def of(self, state: State) -> int:
        """The revision in a server's numbers."""
        anchor = state.base if self.from_start else state.revision
        return max(anchor + self.offset, self.least)


class ChosenLease(msgspec.Struct, frozen=True):
    """The lease whose id the server chose, the ``number``-th of a sequence."""

    number: int


class LeaderOf(msgspec.Struct, frozen=True):
    """The leader key that the newest campaign for ``name`` was answered with."""

    name: bytes


class Call(msgspec.Struct, frozen=True):
    """One request. ``body`` is a JSON tree with placeholders, bytes standing for their base64.

    Args:
        path: of the URL.
        body: a tree; a list of trees is sent one after the other; ``raw`` goes before it.
        user: whose newest token is sent along; "" for none.
        raw: the body as it is, instead of ``body``.
        token: sent as it is, instead of a user's.
        method: of HTTP.
    """

    path: str
    body: Any = msgspec.field(default_factory=dict)
    user: str = ""
    raw: bytes | None = None
    token: str | None = None
    method: str = "POST"


class State:
    """What a server's answers so far say about the placeholders."""

    def __init__(self, base: int = 0, revision: int = 0) -> None:
        self.base = base
        self.revision = revision
        self.leases: Any = []
        self.tokens: dict[str, str] = {}
        self.leaders: dict[bytes, Any] = {}


def resolve(tree: Any, state: State) -> Any:
    """The tree as JSON has it, for one server."""
    if isinstance(tree, bytes):
        return base64.b64encode(tree).decode()
    if isinstance(tree, Revision):
        return str(tree.of(state))
    if isinstance(tree, ChosenLease):
        # A sequence that was cut short may use a lease that it does not grant any more.
        known = state.leases
        return str(known[tree.number]) if tree.number < len(known) else "424242"
    if isinstance(tree, LeaderOf):
        nobody = {"name": tree.name, "key": b"none/0", "lease": 424_242}
        return state.leaders.get(tree.name) or resolve(nobody, state)
    if isinstance(tree, dict):
        return {name: resolve(value, state) for name, value in tree.items()}
    if isinstance(tree, list):
        return [resolve(value, state) for value in tree]
    return tree


def payload(call: Call, state: State) -> bytes:
    """The bytes of the request's body."""
    if call.raw is not None:
        return call.raw
    tree = resolve(call.body, state)
    if isinstance(tree, list):
        return b"\n".join(json.dumps(item).encode() for item in tree)
    return json.dumps(tree).encode()


def headers(call: Call, state: State) -> dict[str, str]:
    """The request's headers that matter."""
    token = call.token if call.token is not None else state.tokens.get(call.user, "")
    return {"Authorization": token} if token else {}
