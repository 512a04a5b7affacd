"""The Maintenance service: alarms, how this member is, hashes, backups, who leads."""

import hashlib
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from kvstore.apply import hash_state, hash_versions
from kvstore.auth.identity import Identity
from kvstore.commands import Downgrade, Kind
from kvstore.config import QUOTA_DEFAULT_BYTES
from kvstore.errors import ErrorKind, KvError
from kvstore.service.base import Calls
from kvstore.service.caller import Caller
from kvstore.service.presence import ask
from kvstore.types import (
    AlarmAction,
    AlarmRequest,
    AlarmResponse,
    AlarmType,
    DefragmentRequest,
    DefragmentResponse,
    DowngradeAction,
    DowngradeInfo,
    DowngradeRequest,
    DowngradeResponse,
    HashKVRequest,
    HashKVResponse,
    HashRequest,
    HashResponse,
    MoveLeaderRequest,
    MoveLeaderResponse,
    SnapshotRequest,
    SnapshotResponse,
    StatusRequest,
    StatusResponse,
)
from kvstore.version import VERSION
from raft.types import NO_NODE

if TYPE_CHECKING:
    from kvstore.apply import Outcome
    from kvstore.budget import Budget, Sliced

SNAPSHOT_CHUNK_BYTES: Final = 32 * 1024
"""As in etcd, whose clients show progress by it."""

HASHES_MAX: Final = 8
"""Hashes under way at a time; more are refused at once as retryable. Each reads all there is."""

_VERSION: Final = re.compile(r"(\d{1,9})\.(\d{1,9})(?:\.\d{1,9}(?:-[^+]*)?(?:\+.*)?)?", re.ASCII)


