"""The Lock and Election services: waiting for one's turn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Final, TypeVar

from kvstore.client import json_codec
from kvstore.client.calls import Calls
from kvstore.client.stream import Stream, StreamLostError
from kvstore.client.transport import PAUSE_SECONDS_MAX, UnreachableError
from kvstore.client.watch import IDLE_SECONDS
from kvstore.errors import Code, KvError, UnknownOutcomeError
from kvstore.types import (
    CampaignRequest,
    CampaignResponse,
    LeaderKey,
    LeaderRequest,
    LeaderResponse,
    LockRequest,
    LockResponse,
    ProclaimRequest,
    ProclaimResponse,
    Record,
    ResignRequest,
    ResignResponse,
    UnlockRequest,
    UnlockResponse,
)

R = TypeVar("R", bound=Record)

OBSERVE: Final = "/v3/election/observe"


class ConcurrencyCalls(Calls):
    """Both are as good as their lease: keep it alive, and guard what it protects by revisions.

    A lock's key and its create revision, which grows with every owner, are the fencing token: let
    whatever is protected refuse a lower one, or make its change in a transaction that compares it.
    """

    __slots__ = ()

    def lock(
        self, name: bytes, lease: int = 0, *, wait_seconds: float | None = None
    ) -> LockResponse:
        """Wait until the lock is ours; returns the key that stands for it.

        Args:
            name: The lock's name, a prefix of keys.
            lease: Owns the lock: it goes when the lease ends. 0: a new lease of 60 s that nobody
                renews.
            wait_seconds: Most seconds to wait; None: as long as it takes.

        Raises:
            KvError: DEADLINE_EXCEEDED when the time is up; LEASE_NOT_FOUND's words when the lease
                ended.
            UnknownOutcomeError: The connection broke; revoke the lease, which gives up the lock.
        """
        return self._wait("/v3/lock/lock", LockRequest(name, lease), LockResponse, wait_seconds)

    def unlock(self, key: bytes) -> UnlockResponse:
        """Let go of a lock by its key."""
        return self._write("/v3/lock/unlock", UnlockRequest(key), UnlockResponse)

    def campaign(
        self, name: bytes, value: bytes, lease: int = 0, *, wait_seconds: float | None = None
    ) -> CampaignResponse:
        """Wait until we lead, and say ``value`` as leader. As ``lock``."""
        request = CampaignRequest(name, lease, value)
        return self._wait("/v3/election/campaign", request, CampaignResponse, wait_seconds)

    def proclaim(self, leader: LeaderKey, value: bytes) -> ProclaimResponse:
        """Say something else as leader."""
        return self._write(
            "/v3/election/proclaim", ProclaimRequest(leader, value), ProclaimResponse
        )

    def leader(self, name: bytes) -> LeaderResponse:
        """Who leads now."""
        return self._read("/v3/election/leader", LeaderRequest(name), LeaderResponse)

    def resign(self, leader: LeaderKey) -> ResignResponse:
        """Let the next candidate lead."""
        return self._write("/v3/election/resign", ResignRequest(leader), ResignResponse)

    def observe(
        self, name: bytes, *, idle_seconds: float = IDLE_SECONDS
    ) -> Iterator[LeaderResponse]:
        """The present leader, then each new one and each thing it says, for ever.

        A stream that breaks, or is silent for ``idle_seconds``, is opened anew; what was seen is
        not repeated.
        """
        body = json_codec.encode(LeaderRequest(name))
        transport = self.transport
        seen = failures = 0
        for endpoint in itertools.cycle(transport.in_order()):
            try:
                with Stream(
                    transport, OBSERVE, body, only=endpoint, silence_seconds=idle_seconds
                ) as stream:
                    failures = 0
                    for found in stream.results():
                        response = json_codec.from_object(LeaderResponse, found)
                        if response.kv is not None and response.kv.mod_revision > seen:
                            seen = response.kv.mod_revision
                            yield response
            except StreamLostError:
                # Perhaps only silence, for there is no leader yet; perhaps a member that is gone.
                failures = 0
            except KvError as error:
                failures += 1
                if not error.retryable or failures * PAUSE_SECONDS_MAX > transport.timeout_seconds:
                    raise
            transport.rest()

    def _wait(self, path: str, request: Record, answer: type[R], wait_seconds: float | None) -> R:
        headers, silence = {}, None
        if wait_seconds is not None:
            headers["Grpc-Timeout"] = f"{max(math.ceil(wait_seconds * 1000), 1)}m"
            silence = wait_seconds + self.transport.timeout_seconds
        body = json_codec.encode(request)
        try:
            with Stream(
                self.transport, path, body, silence_seconds=silence, headers=headers
            ) as stream:
                return json_codec.decode(answer, stream.read())
        except UnreachableError:
            raise
        except StreamLostError as error:
            raise UnknownOutcomeError(
                Code.UNAVAILABLE,
                f"{error.message}; whether it was ours in the end is not known: revoke the lease",
            ) from error
