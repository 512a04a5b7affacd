"""The Maintenance service: how the members are, and what keeps them well."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

from kvstore.client import json_codec
from kvstore.client.calls import Calls
from kvstore.client.stream import Stream
from kvstore.client.transport import Endpoint
from kvstore.errors import Code, ErrorKind, KvError
from kvstore.types import (
    AlarmAction,
    AlarmMember,
    AlarmRequest,
    AlarmResponse,
    AlarmType,
    DefragmentRequest,
    DefragmentResponse,
    DowngradeAction,
    DowngradeRequest,
    DowngradeResponse,
    HashKVRequest,
    HashKVResponse,
    MoveLeaderRequest,
    MoveLeaderResponse,
    RangeRequest,
    RangeResponse,
    SnapshotRequest,
    SnapshotResponse,
    StatusRequest,
    StatusResponse,
)

SNAPSHOT = "/v3/maintenance/snapshot"


class SavedSnapshot(NamedTuple):
    """What came of a snapshot: its size, the hexadecimal SHA-256 of its bytes, its version."""

    size_bytes: int
    sha256: str
    version: str


class MaintenanceCalls(Calls):
    """What a single member, or the cluster as a whole, is asked by its operator."""

    __slots__ = ()

    def status(self, endpoint: Endpoint | None = None) -> StatusResponse:
        """How a member is: the given one (of ``client.transport.endpoints``), or any."""
        return self._read("/v3/maintenance/status", StatusRequest(), StatusResponse, only=endpoint)

    def alarm_list(self, endpoint: Endpoint | None = None) -> AlarmResponse:
        """All alarms that are raised."""
        request = AlarmRequest(action=AlarmAction.GET, alarm=AlarmType.NONE)
        return self._read("/v3/maintenance/alarm", request, AlarmResponse, only=endpoint)

    def alarm_disarm(self, raised: AlarmMember) -> AlarmResponse:
        """Clear one alarm, as ``alarm_list`` shows it."""
        request = AlarmRequest(AlarmAction.DEACTIVATE, raised.memberID, raised.alarm)
        return self._write("/v3/maintenance/alarm", request, AlarmResponse)

    def check_health(self, endpoint: Endpoint | None = None) -> None:
        """See whether a member, by way of a quorum, can read.

        Raises:
            KvError: It cannot.
        """
        request = RangeRequest(b"health")
        try:
            self._read("/v3/kv/range", request, RangeResponse, only=endpoint)
        except KvError as error:
            # To be told so, the member needed its quorum.
            if error != ErrorKind.PERMISSION_DENIED.error():
                raise

    def hash_kv(self, revision: int = 0, endpoint: Endpoint | None = None) -> HashKVResponse:
        """The hash of a member's keys as of a revision (0: now); equal where the keys are."""
        request = HashKVRequest(revision)
        return self._read("/v3/maintenance/hashkv", request, HashKVResponse, only=endpoint)

    def defragment(self, endpoint: Endpoint | None = None) -> DefragmentResponse:
        """Let a member give unused room back."""
        path = "/v3/maintenance/defragment"
        return self._write(path, DefragmentRequest(), DefragmentResponse, only=endpoint)

    def downgrade(self, action: DowngradeAction, version: str = "") -> DowngradeResponse:
        """Check, prepare or call off a downgrade to a version such as ``3.6``."""
        request = DowngradeRequest(action, version)
        return self._write("/v3/maintenance/downgrade", request, DowngradeResponse)

    def leader_endpoint(self) -> Endpoint | None:
        """Which of the endpoints is the leader's; None if none of them is."""
        for endpoint in self.transport.endpoints:
            try:
                status = self.status(endpoint)
            except KvError:
                continue
            if status.header is not None and status.leader == status.header.member_id:
                return endpoint
        return None

    def move_leader(self, target: int, leader: Endpoint | None = None) -> MoveLeaderResponse:
        """Hand leadership to the member ``target``; ``leader`` is the leader's endpoint."""
        request = MoveLeaderRequest(target)
        path = "/v3/maintenance/transfer-leadership"
        return self._write(path, request, MoveLeaderResponse, only=leader)

    def save_snapshot(
        self,
        write: Callable[[bytes], object],
        *,
        endpoint: Endpoint | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> SavedSnapshot:
        """Fetch a snapshot of a member's state, and see that it came whole.

        Args:
            write: Takes its bytes, piece by piece. They are no snapshot until this returns.
            endpoint: Whose; None: any.
            progress: Told how many bytes there are and how many are still to come.

        Raises:
            KvError: DATA_LOSS; the bytes are not those that were sent.
        """
        digest = hashlib.sha256()
        held: SnapshotResponse | None = None
        size = 0
        version = ""
        body = json_codec.encode(SnapshotRequest())
        silence = self.transport.timeout_seconds
        with Stream(
            self.transport, SNAPSHOT, body, only=endpoint, silence_seconds=silence
        ) as stream:
            for found in stream.results():
                # The last message is the digest, and only the end of the stream tells which it is.
                if held is not None:
                    digest.update(held.blob)
                    write(held.blob)
                    size += len(held.blob)
                    if progress is not None:
                        progress(size + held.remaining_bytes, held.remaining_bytes)
                held = json_codec.from_object(SnapshotResponse, found)
                version = held.version or version
        if held is None or held.remaining_bytes or held.blob != digest.digest():
            raise KvError(
                Code.DATA_LOSS,
                f"the snapshot is damaged or cut short after {size} bytes: fetch it again",
            )
        return SavedSnapshot(size, digest.hexdigest(), version)
