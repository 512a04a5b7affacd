"""What clients did and saw: the calls with their times and outcomes, and the watches.

All times are seconds on one clock, the same for every client of a history.
"""

from __future__ import annotations

from enum import Enum
from math import inf
from typing import Any

import msgspec

from kvstore.types import Event, LeaderResponse, WatchCreateRequest, WatchResponse


class Outcome(Enum):
    """What a client knows of its call."""

    OK = "ok"
    REFUSED = "refused"
    """An error that promises that nothing happened."""
    UNKNOWN = "unknown"
    """It may have happened, may still happen, or never."""


class Operation(msgspec.Struct):
    """One call.

    Attributes:
        client: Who called. A client has one call under way at a time; after an unknown outcome it
            goes on under another number, as the old call may still happen.
        method: The service's name of the call: "put", "range", "txn", "delete_range", "compact",
            "lease_grant", ...
        request: The typed message (``kvstore.types``).
        member: Which member was asked (its number in the cluster, from 0).
        called_at: When it was sent.
        returned_at: When the outcome was known; ``inf`` while it is unknown.
        outcome: What the client knows.
        response: The typed answer, if the outcome is ``OK``.
        error: What the client was told, if it is not.
        user: Whose token came with it; "" if none did.
    """

    client: int
    method: str
    request: Any
    member: int
    called_at: float
    returned_at: float = inf
    outcome: Outcome = Outcome.UNKNOWN
    response: Any = None
    error: str = ""
    user: str = ""


class Watch(msgspec.Struct):
    """One watcher, from its creation to its end, on one member.

    A client that resumes opens another one with the same ``client``, whose ``request`` starts
    right behind what it has seen.

    Attributes:
        client: Who watched.
        member: Where.
        request: As created.
        opened_at: When.
        responses: What came, with its time, as it came.
        ended_at: When the stream was over (``inf``: it was open to the end of the run).
        ended: Why: "" if it was open to the end.
        user: As in ``Operation``.
        cancelled_at: When the client asked for its end (``inf``: never).
    """

    client: int
    member: int
    request: WatchCreateRequest
    opened_at: float
    responses: list[tuple[float, WatchResponse]] = []
    ended_at: float = inf
    ended: str = ""
    user: str = ""
    cancelled_at: float = inf


class Observation(msgspec.Struct):
    """What one observer of an election was shown, on one member.

    Attributes:
        member: Where.
        name: Of the election.
        responses: As they came.
    """

    member: int
    name: bytes
    responses: list[LeaderResponse] = []


class History(msgspec.Struct):
    """A run, as its clients saw it.

    Attributes:
        operations: In the order in which they were called.
        watches: In the order in which they were opened.
        observations: What observers of elections were shown.
        truth: What really happened, where it is known: revision to its events in their order
            (puts and deletes of one revision belong together). Empty: not known.
        truth_at: When each of these revisions was there at the latest: it was applied by then.
        ended_at: When the run was over.
    """

    operations: list[Operation] = []
    watches: list[Watch] = []
    observations: list[Observation] = []
    truth: dict[int, list[Event]] = {}
    truth_at: dict[int, float] = {}
    ended_at: float = inf


def shown(operation: Operation) -> str:
    """A call, for people: whose, where, when, what, and what came of it."""
    who = f"client {operation.client}" + (f" ({operation.user})" if operation.user else "")
    return (
        f"{who}, member {operation.member}, {operation.called_at:.6f} to "
        f"{operation.returned_at:.6f}: {operation.request} {operation.response or operation.error}"
    )
