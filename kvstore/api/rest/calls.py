"""The plain REST calls as calls of the service; a conditional write is one transaction."""

from collections.abc import Callable
from functools import partial
from typing import Final

from kvstore.api.answer import Answer, Outcome, Pending, Refused, Reply, error_answer
from kvstore.api.backend import Service
from kvstore.api.caller_headers import in_time
from kvstore.api.rest.conditions import Tags, parse_tags
from kvstore.api.rest.listing import listing
from kvstore.api.rest.request import (
    Parameters,
    RestRequest,
    bad_request,
    decode_key,
    required_key,
)
from kvstore.errors import Code, ErrorKind, KvError
from kvstore.service.caller import Caller
from kvstore.types import (
    OPEN_END,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    DeleteRangeResponse,
    KeyValue,
    LeaseId,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    ResponseOp,
    TxnRequest,
    TxnResponse,
)

_DENIED: Final = ErrorKind.PERMISSION_DENIED.error()

METHODS: Final = ("GET", "HEAD", "PUT", "DELETE")

CORS: Final = (
    b"Access-Control-Allow-Origin: *\r\n"
    b"Access-Control-Allow-Methods: GET, HEAD, PUT, DELETE, OPTIONS\r\n"
    b"Access-Control-Allow-Headers: accept, content-type, authorization, "
    b"if-match, if-none-match\r\n"
    b"Access-Control-Expose-Headers: etag, x-kvstore-revision, x-kvstore-create-revision, "
    b"x-kvstore-version, x-kvstore-lease\r\n"
)
ERROR_HEAD: Final = b"Content-Type: application/json\r\n" + CORS
LIST_HEAD: Final = ERROR_HEAD
VALUE_HEAD: Final = b"Content-Type: application/octet-stream\r\n" + CORS

_READ_PARAMETERS: Final = {
    "revision": "read as of this revision",
    "serializable": "answer from this member, which may lag behind",
}
_LIST_PARAMETERS: Final = {
    "prefix": "list the keys that begin with the path",
    "from": "begin at this key",
    "limit": "list at most so many",
    "keys_only": "leave the values out",
    **_READ_PARAMETERS,
}
_PUT_PARAMETERS: Final = {"lease": "attach the key to this lease, by its decimal id"}


class Rest:
    """The face.

    Args:
        service: what is asked.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._calls: dict[str, Callable[[RestRequest, Caller], Pending]] = {
            "GET": self._get,
            "HEAD": self._get,
            "PUT": self._put,
            "DELETE": self._delete,
        }

    def pending(self, request: RestRequest, caller: Caller) -> Pending:
        """The call that a request asks for.

        Raises:
            KvError: the request makes no sense, or the caller's time is over.
        """
        pending = self._calls[request.method](request, caller)
        in_time(caller)
        return pending

    def _get(self, request: RestRequest, caller: Caller) -> Pending:
        parameters = Parameters(request.query, _LIST_PARAMETERS)
        if parameters.flag("prefix"):
            return self._list(request, parameters, caller)
        for name in ("from", "limit", "keys_only"):
            if name in parameters:
                raise bad_request(f"parameter {name!r} goes with 'prefix' only")
        key = required_key(request.path)
        if_match = parse_tags(request.header("If-Match"), "If-Match")
        if_none_match = parse_tags(request.header("If-None-Match"), "If-None-Match")
        asked = _range_request(key, parameters)
        begin = partial(self._service.range, asked, caller)
        return Pending(begin, partial(_found, if_match, if_none_match))

    def _list(self, request: RestRequest, parameters: Parameters, caller: Caller) -> Pending:
        prefix = decode_key(request.path)
        limit = parameters.number("limit", 0)
        asked = _range_request(max(prefix, parameters.raw("from")) or b"\0", parameters)
        asked.range_end = _after_prefix(prefix)
        asked.keys_only = parameters.flag("keys_only")
        # One more than asked for: its key is where the next page begins.
        asked.limit = limit + 1 if limit else 0
        begin = partial(self._service.range, asked, caller)
        return Pending(begin, partial(_listed, limit, asked.keys_only))

    def _put(self, request: RestRequest, caller: Caller) -> Pending:
        parameters = Parameters(request.query, _PUT_PARAMETERS)
        key = required_key(request.path)
        _check_body(request)
        lease = LeaseId(parameters.number("lease", -(1 << 63)))
        # The old record tells created from replaced; it does not travel any further than here.
        put = PutRequest(key, request.body, lease, prev_kv=True)
        condition = _condition(request, key, RequestOp(request_put=put))
        if condition is not None:
            return Pending(partial(self._service.txn, condition, caller), _put_decided)
        plain = _PlainPut(self._service, put, caller)
        return Pending(plain.begin, plain.finish)

    def _delete(self, request: RestRequest, caller: Caller) -> Pending:
        Parameters(request.query, {})
        key = required_key(request.path)
        delete = DeleteRangeRequest(key)
        condition = _condition(request, key, RequestOp(request_delete_range=delete))
        if condition is not None:
            return Pending(partial(self._service.txn, condition, caller), _delete_decided)
        return Pending(partial(self._service.delete_range, delete, caller), _deleted)


class _PlainPut:
    """A put without a condition. Whoever may write a key but not read it is not told whether there
    was one: then the answer is 200 for both.
    """

    __slots__ = ("_caller", "_put", "_service")

    def __init__(self, service: Service, put: PutRequest, caller: Caller) -> None:
        self._service = service
        self._put = put
        self._caller = caller

    def begin(self, reply: Reply) -> None:
        """Write, and ask for the old record unless that is what is forbidden."""

        def done(outcome: Outcome) -> None:
            put = self._put
            if put.prev_kv and isinstance(outcome, KvError) and outcome == _DENIED:
                put.prev_kv = False
                self._service.put(put, self._caller, reply)
            else:
                reply(outcome)

        self._service.put(self._put, self._caller, done)

    def finish(self, outcome: Outcome) -> Answer:
        """201 if the key is known to be new."""
        answer = _put_done(outcome)
        if answer.status == 201 and not self._put.prev_kv:
            answer.status = 200
        return answer


# --- Requests -------------------------------------------------------------------------------------


def _range_request(key: bytes, parameters: Parameters) -> RangeRequest:
    return RangeRequest(
        key,
        revision=parameters.number("revision", 0),
        serializable=parameters.flag("serializable"),
    )


def _after_prefix(prefix: bytes) -> bytes:
    """The end of a prefix: its last byte plus one; 0xff bytes at the end have no successor."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else OPEN_END


