"""A state machine with its surroundings, fed command by command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvstore.apply import Outcome, SnapshotLoader, StateLimits, StateMachine
from kvstore.auth.identity import NOBODY, Identity
from kvstore.budget import CountedBudget, finish
from kvstore.commands import BODIES, Body, Kind, encode
from kvstore.lease.lessor import Lessor
from kvstore.types import KeyValue, Member
from raft.codec import encode_entry
from raft.types import Entry, EntryKind, Index, Term

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvstore.errors import KvError
    from kvstore.types import Record

MEMBERS = [Member(7, "", ("http://a:1",)), Member(9, "", ("http://b:1",))]
KINDS = {body: kind for kind, body in BODIES.items()}
MIN_TTL = 2


class RecordingHub:
    """Keeps what watchers would hear."""

    def __init__(self) -> None:
        self.published: list[tuple[int, list[KeyValue] | None]] = []

    def publish(self, revision: int, records: Sequence[KeyValue]) -> None:
        self.published.append((revision, list(records)))

    def publish_range(self, revision: int) -> None:
        self.published.append((revision, None))


class RecordingTokens:
    """Keeps what whoever remembers tokens would hear."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, ...]] = []

    def assign(self, user: str, token: str) -> None:
        self.heard.append(("assign", user, token))

    def forget_user(self, user: str) -> None:
        self.heard.append(("forget", user))

    def clear(self) -> None:
        self.heard.append(("clear",))


def command(
    index: int,
    body: Body,
    *,
    kind: Kind | None = None,
    term: int = 1,
    member: int = 7,
    incarnation: int = 1,
    sequence: int | None = None,
    low: int | None = None,
    identity: Identity = NOBODY,
) -> Entry:
    """An entry that holds a command."""
    sequence = index if sequence is None else sequence
    low = max(0, sequence - 4) if low is None else low
    data = encode(
        member,
        incarnation,
        sequence,
        low,
        kind or KINDS[type(body)],
        body,
        identity.user,
        identity.revision,
    )
    return encode_entry(Index(index), Term(term), EntryKind.COMMAND, data)


def noop(index: int, term: int = 1) -> Entry:
    return encode_entry(Index(index), Term(term), EntryKind.NOOP, b"")


class Rig:
    """A machine and a way to feed it."""

    def __init__(
        self,
        steps: int = 1 << 60,
        quota: int = 1 << 40,
        hub: Any = None,
        watch_records_max: int = 256,
    ) -> None:
        self.budget = CountedBudget(steps)
        self.limits = StateLimits(quota_bytes=quota, watch_records_max=watch_records_max)
        self.hub = RecordingHub() if hub is None else hub
        self.tokens = RecordingTokens()
        self.machine = StateMachine(
            list(MEMBERS), self.hub, Lessor(MIN_TTL), self.limits, self.budget, self.tokens
        )

    @property
    def next_index(self) -> int:
        return self.machine.applied_index + 1

    def apply(self, entry: Entry, now: float = 0.0) -> Outcome:
        self.budget.renew()
        result = self.machine.apply(entry, now)
        return result if isinstance(result, Outcome) else finish(result, self.budget)

    def run(self, body: Body, **name: Any) -> Outcome:
        return self.apply(command(self.next_index, body, **name))

    def ask(self, body: Body, **name: Any) -> Record | KvError | None:
        return self.run(body, **name).response

    def loader(self) -> SnapshotLoader:
        return SnapshotLoader(self.hub, Lessor(MIN_TTL), self.limits, self.budget, self.tokens)

    def reload(self, chunks: list[bytes]) -> Rig:
        """Another rig, whose machine was loaded from these chunks."""
        other = Rig()
        loader = self.loader()
        for chunk in chunks:
            loader.feed(chunk)
        other.machine = loader.finish()
        return other


def captured(machine: StateMachine) -> list[bytes]:
    capture = machine.capture()
    try:
        return list(capture.chunks())
    finally:
        capture.close()
