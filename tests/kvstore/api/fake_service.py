"""A service small enough to be obviously right: one dict, no cluster."""

import asyncio

from kvstore.api.v3_json.table import UNARY
from kvstore.errors import ErrorKind, KvError
from kvstore.types import (
    AlarmMember,
    AlarmResponse,
    AlarmType,
    CampaignResponse,
    CompactionResponse,
    CompareResult,
    CompareTarget,
    DeleteRangeResponse,
    Event,
    EventType,
    KeyValue,
    LeaderKey,
    LeaderResponse,
    LeaseGrantResponse,
    LeaseKeepAliveResponse,
    LeaseLeasesResponse,
    LeaseRevokeResponse,
    LeaseStatus,
    LeaseTimeToLiveResponse,
    LockResponse,
    Member,
    MemberListResponse,
    PutResponse,
    RangeResponse,
    RangeStreamResponse,
    RequestOp,
    ResponseHeader,
    ResponseOp,
    SnapshotResponse,
    StatusResponse,
    TxnResponse,
    WatchResponse,
)

CLUSTER_ID = 14841639068965178418
MEMBER_ID = 10276657743932975437


SIMPLE = {
    row.method: row.response
    for row in UNARY
    if row.path.startswith(("/auth", "/cluster", "/maintenance", "/lock/un", "/election"))
}
"""By method of the service: the response that a call gets which needs no more than one."""


class FakeWatch:
    """Everything put in ``waiting`` comes out of ``take``, ``at_once`` at a time."""

    def __init__(self, service, on_ready):
        self.service = service
        self.on_ready = on_ready
        self.requests = []
        self.waiting = []
        self.at_once = 10
        self.closed = False

    def request(self, request):
        self.requests.append(request)
        create = request.create_request
        if create is not None:
            header = self.service.header()
            self.waiting.append(WatchResponse(header, create.watch_id, created=True))

    def push(self, *responses):
        self.waiting += responses
        self.on_ready()

    def event(self, key, value, revision):
        item = KeyValue(key, revision, revision, 1, value)
        self.push(WatchResponse(self.service.header(), events=[Event(EventType.PUT, item)]))

    def take(self, budget, bytes_max):
        assert bytes_max > 0
        taken = self.waiting[: self.at_once]
        del self.waiting[: self.at_once]
        return taken

    def close(self):
        self.closed = True


