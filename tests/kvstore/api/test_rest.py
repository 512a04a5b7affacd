"""Plain REST: bytes in, bytes out, and compare-and-set by entity tags (RFC 9110 §13)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from kvstore.api.answer import error_answer
from kvstore.api.rest.calls import ERROR_HEAD, Rest
from kvstore.api.rest.conditions import TAGS_MAX, parse_tags
from kvstore.api.rest.request import RestRequest, decode_key
from kvstore.api.v3_json.encode import SLICE_RECORDS
from kvstore.errors import Code, ErrorKind, KvError
from kvstore.service.caller import ANYBODY
from kvstore.types import KeyValue, PutRequest
from tests.kvstore.api.fake_service import FakeService


class Client:
    def __init__(self, service=None):
        self.service = service or FakeService()
        self.rest = Rest(self.service)

    def __call__(self, method, path, query="", body=b"", **headers):
        names = CIMultiDict({name.replace("_", "-"): text for name, text in headers.items()})
        request = RestRequest(method, path, query, names, body)
        try:
            pending = self.rest.pending(request, ANYBODY)
        except KvError as error:
            return Response(error_answer(error, ERROR_HEAD))
        replies: list[object] = []
        pending.begin(replies.append)
        (outcome,) = replies
        return Response(pending.finish(outcome))


class Response:
    def __init__(self, answer):
        self.status = answer.status
        assert answer.head.endswith(b"\r\n")
        lines = answer.head.decode().split("\r\n")[:-1]
        self.headers = dict(line.split(": ", 1) for line in lines)
        assert len(self.headers) == len(lines)
        self.body = answer.body if answer.slices is None else b"".join(answer.slices)
        self.etag = self.headers.get("ETag")
        self.revision = int(self.headers.get("X-Kvstore-Revision", 0))

    @property
    def message(self):
        error = json.loads(self.body)
        assert error["error"] == error["message"]
        return error["message"]


def test_put_creates_then_replaces_and_get_gives_the_bytes_back():
    client = Client()
    value = bytes(range(256))
    created = client("PUT", "config/db", body=value)
    assert (created.status, created.etag, created.revision) == (201, '"2"', 2)
    replaced = client("PUT", "config/db", body=value + b"!")
    assert (replaced.status, replaced.etag, replaced.revision) == (200, '"3"', 3)
    found = client("GET", "config/db")
    assert (found.status, found.body, found.etag) == (200, value + b"!", '"3"')
    assert found.headers["Content-Type"] == "application/octet-stream"
    assert found.headers["X-Kvstore-Create-Revision"] == "2"
    assert found.headers["X-Kvstore-Version"] == "2"
    assert "X-Kvstore-Lease" not in found.headers


class WriteOnly(FakeService):
    """The caller may write, and read nothing."""

    def put(self, request, caller, reply):
        if request.prev_kv:
            reply(ErrorKind.PERMISSION_DENIED.error())
        else:
            super().put(request, caller, reply)


def test_whoever_may_only_write_stores_and_is_not_told_what_was_there():
    client = Client(WriteOnly())
    assert client("PUT", "config/db", body=b"one").status == 200
    again = client("PUT", "config/db", body=b"two")
    assert (again.status, again.etag) == (200, '"3"')
    assert client("GET", "config/db").body == b"two"


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_a_missing_key_is_404_with_a_reason(method):
    missing = Client()(method, "nothing")
    assert (missing.status, missing.message) == (404, "there is no such key")
    assert missing.headers["Content-Type"] == "application/json"


def test_delete_says_that_it_did():
    client = Client()
    client("PUT", "a", body=b"1")
    gone = client("DELETE", "a")
    assert (gone.status, gone.body, gone.revision) == (204, b"", 3)
    assert client("DELETE", "a").status == 404


@given(st.binary(min_size=1, max_size=12))
def test_any_key_can_be_said(key):
    path = "".join(f"%{byte:02X}" if byte % 3 or byte < 48 else f"%{byte:02x}" for byte in key)
    assert decode_key(path) == key


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("config/db", b"config/db"),
        ("/etc/passwd", b"/etc/passwd"),
        ("%2Fetc%2Fpasswd", b"/etc/passwd"),
        ("a+b", b"a+b"),
        ("caf\udcc3\udca9", b"caf\xc3\xa9"),
        ("café", b"caf\xc3\xa9"),
        ("a%00b", b"a\0b"),
        ("a/../b/", b"a/../b/"),
    ],
)
def test_the_key_is_what_follows_the_prefix_byte_for_byte(path, key):
    client = Client()
    assert client("PUT", path, body=b"v").status == 201
    assert list(client.service.items) == [key]


@pytest.mark.parametrize("path", ["%", "%4", "%zz", "a%+1"])
def test_an_escape_that_is_none_is_refused(path):
    response = Client()("GET", path)
    assert response.status == 400
    assert "hexadecimal" in response.message


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_an_empty_key_is_refused_as_everywhere(method):
    response = Client()(method, "")
    assert (response.status, response.message) == (400, "etcdserver: key is not provided")


# --- Compare-and-set ------------------------------------------------------------------------------


def test_if_match_writes_only_over_the_revision_that_was_read():
    client = Client()
    first = client("PUT", "a", body=b"1").etag
    second = client("PUT", "a", body=b"2", If_Match=first)
    assert (second.status, second.etag) == (200, '"3"')
    late = client("PUT", "a", body=b"3", If_Match=first)
    assert (late.status, late.etag) == (412, second.etag)
    assert 'the key is at "3"' in late.message
    assert client("GET", "a").body == b"2"
    assert client("DELETE", "a", If_Match=first).status == 412
    assert client("DELETE", "a", If_Match=second.etag).status == 204


def test_if_none_match_star_creates_and_never_replaces():
    client = Client()
    created = client("PUT", "a", body=b"1", If_None_Match="*")
    assert created.status == 201
    again = client("PUT", "a", body=b"2", If_None_Match="*")
    assert (again.status, again.etag) == (412, created.etag)
    assert client("GET", "a").body == b"1"


def test_if_match_star_replaces_and_never_creates():
    client = Client()
    missing = client("PUT", "a", body=b"1", If_Match="*")
    assert (missing.status, missing.etag) == (412, None)
    assert "there is no such key" in missing.message
    assert client.service.items == {}
    client("PUT", "a", body=b"1")
    assert client("PUT", "a", body=b"2", If_Match="*").status == 200


def test_a_list_matches_by_any_of_its_tags():
    client = Client()
    client("PUT", "a", body=b"1")
    for tags in ('"9", "2"', '"2","9"', ',"9" ,, "2",'):
        assert client("PUT", "a", body=b"1", If_None_Match=tags).status == 412
    current = client("PUT", "a", body=b"2", If_Match='"9", "2"')
    assert (current.status, current.etag) == (200, '"3"')
    assert client("PUT", "a", body=b"3", If_None_Match='"9", "2"').status == 200


def test_weak_tags_never_match_strongly_and_always_weakly():
    client = Client()
    etag = client("PUT", "a", body=b"1").etag
    assert client("PUT", "a", body=b"2", If_Match=f"W/{etag}").status == 412
    assert client("GET", "a", If_Match=f"W/{etag}").status == 412
    assert client("GET", "a", If_None_Match=f"W/{etag}").status == 304
    assert client("PUT", "a", body=b"2", If_None_Match=f"W/{etag}").status == 412


def test_a_tag_of_somebody_else_matches_nothing():
    client = Client()
    client("PUT", "a", body=b"1")
    for tag in ('"abc"', '"02"', '"0"', '"-2"', '""', '"99999999999999999999"'):
        assert client("PUT", "a", body=b"2", If_Match=tag).status == 412
        assert client("PUT", "new", body=b"2", If_Match=tag).status == 412
        assert client("GET", "a", If_None_Match=tag).status == 200


def test_both_conditions_must_hold():
    client = Client()
    client("PUT", "a", body=b"1")
    assert client("PUT", "a", body=b"2", If_Match='"2"', If_None_Match='"2"').status == 412
    assert client("PUT", "a", body=b"2", If_Match='"1"', If_None_Match='"7"').status == 412
    done = client("PUT", "a", body=b"2", If_Match='"2"', If_None_Match='"7"')
    assert (done.status, done.etag) == (200, '"3"')
    assert client("PUT", "a", body=b"3", If_Match="*", If_None_Match="*").status == 412


def test_conditional_get_saves_the_body_or_refuses():
    client = Client()
    etag = client("PUT", "a", body=b"1").etag
    fresh = client("GET", "a", If_None_Match=etag)
    assert (fresh.status, fresh.body, fresh.etag) == (304, b"", etag)
    assert client("GET", "a", If_None_Match="*").status == 304
    assert client("GET", "a", If_None_Match='"1"').status == 200
    assert client("GET", "a", If_Match=etag).status == 200
    assert client("GET", "a", If_Match='"1"').status == 412
    assert client("GET", "b", If_Match="*").status == 412
    assert client("GET", "b", If_None_Match="*").status == 404


@pytest.mark.parametrize("text", ["5", "", ",", '"5', '"5" "6"', "W/5", '*, "5"', 'w/"5"'])
def test_a_condition_that_is_none_is_refused(text):
    response = Client()("PUT", "a", body=b"1", If_Match=text)
    assert response.status == 400
    assert "If-Match must" in response.message


def test_a_list_of_tags_is_bounded():
    tags = [f'"{number}"' for number in range(1, TAGS_MAX + 1)]
    parsed = parse_tags(", ".join(tags), "If-Match")
    assert parsed is not None
    assert parsed.strong == frozenset(range(1, TAGS_MAX + 1))
    with pytest.raises(KvError, match=f"between 1 and {TAGS_MAX}"):
        parse_tags(", ".join([*tags, '"99"']), "If-Match")


ETAGS = (
    st.none()
    | st.just("*")
    | st.lists(
        st.builds(
            lambda weak, number: f'{weak}"{number}"', st.sampled_from(["", "W/"]), st.integers(1, 5)
        ),
        min_size=1,
        max_size=3,
    ).map(", ".join)
)


@given(st.integers(0, 4), ETAGS, ETAGS, st.sampled_from(["PUT", "DELETE"]))
def test_rfc9110_s13_2_2_the_transaction_decides_as_the_rule_does(at, match, none_match, method):
    client = Client()
    mod = 0
    if at:
        client.service.revision = at
        mod = int(client("PUT", "a", body=b"1").etag.strip('"'))
    headers = {"If_Match": match, "If_None_Match": none_match}
    response = client(method, "a", body=b"2", **{n: t for n, t in headers.items() if t is not None})
    if_match, if_none_match = parse_tags(match, "x"), parse_tags(none_match, "x")
    passes = (if_match is None or if_match.has_strong(mod)) and (
        if_none_match is None or not if_none_match.has_weak(mod)
    )
    if not passes:
        assert response.status == 412
    elif method == "PUT":
        assert response.status == (200 if mod else 201)
    else:
        assert response.status == (204 if mod else 404)
    item = client.service.items.get(b"a")
    assert (item is not None and item.value == b"2") == (passes and method == "PUT")
    assert response.revision == client.service.revision


def test_a_conditional_put_sends_its_value_once():
    client = Client()
    client("PUT", "a", body=b"value", If_Match='"1", "2"', If_None_Match='"3"')
    ((_, request),) = client.service.calls
    assert repr(request).count("b'value'") == 1


# --- Listing --------------------------------------------------------------------------------------


def filled():
    client = Client()
    for key in ("a/1", "a/2", "a/3", "b/1"):
        client("PUT", key, body=key.encode())
    return client


def test_a_prefix_lists_keys_as_text():
    response = filled()("GET", "a/", "prefix")
    assert response.headers["Content-Type"] == "application/json"
    assert response.revision == 5
    listing = json.loads(response.body)
    assert (listing["revision"], listing["count"], listing["more"]) == (5, 3, False)
    assert listing["kvs"][0] == {
        "key": "a/1",
        "version": 1,
        "create_revision": 2,
        "mod_revision": 2,
        "value": "a/1",
    }
    assert "next" not in listing


def test_pages_follow_each_other_by_from():
    client = filled()
    seen, query = [], "prefix&limit=2"
    while True:
        listing = json.loads(client("GET", "a/", query).body)
        seen += [item["key"] for item in listing["kvs"]]
        assert listing["more"] == ("next" in listing)
        if not listing["more"]:
            break
        query = f"prefix=true&limit=2&from={listing['next']}&revision={listing['revision']}"
    assert seen == ["a/1", "a/2", "a/3"]


def test_an_empty_prefix_is_everything_and_a_foreign_from_nothing_less():
    client = filled()
    assert json.loads(client("GET", "", "prefix").body)["count"] == 4
    assert json.loads(client("GET", "a/", "prefix&from=A").body)["count"] == 3
    assert json.loads(client("GET", "a/", "prefix&from=b/1").body)["kvs"] == []


def test_what_is_not_text_is_base64():
    client = Client()
    client("PUT", "%FF%00", body=b"\xfe")
    (item,) = json.loads(client("GET", "%FF", "prefix").body)["kvs"]
    assert item["key_base64"] == "/wA="
    assert item["value_base64"] == "/g=="
    assert "key" not in item
    assert client.service.calls[-1][1].range_end == b"\0"


def test_a_listing_names_the_lease_of_a_key_that_has_one():
    client = Client()
    client("PUT", "a", "lease=9223372036854775807", b"v")
    client("PUT", "b", body=b"v")
    leased, free = json.loads(client("GET", "", "prefix").body)["kvs"]
    assert leased["lease"] == "9223372036854775807"
    assert "lease" not in free


def test_keys_only_leaves_values_and_leases_out():
    listing = json.loads(filled()("GET", "a/", "prefix&keys_only").body)
    assert set(listing["kvs"][0]) == {"key", "version", "create_revision", "mod_revision"}


def test_a_long_listing_is_sliced_and_whole():
    client = Client()
    client.service.items = {
        b"%05d" % n: KeyValue(b"%05d" % n, 1, 1, 1, b'"\n') for n in range(2 * SLICE_RECORDS)
    }
    for limit, count in ((0, 2 * SLICE_RECORDS), (SLICE_RECORDS, SLICE_RECORDS)):
        listing = json.loads(client("GET", "", f"prefix&limit={limit}").body)
        assert len(listing["kvs"]) == count
        assert listing["kvs"][-1]["value"] == '"\n'
        assert listing["more"] == bool(limit)


# --- Parameters -----------------------------------------------------------------------------------


def test_reads_may_be_of_the_past_or_of_this_member():
    client = filled()
    client("GET", "a/1", "revision=3&serializable")
    request = client.service.calls[-1][1]
    assert (request.revision, request.serializable) == (3, True)
    client("GET", "a/1", "serializable=false")
    assert not client.service.calls[-1][1].serializable


def test_a_put_may_attach_a_lease():
    client = Client()
    client("PUT", "a", "lease=77", b"v")
    assert client.service.calls[-1][1] == PutRequest(b"a", b"v", 77, prev_kv=True)
    assert client("GET", "a").headers["X-Kvstore-Lease"] == "77"


@pytest.mark.parametrize(
    ("method", "query", "words"),
    [
        ("GET", "prefx", "unknown parameter 'prefx'; this call knows: prefix, from"),
        ("DELETE", "lease=1", "unknown parameter 'lease'; this call knows: no parameters"),
        ("GET", "limit=5", "goes with 'prefix' only"),
        ("GET", "prefix&limit=-1", "'limit' must be a decimal number"),
        ("GET", "prefix&limit=0x5", "'limit' must be a decimal number"),
        ("GET", "prefix&prefix", "given twice"),
        ("GET", "revision=9223372036854775808", "'revision' must be"),
        ("GET", "serializable=maybe", "must be true or false"),
        ("GET", "prefix&from=%", "hexadecimal"),
        ("PUT", "lease=abc", "'lease' must be"),
        ("PUT", "revision=5", "unknown parameter"),
        ("DELETE", "prefix", "unknown parameter"),
        ("GET", "&".join(["prefix"] * 20), "more than 16 parameters"),
    ],
)
def test_a_parameter_that_is_not_understood_is_refused(method, query, words):
    client = filled()
    asked = len(client.service.calls)
    response = client(method, "a", query)
    assert response.status == 400
    assert words in response.message
    assert len(client.service.calls) == asked


def test_only_the_value_itself_can_be_stored():
    encoded = Client()("PUT", "a", body=b"x", Content_Encoding="gzip")
    assert (encoded.status, encoded.headers["Accept-Encoding"]) == (415, "identity")
    assert Client()("PUT", "a", body=b"x", Content_Range="bytes 0-0/2").status == 400
    assert Client()("PUT", "a", body=b"x", Content_Encoding="identity").status == 201


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("headers", [{}, {"If_Match": "*"}])
def test_errors_of_the_service_keep_their_status(method, headers):
    client = Client()
    client.service.fails_with = ErrorKind.NO_LEADER.error()
    response = client(method, "a", **headers)
    assert (response.status, response.message) == (503, "etcdserver: no leader")
    assert json.loads(response.body)["code"] == Code.UNAVAILABLE
    assert client("GET", "a", "prefix").status == 503