def _check_body(request: RestRequest) -> None:
    """What would be stored must be the value itself (RFC 9110 §8.4, §14.5)."""
    if (request.header("Content-Encoding") or "identity").lower() != "identity":
        message = "send the value as it is: what is stored here has no content encoding"
        raise Refused(415, Code.INVALID_ARGUMENT, message, b"Accept-Encoding: identity\r\n")
    if request.header("Content-Range") is not None:
        raise bad_request("a value can only be put whole, without Content-Range")


def _condition(request: RestRequest, key: bytes, write: RequestOp) -> TxnRequest | None:
    """A write under If-Match and If-None-Match; None without either.

    If-Match comes first (RFC 9110 §13.2.2). A transaction's comparisons must all hold, and one of
    several tags has to match: so the transaction asks whether none does, and writes if that fails.
    Where the write is refused it reads the key's record instead, for its current tag.
    """
    if_match = parse_tags(request.header("If-Match"), "If-Match")
    if_none_match = parse_tags(request.header("If-None-Match"), "If-None-Match")
    look = RequestOp(request_range=RangeRequest(key, keys_only=True))
    step: TxnRequest | None = None
    if if_none_match is not None:
        passes = _none_of(key, if_none_match, sorted(if_none_match.weak))
        step = TxnRequest(passes, [write], [look])
    if if_match is not None:
        fails = _none_of(key, if_match, sorted(if_match.strong))
        then = write if step is None else RequestOp(request_txn=step)
        step = TxnRequest(fails, [look], [then])
    return step


def _none_of(key: bytes, tags: Tags, revisions: list[int]) -> list[Compare]:
    """Comparisons that hold if no tag matches the key; a missing key has none."""
    if tags.anything:
        return [Compare(CompareResult.EQUAL, CompareTarget.VERSION, key, version=0)]
    return [
        Compare(CompareResult.NOT_EQUAL, CompareTarget.MOD, key, mod_revision=revision)
        for revision in revisions
    ]


# --- Answers --------------------------------------------------------------------------------------


