"""Each unary path reaches its method with its request, and answers as etcd does."""

import json

import pytest

from kvstore import types as t
from kvstore.api.answer import JSON_HEAD, V3_HEAD, Refused, error_answer
from kvstore.api.error_map import HTTP_STATUS, error_body, reason, stream_error_line
from kvstore.api.v3_json.decode import Malformed
from kvstore.api.v3_json.encode import SLICE_RECORDS, encode
from kvstore.api.v3_json.unary import unary_calls
from kvstore.errors import Code, ErrorKind, KvError
from kvstore.service.caller import ANYBODY, Caller
from kvstore.types import (
    AlarmAction,
    AlarmRequest,
    CompactionRequest,
    DeleteRangeRequest,
    KeyValue,
    LeaseGrantRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    MemberListRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    StatusRequest,
    TxnRequest,
)
from tests.kvstore.api.fake_service import FakeService

PATHS = {
    "/kv/range": ("range", {"key": "YQ=="}, RangeRequest(b"a")),
    "/kv/put": ("put", {"key": "YQ==", "value": "Yg=="}, PutRequest(b"a", b"b")),
    "/kv/deleterange": ("delete_range", {"key": "YQ=="}, DeleteRangeRequest(b"a")),
    "/kv/txn": (
        "txn",
        {"success": [{"requestPut": {"key": "YQ=="}}]},
        TxnRequest(success=[RequestOp(request_put=PutRequest(b"a"))]),
    ),
    "/kv/compaction": ("compact", {"revision": "3", "physical": True}, CompactionRequest(3, True)),
    "/lease/grant": ("lease_grant", {"TTL": 5, "ID": "7"}, LeaseGrantRequest(5, 7)),
    "/lease/revoke": ("lease_revoke", {"ID": 7}, LeaseRevokeRequest(7)),
    "/kv/lease/revoke": ("lease_revoke", {"ID": 7}, LeaseRevokeRequest(7)),
    "/lease/timetolive": (
        "lease_time_to_live",
        {"ID": 7, "keys": True},
        LeaseTimeToLiveRequest(7, True),
    ),
    "/kv/lease/timetolive": ("lease_time_to_live", {"ID": 7}, LeaseTimeToLiveRequest(7)),
    "/lease/leases": ("lease_leases", {}, LeaseLeasesRequest()),
    "/kv/lease/leases": ("lease_leases", {}, LeaseLeasesRequest()),
    "/cluster/member/list": ("member_list", {"linearizable": True}, MemberListRequest(True)),
    "/cluster/member/add": (
        "member_add",
        {"peerURLs": ["http://a:1"], "isLearner": True},
        t.MemberAddRequest(["http://a:1"], True),
    ),
    "/cluster/member/remove": ("member_remove", {"ID": "7"}, t.MemberRemoveRequest(7)),
    "/cluster/member/update": (
        "member_update",
        {"ID": 7, "peerURLs": ["http://a:1"]},
        t.MemberUpdateRequest(7, ["http://a:1"]),
    ),
    "/cluster/member/promote": ("member_promote", {"ID": "7"}, t.MemberPromoteRequest(7)),
    "/maintenance/defragment": ("defragment", {}, t.DefragmentRequest()),
    "/maintenance/hash": ("hash", {}, t.HashRequest()),
    "/maintenance/hashkv": ("hash_kv", {"revision": "3"}, t.HashKVRequest(3)),
    "/maintenance/transfer-leadership": (
        "move_leader",
        {"targetID": "7"},
        t.MoveLeaderRequest(7),
    ),
    "/maintenance/downgrade": (
        "downgrade",
        {"action": "ENABLE", "version": "3.6"},
        t.DowngradeRequest(t.DowngradeAction.ENABLE, "3.6"),
    ),
    "/auth/enable": ("auth_enable", {}, t.AuthEnableRequest()),
    "/auth/disable": ("auth_disable", {}, t.AuthDisableRequest()),
    "/auth/status": ("auth_status", {}, t.AuthStatusRequest()),
    "/auth/authenticate": (
        "authenticate",
        {"name": "u", "password": "p"},
        t.AuthenticateRequest("u", "p"),
    ),
    "/auth/user/add": (
        "user_add",
        {"name": "u", "options": {"noPassword": True}},
        t.AuthUserAddRequest("u", options=t.UserAddOptions(True)),
    ),
    "/auth/user/get": ("user_get", {"name": "u"}, t.AuthUserGetRequest("u")),
    "/auth/user/list": ("user_list", {}, t.AuthUserListRequest()),
    "/auth/user/delete": ("user_delete", {"name": "u"}, t.AuthUserDeleteRequest("u")),
    "/auth/user/changepw": (
        "user_change_password",
        {"name": "u", "password": "p"},
        t.AuthUserChangePasswordRequest("u", "p"),
    ),
    "/auth/user/grant": (
        "user_grant_role",
        {"user": "u", "role": "r"},
        t.AuthUserGrantRoleRequest("u", "r"),
    ),
    "/auth/user/revoke": (
        "user_revoke_role",
        {"name": "u", "role": "r"},
        t.AuthUserRevokeRoleRequest("u", "r"),
    ),
    "/auth/role/add": ("role_add", {"name": "r"}, t.AuthRoleAddRequest("r")),
    "/auth/role/get": ("role_get", {"role": "r"}, t.AuthRoleGetRequest("r")),
    "/auth/role/list": ("role_list", {}, t.AuthRoleListRequest()),
    "/auth/role/delete": ("role_delete", {"role": "r"}, t.AuthRoleDeleteRequest("r")),
    "/auth/role/grant": (
        "role_grant_permission",
        {"name": "r", "perm": {"permType": "WRITE", "key": "YQ==", "rangeEnd": "AA=="}},
        t.AuthRoleGrantPermissionRequest("r", t.Permission(t.PermissionType.WRITE, b"a", b"\0")),
    ),
    "/auth/role/revoke": (
        "role_revoke_permission",
        {"role": "r", "key": "YQ==", "range_end": "Yg=="},
        t.AuthRoleRevokePermissionRequest("r", b"a", b"b"),
    ),
    "/lock/lock": ("lock", {"name": "YQ==", "lease": "7"}, t.LockRequest(b"a", 7)),
    "/lock/unlock": ("unlock", {"key": "YQ=="}, t.UnlockRequest(b"a")),
    "/election/campaign": (
        "campaign",
        {"name": "YQ==", "lease": 7, "value": "Yg=="},
        t.CampaignRequest(b"a", 7, b"b"),
    ),
    "/election/proclaim": (
        "proclaim",
        {"leader": {"key": "YQ==", "rev": "5"}, "value": "Yg=="},
        t.ProclaimRequest(t.LeaderKey(key=b"a", rev=5), b"b"),
    ),
    "/election/leader": ("leader", {"name": "YQ=="}, t.LeaderRequest(b"a")),
    "/election/resign": (
        "resign",
        {"leader": {"name": "YQ==", "lease": "7"}},
        t.ResignRequest(t.LeaderKey(b"a", lease=7)),
    ),
    "/maintenance/status": ("status", {}, StatusRequest()),
    "/maintenance/alarm": ("alarm", {"action": "ACTIVATE"}, AlarmRequest(AlarmAction.ACTIVATE)),
}

