"""Who led, one after the other? An election as those see it who do not take part.

An observer reads who leads, and watches that key alone: it does not hear of the candidates who
wait. When the key is deleted it reads who led *as of that revision*, so that nobody is skipped who
led for a moment only.
"""

from collections import deque
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import msgspec

from kvstore.errors import ErrorKind, KvError
from kvstore.service.presence import Ear, Presence, ask
from kvstore.service.waiting import first_of, prefix_of, told
from kvstore.types import (
    Event,
    EventType,
    FilterType,
    KeyValue,
    LeaderResponse,
    RangeResponse,
    ResponseHeader,
    WatchCreateRequest,
)

if TYPE_CHECKING:
    from kvstore.service.caller import Caller
    from kvstore.service.service import Service
    from kvstore.service.waiting import Waiting


async def observe(
    waiting: "Waiting", name: bytes, caller: "Caller"
) -> AsyncGenerator[LeaderResponse, None]:
    """See ``ElectionCalls.observe``."""
    presence = Presence()
    waiting.join(presence)
    observer = _Observer(waiting.service, presence, name, caller)
    try:
        while True:
            yield await observer.next()
    except KvError as error:
        if error is presence.ended or error == ErrorKind.NO_LEADER.error():
            raise
        raise told(error) from error
    finally:
        observer.close()
        waiting.part(presence)


class _Observer:
    """Where one observer is: up to ``_revision`` it has seen all, and ``_shown`` is the last of it.

    While ``_ear`` is there, ``_shown`` leads, and its key is watched.
    """

    def __init__(
        self, service: "Service", presence: Presence, name: bytes, caller: "Caller"
    ) -> None:
        self._service = service
        self._presence = presence
        self._name = name
        # The caller's patience is for single calls; this one is to last.
        self._caller = msgspec.structs.replace(caller, timeout_seconds=None)
        self._revision = 0
        self._shown = KeyValue()
        self._ear: Ear | None = None
        self._heard: deque[tuple[ResponseHeader, Event]] = deque()

    async def next(self) -> LeaderResponse:
        """The next change; the first is who leads now.

        Raises:
            KvError: There will be none.
        """
        while True:
            change = await (self._find() if self._ear is None else self._follow())
            if change is not None:
                return change

    def close(self) -> None:
        """Listen no more."""
        if self._ear is not None:
            self._ear.close()
            self._ear = None
        self._heard.clear()

    async def _find(self) -> LeaderResponse | None:
        """Who leads as of where the observer is, or as of now at first and after a compaction.

        Waits for a leader if there is none. None if it is to be asked once more, or is nothing new.
        """
        self._presence.check()
        request = first_of(self._name, self._revision)
        try:
            read: RangeResponse = await ask(self._service.range, request, self._caller)
        except KvError as error:
            if error != ErrorKind.COMPACTED.error() or not self._revision:
                raise
            self._revision = 0
            return None
        self._presence.check()
        assert read.header is not None, "an answer has a header"
        revision = self._revision or read.header.revision
        if read.kvs:
            return self._elected(read.kvs[0], read.header, revision)
        await self._await_first(revision + 1)
        return None

    async def _await_first(self, revision: int) -> None:
        """Wait for the first put under the name from a revision on; then it can be read."""
        key, range_end = prefix_of(self._name)
        watch = WatchCreateRequest(key, range_end, revision, filters=[FilterType.NODELETE])
        ear = Ear(self._service, self._caller, self._presence, [watch])
        try:
            heard = await ear.hear()
        finally:
            ear.close()
        self._revision = 0
        if heard is not None:
            kv = heard.events[0].kv
            assert kv is not None, "an event has a key"
            self._revision = kv.mod_revision

    def _elected(
        self, kv: KeyValue, header: ResponseHeader, revision: int
    ) -> LeaderResponse | None:
        """There is a leader as of a revision: from now on their key is watched."""
        watch = WatchCreateRequest(kv.key, start_revision=revision + 1)
        self._ear = Ear(self._service, self._caller, self._presence, [watch])
        self._revision = revision
        shown = self._shown
        self._shown = kv
        if (kv.key, kv.mod_revision) == (shown.key, shown.mod_revision):
            return None
        return LeaderResponse(msgspec.structs.replace(header, revision=revision), kv)

    async def _follow(self) -> LeaderResponse | None:
        """The next word of who leads; None once they have stepped down, or history is missing."""
        assert self._ear is not None, "nobody leads"
        if not self._heard:
            heard = await self._ear.hear()
            if heard is None:
                self.close()
                self._revision = 0
                return None
            assert heard.header is not None, "a response has a header"
            self._heard.extend((heard.header, event) for event in heard.events)
        header, event = self._heard.popleft()
        kv = event.kv
        assert kv is not None, "an event has a key"
        if event.type == EventType.DELETE:
            self.close()
            self._revision = kv.mod_revision
            return None
        self._shown = kv
        # As of the change, even where a response brought many at once: so revisions never fall.
        return LeaderResponse(msgspec.structs.replace(header, revision=kv.mod_revision), kv)