def _found(if_match: Tags | None, if_none_match: Tags | None, outcome: Outcome) -> Answer:
    if isinstance(outcome, KvError):
        return error_answer(outcome, ERROR_HEAD)
    response: RangeResponse = outcome
    revision = _revision(response)
    mod_revision = response.kvs[0].mod_revision if response.kvs else 0
    if if_match is not None and not if_match.has_strong(mod_revision):
        return _precondition_failed(revision, mod_revision)
    if not response.kvs:
        return _missing(revision)
    item = response.kvs[0]
    if if_none_match is not None and if_none_match.has_weak(mod_revision):
        return Answer(b"", None, 304, CORS + _record_head(revision, item))
    return Answer(item.value, None, 200, VALUE_HEAD + _record_head(revision, item))


def _listed(limit: int, keys_only: bool, outcome: Outcome) -> Answer:
    if isinstance(outcome, KvError):
        return error_answer(outcome, ERROR_HEAD)
    response: RangeResponse = outcome
    head = LIST_HEAD + b"X-Kvstore-Revision: %d\r\n" % _revision(response)
    return Answer(b"", listing(response, limit, keys_only=keys_only), 200, head)


def _put_done(outcome: Outcome) -> Answer:
    if isinstance(outcome, KvError):
        return error_answer(outcome, ERROR_HEAD)
    return _stored(outcome, _revision(outcome))


def _put_decided(outcome: Outcome) -> Answer:
    if isinstance(outcome, KvError):
        return error_answer(outcome, ERROR_HEAD)
    revision, op = _revision(outcome), _last_op(outcome)
    if op.response_put is not None:
        return _stored(op.response_put, revision)
    return _not_written(op, revision)


def _deleted(outcome: Outcome) -> Answer:
    if isinstance(outcome, KvError):
        return error_answer(outcome, ERROR_HEAD)
    return _removed(outcome, _revision(outcome))


def _delete_decided(outcome: Outcome) -> Answer:
    if isinstance(outcome, KvError):
        return error_answer(outcome, ERROR_HEAD)
    revision, op = _revision(outcome), _last_op(outcome)
    if op.response_delete_range is not None:
        return _removed(op.response_delete_range, revision)
    return _not_written(op, revision)


def _last_op(response: TxnResponse) -> ResponseOp:
    """The one operation that ran, however deep it is nested."""
    (op,) = response.responses
    return op if op.response_txn is None else _last_op(op.response_txn)


def _revision(response: RangeResponse | PutResponse | DeleteRangeResponse | TxnResponse) -> int:
    assert response.header is not None, "the service fills in the header"
    return response.header.revision


def _stored(response: PutResponse, revision: int) -> Answer:
    status = 201 if response.prev_kv is None else 200
    head = CORS + b'ETag: "%d"\r\nX-Kvstore-Revision: %d\r\n' % (revision, revision)
    return Answer(b"", None, status, head)


def _removed(response: DeleteRangeResponse, revision: int) -> Answer:
    if not response.deleted:
        return _missing(revision)
    return Answer(b"", None, 204, CORS + b"X-Kvstore-Revision: %d\r\n" % revision)


def _not_written(op: ResponseOp, revision: int) -> Answer:
    assert op.response_range is not None, "a refused write looks at the key"
    items = op.response_range.kvs
    return _precondition_failed(revision, items[0].mod_revision if items else 0)


def _precondition_failed(revision: int, mod_revision: int) -> Answer:
    head = b"X-Kvstore-Revision: %d\r\n" % revision
    now = "there is no such key"
    if mod_revision:
        head += b'ETag: "%d"\r\n' % mod_revision
        now = f'the key is at "{mod_revision}"'
    message = f"the condition does not hold: {now}"
    return error_answer(Refused(412, Code.FAILED_PRECONDITION, message, head), ERROR_HEAD)


def _missing(revision: int) -> Answer:
    head = b"X-Kvstore-Revision: %d\r\n" % revision
    return error_answer(Refused(404, Code.NOT_FOUND, "there is no such key", head), ERROR_HEAD)


def _record_head(revision: int, item: KeyValue) -> bytes:
    head = (
        b'ETag: "%d"\r\nX-Kvstore-Revision: %d\r\nX-Kvstore-Create-Revision: %d\r\n'
        b"X-Kvstore-Version: %d\r\n"
        % (item.mod_revision, revision, item.create_revision, item.version)
    )
    return head + b"X-Kvstore-Lease: %d\r\n" % item.lease if item.lease else head


def method_not_allowed() -> Refused:
    """The answer to any other method (RFC 9110 §15.5.6)."""
    allow = ", ".join((*METHODS, "OPTIONS"))
    return Refused(
        405,
        Code.UNIMPLEMENTED,
        f"a key knows {allow}",
        f"Allow: {allow}\r\n".encode(),
    )