class FakeService:
    def __init__(self):
        self.cluster_id = CLUSTER_ID
        self.member_id = MEMBER_ID
        self.version = "3.7.1"
        self.cluster_version = "3.7.0"
        self.revision = 1
        self.items = {}
        self.callers = []
        self.calls = []
        self.watches = []
        self.sick = ""
        self.health_asked = None
        self.held = None
        """A list: replies are kept there and not given."""
        self.fails_with = None
        self.left = []
        """Calls whose caller went away."""
        self.proclaimed = [KeyValue(b"e/4d", 5, 5, 1, b"one"), KeyValue(b"e/4d", 5, 6, 2, b"two")]
        self.waiting_for_leader = []
        """Who is to be told that there is no leader."""
        self.failing = {}
        """Reasons of checks that fail."""

    def header(self):
        return ResponseHeader(self.cluster_id, self.member_id, self.revision, 7)

    def _reply(self, name, request, caller, reply, work):
        self.calls.append((name, request))
        self.callers.append(caller)
        if self.fails_with is not None:
            reply(self.fails_with)
        elif self.held is not None:
            self.held.append(lambda: reply(work()))
        else:
            try:
                outcome = work()
            except KvError as error:
                outcome = error
            reply(outcome)

    def range(self, request, caller, reply):
        self._reply("range", request, caller, reply, lambda: self._headed(self._range(request)))

    def put(self, request, caller, reply):
        self._reply("put", request, caller, reply, lambda: self._written(self._put(request)))

    def delete_range(self, request, caller, reply):
        self._reply(
            "delete_range", request, caller, reply, lambda: self._written(self._delete(request))
        )

    def txn(self, request, caller, reply):
        def work():
            before = dict(self.items)
            changed: list[RequestOp] = []
            response = self._txn(request, before, changed)
            if changed:
                self.revision += 1
            return self._headed(response)

        self._reply("txn", request, caller, reply, work)

    def compact(self, request, caller, reply):
        self._simple("compact", request, caller, reply, CompactionResponse())

    def lease_grant(self, request, caller, reply):
        response = LeaseGrantResponse(None, request.ID or 77, request.TTL)
        self._simple("lease_grant", request, caller, reply, response)

    def lease_revoke(self, request, caller, reply):
        self._simple("lease_revoke", request, caller, reply, LeaseRevokeResponse())

    def lease_keep_alive(self, request, caller, reply):
        response = LeaseKeepAliveResponse(None, request.ID, 10)
        self._simple("lease_keep_alive", request, caller, reply, response)

    def lease_time_to_live(self, request, caller, reply):
        response = LeaseTimeToLiveResponse(None, request.ID, -1)
        self._simple("lease_time_to_live", request, caller, reply, response)

    def lease_leases(self, request, caller, reply):
        response = LeaseLeasesResponse(None, [LeaseStatus(5), LeaseStatus(6)])
        self._simple("lease_leases", request, caller, reply, response)

    def member_list(self, request, caller, reply):
        member = Member(MEMBER_ID, "one", ("http://a:2380",), ("http://a:2379",))
        self._simple("member_list", request, caller, reply, MemberListResponse(None, [member]))

    def status(self, request, caller, reply):
        response = StatusResponse(None, self.version, 100, MEMBER_ID, 5, 7, 5)
        self._simple("status", request, caller, reply, response)

    def alarm(self, request, caller, reply):
        response = AlarmResponse(None, [AlarmMember(MEMBER_ID, AlarmType.NOSPACE)])
        self._simple("alarm", request, caller, reply, response)

    def lock(self, request, caller, reply):
        response = LockResponse(None, request.name + b"/4d")
        self._simple("lock", request, caller, reply, response)
        return lambda: self.left.append("lock")

    def campaign(self, request, caller, reply):
        leader = LeaderKey(request.name, request.name + b"/4d", 5, 77)
        self._simple("campaign", request, caller, reply, CampaignResponse(None, leader))
        return lambda: self.left.append("campaign")

    async def observe(self, request, caller):
        self.calls.append(("observe", request))
        self.callers.append(caller)
        try:
            if self.fails_with is not None:
                raise self.fails_with
            for kv in self.proclaimed:
                yield self._headed(LeaderResponse(None, kv))
            if self.held is not None:
                await asyncio.Event().wait()
        finally:
            self.left.append("observe")

    async def snapshot(self, request, caller):
        self.calls.append(("snapshot", request))
        self.callers.append(caller)
        for left in (2, 1, 0):
            yield SnapshotResponse(None, left, bytes([left]), "3.7.0")

    async def range_stream(self, request, caller):
        self.calls.append(("range_stream", request))
        self.callers.append(caller)
        try:
            if self.fails_with is not None:
                raise self.fails_with
            response = self._headed(self._range(request))
            for item in response.kvs[:-1]:
                yield RangeStreamResponse(RangeResponse(None, [item]))
            response.kvs = response.kvs[-1:]
            yield RangeStreamResponse(response)
        finally:
            self.left.append("range_stream")

    def when_leaderless(self, lost):
        self.waiting_for_leader.append(lost)

        def leave():
            if lost in self.waiting_for_leader:
                self.waiting_for_leader.remove(lost)

        return leave

    def checks(self, names, reply):
        reply({name: self.failing.get(name, "") for name in names})

    def open_watch(self, caller, on_ready):
        self.callers.append(caller)
        if self.fails_with is not None:
            raise self.fails_with
        watch = FakeWatch(self, on_ready)
        self.watches.append(watch)
        return watch

    def health(self, serializable, exclude, reply):
        self.health_asked = (serializable, exclude)
        reply(self.sick)

    # ----

    def __getattr__(self, name):
        """Calls that only have to arrive: each answers with its empty response."""
        response = SIMPLE.get(name)
        if response is None:
            raise AttributeError(name)
        return lambda request, caller, reply: self._simple(name, request, caller, reply, response())

    def _simple(self, name, request, caller, reply, response):
        self._reply(name, request, caller, reply, lambda: self._headed(response))

    def _headed(self, response):
        if not hasattr(response, "header"):
            return response
        response.header = self.header()
        return response

    def _written(self, response):
        if not isinstance(response, DeleteRangeResponse) or response.deleted:
            self.revision += 1
        return self._headed(response)

    def _matching(self, request):
        end = request.range_end
        if not end:
            return [request.key] if request.key in self.items else []
        return sorted(
            key for key in self.items if key >= request.key and (end == b"\0" or key < end)
        )

    def _range(self, request):
        if not request.key:
            raise ErrorKind.EMPTY_KEY.error()
        keys = self._matching(request)
        shown = keys[: request.limit] if request.limit else keys
        found = [self.items[key] for key in shown]
        if request.keys_only:
            found = [
                KeyValue(kv.key, kv.create_revision, kv.mod_revision, kv.version) for kv in found
            ]
        return RangeResponse(None, found, len(shown) < len(keys), len(keys))

    def _put(self, request, revision=None):
        if not request.key:
            raise ErrorKind.EMPTY_KEY.error()
        revision = revision or self.revision + 1
        old = self.items.get(request.key)
        created, version = (old.create_revision, old.version + 1) if old else (revision, 1)
        self.items[request.key] = KeyValue(
            request.key, created, revision, version, request.value, request.lease
        )
        return PutResponse(None, old if request.prev_kv else None)

    def _delete(self, request):
        keys = self._matching(request)
        old = [self.items.pop(key) for key in keys]
        return DeleteRangeResponse(None, len(keys), old if request.prev_kv else [])

    def _txn(self, request, before, changed):
        holds = all(_holds(compare, before.get(compare.key)) for compare in request.compare)
        responses = []
        for op in request.success if holds else request.failure:
            if op.request_put is not None:
                changed.append(op)
                answer = self._put(op.request_put)
                responses.append(ResponseOp(response_put=answer))
            elif op.request_range is not None:
                responses.append(ResponseOp(response_range=self._range(op.request_range)))
            elif op.request_delete_range is not None:
                answer = self._delete(op.request_delete_range)
                if answer.deleted:
                    changed.append(op)
                responses.append(ResponseOp(response_delete_range=answer))
            elif op.request_txn is not None:
                answer = self._txn(op.request_txn, before, changed)
                responses.append(ResponseOp(response_txn=answer))
        return TxnResponse(None, holds, responses)


def _holds(compare, item):
    actual = {
        CompareTarget.VERSION: item.version if item else 0,
        CompareTarget.CREATE: item.create_revision if item else 0,
        CompareTarget.MOD: item.mod_revision if item else 0,
        CompareTarget.VALUE: item.value if item else None,
    }[compare.target]
    wanted = {
        CompareTarget.VERSION: compare.version,
        CompareTarget.CREATE: compare.create_revision,
        CompareTarget.MOD: compare.mod_revision,
        CompareTarget.VALUE: compare.value,
    }[compare.target]
    return {
        CompareResult.EQUAL: actual == wanted,
        CompareResult.NOT_EQUAL: actual != wanted,
        CompareResult.GREATER: actual > wanted,
        CompareResult.LESS: actual < wanted,
    }[compare.result]