WITHOUT_HEADER = {"/maintenance/defragment", "/maintenance/transfer-leadership"}


def call(service, path, body, caller=ANYBODY):
    pending = unary_calls(service)[path].pending(body, caller)
    replies: list[object] = []
    pending.begin(replies.append)
    (outcome,) = replies
    return pending.finish(outcome)


@pytest.mark.parametrize("prefix", ["/v3", "/v3beta"])
@pytest.mark.parametrize("path", PATHS)
def test_each_path_asks_its_method(prefix, path):
    service = FakeService()
    method, body, request = PATHS[path]
    answer = call(service, prefix + path, json.dumps(body).encode())
    assert service.calls == [(method, request)]
    assert (answer.status, answer.head) == (200, V3_HEAD)
    body = json.loads(answer.body)
    if path in WITHOUT_HEADER:
        assert body == {}
    else:
        assert body["header"]["member_id"] == str(service.member_id)


def test_no_other_paths_are_served():
    assert set(unary_calls(FakeService())) == {
        prefix + path for prefix in ("/v3", "/v3beta") for path in PATHS
    }


def test_malformed_bodies_are_refused_before_the_service_is_asked():
    service = FakeService()
    with pytest.raises(Malformed):
        call(service, "/v3/kv/put", b'{"key":')
    assert service.calls == []