class MaintenanceCalls(Calls):
    """What operators ask for."""

    version: str = VERSION
    """This program's version in etcd's terms, strictly numeric."""

    _hashing = 0

    @property
    def cluster_version(self) -> str:
        """The version that all members speak; "not_decided" before they know."""
        return self.machine.cluster_version or "not_decided"

    # --- alarms and status ------------------------------------------------------------------------

    def alarm(
        self,
        request: AlarmRequest,
        caller: Caller,
        reply: Callable[[AlarmResponse | KvError], None],
    ) -> None:
        """List, raise or clear alarms. The list is linearizable."""

        def admitted(identity: Identity) -> None:
            if request.action == AlarmAction.GET:
                self._read(caller, reply, here)
            else:
                self._propose(Kind.ALARM, request, caller, reply, identity=identity)

        def here() -> None:
            every = request.alarm == AlarmType.NONE
            alarms = self.machine.alarms
            listed = [raised for raised in alarms if every or raised.alarm == request.alarm]
            reply(AlarmResponse(self.header(), listed))

        self._admit(request, caller, reply, admitted)

    def status(
        self,
        request: StatusRequest,
        caller: Caller,
        reply: Callable[[StatusResponse | KvError], None],
    ) -> None:
        """This member's own view; answered without asking anybody."""
        self._admit(request, caller, reply, lambda _: reply(self._status()))

    def _status(self) -> StatusResponse:
        machine = self.machine
        driver = self.node.driver
        raft = driver.raft
        errors = ["etcdserver: no leader"] if driver.leader == NO_NODE else []
        if self.node.rebuild.active:
            errors.append(ErrorKind.REBUILDING.error().message)
        for raised in machine.alarms:
            member = f"memberID:{raised.memberID} " if raised.memberID else ""
            errors.append(f"{member}alarm:{alarm_name(raised.alarm)}")
        return StatusResponse(
            header=self.header(),
            version=VERSION,
            dbSize=machine.store.size_bytes,
            leader=driver.leader,
            raftIndex=raft.commit_index,
            raftTerm=raft.term,
            raftAppliedIndex=machine.applied_index,
            errors=errors,
            dbSizeInUse=machine.store.size_bytes,
            isLearner=self.member_id in raft.configuration.learners,
            storageVersion=machine.cluster_version,
            dbSizeQuota=self._limits.quota_backend_bytes or QUOTA_DEFAULT_BYTES,
            downgradeInfo=DowngradeInfo(
                machine.downgrade.enabled, machine.downgrade.target_version
            ),
        )

    def defragment(
        self,
        request: DefragmentRequest,
        caller: Caller,
        reply: Callable[[DefragmentResponse | KvError], None],
    ) -> None:
        """There is nothing to do: compaction itself gives the memory back."""
        self._admit(request, caller, reply, lambda _: reply(DefragmentResponse()))

    # --- hashes -----------------------------------------------------------------------------------

    def hash(
        self,
        request: HashRequest,
        caller: Caller,
        reply: Callable[[HashResponse | KvError], None],
    ) -> None:
        """Hash all of this member's state: equal between members at an equal applied index."""

        def work(budget: "Budget") -> "Sliced[HashResponse]":
            while self.node.applier.busy:
                # A huge command is half applied; its slices alternate with this.
                yield
            value = yield from hash_state(self.machine.capture(), budget)
            return HashResponse(hash=value)

        self._admit(request, caller, reply, lambda who: self._hash(work, reply, who))

    def hash_kv(
        self,
        request: HashKVRequest,
        caller: Caller,
        reply: Callable[[HashKVResponse | KvError], None],
    ) -> None:
        """Hash the keys as of a revision: equal between members with equal history."""

        def work(budget: "Budget") -> "Sliced[HashKVResponse]":
            store = self.machine.store
            revision = request.revision or store.revision
            compacted = store.compacted_revision
            store.readable(revision)
            value = yield from hash_versions(store, revision, budget)
            return HashKVResponse(None, value, compacted, revision)

        self._admit(request, caller, reply, lambda who: self._hash(work, reply, who))

    def _hash(
        self,
        work: "Callable[[Budget], Sliced[Any]]",
        reply: Callable[[Any], None],
        identity: Identity,
    ) -> None:
        if self._hashing >= HASHES_MAX:
            reply(ErrorKind.TOO_MANY_REQUESTS.error())
            return
        self._hashing += 1

        def done(result: Any) -> None:
            self._hashing -= 1
            reply(result)

        budget = self.node.read_budget()
        # Known by an older revision root is root all the same; a change from now on counts.
        asking = Identity(identity.user, self.machine.auth.revision)
        self._run(work(budget), budget, done, asking)

    # --- backups ----------------------------------------------------------------------------------

    async def snapshot(
        self, request: SnapshotRequest, caller: Caller
    ) -> AsyncGenerator[SnapshotResponse, None]:
        """A snapshot file in chunks, then the SHA-256 of them all.

        Raises:
            KvError: It is refused, or breaks off.
        """
        await ask(self._admit_learners, request, caller)
        version = self.machine.cluster_version
        digest = hashlib.sha256()
        async with aclosing(self.node.exports.stream()) as pieces:
            async for piece, after in pieces:
                digest.update(piece)
                for start in range(0, len(piece), SNAPSHOT_CHUNK_BYTES):
                    chunk = piece[start : start + SNAPSHOT_CHUNK_BYTES]
                    left = len(piece) - start - len(chunk) + after
                    yield SnapshotResponse(None, left, chunk, version)
        yield SnapshotResponse(None, 0, digest.digest(), version)

    def _admit_learners(
        self, request: SnapshotRequest, caller: Caller, reply: Callable[[KvError | None], None]
    ) -> None:
        """Reply with nothing if the caller may, also at a member that learns."""
        if not self._refused(caller, reply, learners_may=True):
            self._admit(request, caller, reply, lambda _: reply(None))

    # --- who leads --------------------------------------------------------------------------------

    def move_leader(
        self,
        request: MoveLeaderRequest,
        caller: Caller,
        reply: Callable[[MoveLeaderResponse | KvError], None],
    ) -> None:
        """Hand leadership to a voting member, and wait until it leads. Only the leader can."""

        def moved(error: KvError | None) -> None:
            reply(MoveLeaderResponse() if error is None else error)

        def admitted(_: Identity) -> None:
            own = caller.timeout_seconds
            limit = self._timeout_seconds
            self.node.transfer.move(
                request.targetID, moved, limit if own is None else min(own, limit)
            )

        self._admit(request, caller, reply, admitted)

    # --- downgrade --------------------------------------------------------------------------------

    def downgrade(
        self,
        request: DowngradeRequest,
        caller: Caller,
        reply: Callable[[DowngradeResponse | KvError], None],
    ) -> None:
        """Ask for, prepare, or give up a downgrade of the cluster by one minor version."""

        def admitted(identity: Identity) -> None:
            if request.action == DowngradeAction.CANCEL:
                self._read(caller, reply, lambda: self._cancel_downgrade(identity, caller, reply))
            elif request.action not in (DowngradeAction.VALIDATE, DowngradeAction.ENABLE):
                reply(ErrorKind.UNKNOWN_METHOD.error())
            elif (target := _target_version(request.version)) is None:
                reply(ErrorKind.WRONG_DOWNGRADE_VERSION_FORMAT.error())
            elif not self.machine.cluster_version:
                reply(ErrorKind.CLUSTER_VERSION_UNAVAILABLE.error())
            else:
                self._read(caller, reply, lambda: validated(identity, target))

        def validated(identity: Identity, target: tuple[int, int]) -> None:
            refusal = self._why_no_downgrade(target)
            if refusal is not None:
                reply(refusal.error())
            elif request.action == DowngradeAction.VALIDATE:
                reply(self._downgrade_response())
            else:
                body = Downgrade(enabled=True, target_version=f"{target[0]}.{target[1]}.0")
                self._propose_downgrade(body, identity, caller, reply)

        self._admit(request, caller, reply, admitted)

    def _why_no_downgrade(self, target: tuple[int, int]) -> ErrorKind | None:
        major, minor, _ = self.machine.cluster_version.split(".")
        if target != (int(major), int(minor) - 1):
            return ErrorKind.INVALID_DOWNGRADE_TARGET_VERSION
        return ErrorKind.DOWNGRADE_IN_PROCESS if self.machine.downgrade.enabled else None

    def _cancel_downgrade(
        self,
        identity: Identity,
        caller: Caller,
        reply: Callable[[DowngradeResponse | KvError], None],
    ) -> None:
        if self.machine.downgrade.enabled:
            self._propose_downgrade(Downgrade(enabled=False), identity, caller, reply)
        else:
            # As in etcd: that there is none is no error to whoever wants none.
            reply(self._downgrade_response())

    def _propose_downgrade(
        self,
        body: Downgrade,
        identity: Identity,
        caller: Caller,
        reply: Callable[[DowngradeResponse | KvError], None],
    ) -> None:
        def decided(outcome: "Outcome | KvError") -> None:
            result = outcome if isinstance(outcome, KvError) else outcome.response
            reply(result if isinstance(result, KvError) else self._downgrade_response())

        deadline = self._deadline(caller)
        self._proposals.submit(Kind.DOWNGRADE, body, decided, deadline, identity=identity)

    def _downgrade_response(self) -> DowngradeResponse:
        version = self.machine.cluster_version.rpartition(".")[0]
        return DowngradeResponse(self.header(), version)


def _target_version(text: str) -> tuple[int, int] | None:
    """Major and minor of ``3.6`` or ``3.6.0``; None if it is no version."""
    match = _VERSION.fullmatch(text)
    return None if match is None else (int(match[1]), int(match[2]))


def alarm_name(alarm: int) -> str:
    """An alarm's name as etcd shows it."""
    try:
        return AlarmType(alarm).name
    except ValueError:
        return "UNKNOWN"