def test_an_error_of_the_service_is_answered_with_its_code_and_words():
    service = FakeService()
    answer = call(service, "/v3/kv/put", b"{}")
    words = "etcdserver: key is not provided"
    assert answer.status == 400
    assert json.loads(answer.body) == {"error": words, "message": words, "code": 3}


def test_a_long_answer_comes_in_slices():
    service = FakeService()
    service.items = {
        b"%06d" % n: KeyValue(b"%06d" % n, n + 1, n + 1, 1, b"v") for n in range(SLICE_RECORDS + 1)
    }
    answer = call(service, "/v3/kv/range", b'{"key":"AA==","range_end":"AA=="}')
    items = list(service.items.values())
    assert answer.body == b""
    assert b"".join(answer.slices) == encode(
        RangeResponse(service.header(), items, False, len(items))
    )


def test_values_of_a_request_are_bounded():
    calls = unary_calls(FakeService(), values_max=20)
    body = b'{"success":[' + b",".join([b"{}"] * 20) + b"]}"
    with pytest.raises(Malformed, match="more than 20"):
        calls["/v3/kv/txn"].pending(body, ANYBODY)
    with pytest.raises(Malformed, match="more than 20"):
        calls["/v3/lease/grant"].pending(body, ANYBODY)


def test_who_waits_no_more_is_told_so_once_their_request_was_understood():
    service = FakeService()
    put = unary_calls(service)["/v3/kv/put"]
    late = Caller(timeout_seconds=0.0)
    with pytest.raises(KvError, match="context deadline exceeded"):
        put.pending(b'{"key":"YQ=="}', late)
    with pytest.raises(Malformed):
        put.pending(b"{", late)
    assert service.calls == []


@pytest.mark.parametrize("code", Code)
def test_each_code_has_a_status_with_words(code):
    assert reason(HTTP_STATUS[code])


@pytest.mark.parametrize("kind", ErrorKind)
def test_each_error_is_readable_by_old_and_new_clients(kind):
    answer = error_answer(kind.error())
    assert answer.status == HTTP_STATUS[kind.code]
    body = json.loads(answer.body)
    assert body == {"error": kind.message, "message": kind.message, "code": kind.code}
    line = json.loads(stream_error_line(kind.error()))["error"]
    assert (line["grpc_code"], line["code"], line["message"]) == (
        kind.code,
        kind.code,
        kind.message,
    )
    assert line["http_code"] == answer.status
    assert line["http_status"] == reason(answer.status)


def test_golden_errors():
    assert error_body(Code.NOT_FOUND, "Not Found") == (
        b'{"error":"Not Found","message":"Not Found","code":5}'
    )
    assert stream_error_line(ErrorKind.NO_LEADER.error()) == (
        b'{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader",'
        b'"http_status":"Service Unavailable","code":14}}\n'
    )


def test_an_unauthenticated_caller_is_told_why_and_cannot_end_the_head():
    answer = error_answer(KvError(Code.UNAUTHENTICATED, "bad\r\ntoken"))
    assert answer.status == 401
    assert answer.head.endswith(b"WWW-Authenticate: bad token\r\n")


def test_a_refusal_has_a_status_and_a_head_of_its_own():
    answer = error_answer(Refused(405, Code.UNIMPLEMENTED, "no", b"Allow: GET\r\n"), JSON_HEAD)
    assert (answer.status, answer.head) == (405, JSON_HEAD + b"Allow: GET\r\n")
