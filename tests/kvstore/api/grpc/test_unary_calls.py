"""Unary calls as gRPC's specification has them, from metadata to trailers."""

import asyncio
import gzip
import logging

import pytest

from kvstore.api.grpc.answers import encoded_message
from kvstore.errors import Code, ErrorKind, KvError
from kvstore.service.caller import ANYBODY, Caller
from tests.kvstore.api.grpc.peers import Place, in_virtual_time, prefixed

MESSAGE = prefixed(b"hello")


@in_virtual_time
async def test_an_answer_is_head_message_and_trailers_in_one_write():
    place = Place()
    client = place.connect()
    writes = client.transport.writes
    answer = client.call("/a.B/Echo", MESSAGE)
    assert answer.headers == {":status": "200", "content-type": "application/grpc"}
    assert (answer.messages, answer.trailers) == ([b"hello"], {"grpc-status": "0"})
    assert (answer.ended, answer.reset) == (True, None)
    assert client.transport.writes == writes + 1
    assert place.counters.http2.answers[Code.OK] == 1


@in_virtual_time
async def test_answers_of_one_turn_leave_in_one_write():
    place = Place()
    client = place.connect()
    answers = [client.call("/a.B/Later", prefixed(b"%d" % number)) for number in range(5)]
    writes = client.transport.writes
    for number, reply in enumerate(place.table.replies):
        reply(b"answer %d" % number)
    await client.settled()
    assert [answer.messages for answer in answers] == [[b"answer %d" % n] for n in range(5)]
    assert client.transport.writes == writes + 1


@pytest.mark.parametrize("cut", range(1, 10))
@in_virtual_time
async def test_a_message_may_come_in_pieces(cut):
    client = Place().connect()
    stream_id = client.begin("/a.B/Echo")
    client.send(stream_id, MESSAGE[:cut])
    client.send(stream_id, MESSAGE[cut:])
    assert not client.answers[stream_id].ended
    client.send(stream_id, b"", end=True)
    assert client.answers[stream_id].messages == [b"hello"]


@in_virtual_time
async def test_a_message_in_too_many_small_pieces_is_refused():
    client = Place().connect()
    for size, piece, is_taken in ((66, 1, True), (67, 1, False), (40_000, 250, True)):
        raw = prefixed(b"x" * (size - 5))
        stream_id = client.begin("/a.B/Echo")
        for at in range(0, len(raw), piece):
            client.send(stream_id, raw[at : at + piece])
        client.send(stream_id, b"", end=not client.answers[stream_id].ended)
        status, words = client.answers[stream_id].status
        assert status is (Code.OK if is_taken else Code.RESOURCE_EXHAUSTED)
        assert is_taken or "too many small pieces" in words
    # The next one counts from the start.
    stream_id = client.begin("/a.B/Chat")
    for byte in prefixed(b"x" * 50) * 5:
        client.send(stream_id, bytes([byte]))
    await client.settled()
    assert client.answers[stream_id].messages == [b"x" * 50] * 5


@in_virtual_time
async def test_an_empty_message_is_a_message():
    client = Place().connect()
    assert client.call("/a.B/Echo", prefixed(b"")).messages == [b""]


@pytest.mark.parametrize(
    ("raw", "code", "words"),
    [
        (b"", Code.UNIMPLEMENTED, "one request message, not none"),
        (MESSAGE + MESSAGE, Code.UNIMPLEMENTED, "one request message, not more than one"),
        (MESSAGE + b"\0", Code.UNIMPLEMENTED, "not more than one"),
        (MESSAGE[:-1], Code.INTERNAL, "ends in the middle of a message"),
        (MESSAGE[:3], Code.INTERNAL, "ends in the middle of a message"),
        (prefixed(b"x", 2), Code.INTERNAL, "unexpected payload format 2"),
        (prefixed(b"x", 1), Code.INTERNAL, "compressed flag set with identity or empty encoding"),
    ],
)
@in_virtual_time
async def test_what_is_not_one_message_is_an_error(raw, code, words):
    place = Place()
    client = place.connect()
    answer = client.call("/a.B/Echo", raw)
    assert answer.status[0] is code
    assert words in answer.status[1]
    assert (answer.headers[":status"], answer.body, answer.ended) == ("200", b"", True)
    assert place.counters.http2.answers[code] == 1
    assert client.call("/a.B/Echo", MESSAGE).messages == [b"hello"]


@in_virtual_time
async def test_a_message_as_long_as_the_limit_is_taken_and_one_longer_is_not():
    place = Place(max_request_bytes=100_000)
    limit = 100_000 + 512 * 1024
    client = place.connect()
    assert client.call("/a.B/Echo", prefixed(b"x" * limit)).messages == [b"x" * limit]
    stream_id = client.begin("/a.B/Echo")
    client.send(stream_id, prefixed(b"x" * (limit + 1))[:100])
    answer = client.answers[stream_id]
    words = f"grpc: received message larger than max ({limit + 1} vs. {limit})"
    assert answer.status == (Code.RESOURCE_EXHAUSTED, words)
    assert answer.ended
    assert client.protocol._connection.grants.granted_bytes == 0


@in_virtual_time
async def test_large_messages_at_the_same_time_all_come_in():
    client = Place(max_request_bytes=8 * 2**20).connect()
    streams = [client.begin("/a.B/Echo") for _ in range(5)]
    left = {stream_id: prefixed(bytes(6 * 2**20)) for stream_id in streams}
    while left:
        for stream_id in list(left):
            raw = left[stream_id]
            room = min(client.h2.local_flow_control_window(stream_id), 16384, len(raw))
            if room:
                client.h2.send_data(stream_id, raw[:room], end_stream=room == len(raw))
                client.flush()
                left[stream_id] = raw[room:]
                if not left[stream_id]:
                    del left[stream_id]
    assert [client.answers[n].messages == [bytes(6 * 2**20)] for n in streams] == [True] * 5


@in_virtual_time
async def test_errors_have_their_code_and_their_words():
    client = Place().connect()
    answer = client.call("/a.B/Fail", prefixed("größer als 100 %\n".encode()))
    assert answer.status == (Code.NOT_FOUND, "gr%C3%B6%C3%9Fer als 100 %25%0A")
    assert answer.headers["content-type"] == "application/grpc"
    assert answer.ended


def test_long_words_are_cut_between_characters():
    text = encoded_message("%" * 5000)
    assert text == b"%25" * (4096 // 3)
    assert encoded_message("a" * 5000) == b"a" * 4096
    assert encoded_message("\udcff") == b"?"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/a.B/Nothing", "unknown method Nothing for service a.B"),
        ("/x.Y/Echo", "unknown service x.Y"),
        ("nothing", 'malformed method name: "nothing"'),
    ],
)
@in_virtual_time
async def test_what_there_is_not_is_unimplemented(path, words):
    client = Place().connect()
    stream_id = client.begin(path)
    answer = client.answers[stream_id]
    assert (answer.status, answer.ended) == ((Code.UNIMPLEMENTED, words), True)
    assert answer.reset is None or answer.reset == 0


@in_virtual_time
async def test_only_grpc_by_post_is_served():
    client = Place().connect()
    answer = client.call("/a.B/Echo", MESSAGE, content_type="application/json")
    assert answer.headers[":status"] == "415"
    assert answer.status == (
        Code.INVALID_ARGUMENT,
        'invalid gRPC request content-type "application/json"',
    )
    for content_type in ("application/grpc-web", "", "application/grpcx"):
        answer = client.call("/a.B/Echo", MESSAGE, content_type=content_type)
        assert answer.headers[":status"] == "415"
    answer = client.call("/a.B/Echo", MESSAGE, method="GET")
    assert answer.headers[":status"] == "405"
    for content_type in ("application/grpc+proto", "application/grpc;x=y"):
        assert client.call("/a.B/Echo", MESSAGE, content_type=content_type).messages == [b"hello"]


@in_virtual_time
async def test_metadata_says_who_calls():
    place = Place()
    client = place.connect()
    for fields in (
        [],
        [("token", "secret")],
        [("authorization", "Bearer secret")],
        [("token", "one"), ("authorization", "two")],
        [("hasleader", "true")],
        [("hasleader", "false")],
        [("token", "")],
    ):
        assert client.call("/a.B/Echo", MESSAGE, *fields).messages == [b"hello"]
    assert place.table.callers == [
        ANYBODY,
        Caller("secret"),
        Caller("secret"),
        Caller("one"),
        Caller(has_leader=True),
        ANYBODY,
        ANYBODY,
    ]


@in_virtual_time
async def test_the_version_of_the_client_is_unicode():
    client = Place().connect()
    assert client.call("/a.B/Echo", MESSAGE, ("client-api-version", "3.6")).messages == [b"hello"]
    answer = client.call("/a.B/Echo", MESSAGE, (b"client-api-version", b"\xff"))
    kind = ErrorKind.INVALID_CLIENT_API_VERSION
    assert answer.status == (kind.code, kind.message)


@pytest.mark.parametrize("text", ["", "1", "S", "1x", "-1S", "123456789S", "1.5S", "1 S"])
@in_virtual_time
async def test_a_timeout_that_is_none_is_refused(text):
    client = Place().connect()
    answer = client.call("/a.B/Echo", MESSAGE, ("grpc-timeout", text))
    assert answer.headers[":status"] == "400"
    assert answer.status == (Code.INTERNAL, f'malformed grpc-timeout: "{text}"')


@in_virtual_time
async def test_time_that_a_request_takes_is_the_callers():
    place = Place()
    client = place.connect()
    loop = client.protocol._loop
    stream_id = client.begin("/a.B/Echo", ("grpc-timeout", "10S"))
    loop.now += 4.0
    client.send(stream_id, MESSAGE, end=True)
    assert place.table.callers[0].timeout_seconds == pytest.approx(6.0, abs=0.01)
    stream_id = client.begin("/a.B/Echo", ("grpc-timeout", "10S"))
    loop.now += 10.0
    client.send(stream_id, MESSAGE, end=True)
    deadline = ErrorKind.DEADLINE_EXCEEDED
    assert client.answers[stream_id].status == (deadline.code, deadline.message)
    answer = client.call("/a.B/Echo", MESSAGE, ("grpc-timeout", "0n"))
    assert answer.status == (deadline.code, deadline.message)
    assert len(place.table.callers) == 1


@in_virtual_time
async def test_gzip_is_taken_and_bombs_are_not():
    place = Place(max_request_bytes=100_000)
    client = place.connect()
    field = ("grpc-encoding", "gzip")
    message = prefixed(gzip.compress(b"hello"), 1)
    assert client.call("/a.B/Echo", message, field).messages == [b"hello"]
    assert client.call("/a.B/Echo", MESSAGE, field).messages == [b"hello"]
    limit = 100_000 + 512 * 1024
    assert client.call("/a.B/Echo", prefixed(gzip.compress(bytes(limit)), 1), field).messages == [
        bytes(limit)
    ]
    for raw, code, words in (
        (gzip.compress(bytes(limit + 1)), Code.RESOURCE_EXHAUSTED, f"larger than max {limit}"),
        (gzip.compress(b"x")[:-1], Code.INTERNAL, "not one gzip stream"),
        (gzip.compress(b"x") + gzip.compress(b"y"), Code.INTERNAL, "not one gzip stream"),
        (b"no gzip", Code.INTERNAL, "failed to decompress"),
    ):
        answer = client.call("/a.B/Echo", prefixed(raw, 1), field)
        assert answer.status[0] is code
        assert words in answer.status[1]


@in_virtual_time
async def test_other_encodings_are_told_which_one_is_known():
    client = Place().connect()
    answer = client.call("/a.B/Echo", MESSAGE, ("grpc-encoding", "snappy"))
    words = 'grpc: Decompressor is not installed for grpc-encoding "snappy"'
    assert answer.status == (Code.UNIMPLEMENTED, words)
    assert answer.headers["grpc-accept-encoding"] == "gzip"


@in_virtual_time
async def test_whoever_goes_away_is_told_of_to_the_call():
    place = Place()
    client = place.connect()
    stream_id = client.begin("/a.B/Later")
    client.send(stream_id, prefixed(b"one"), end=True)
    client.h2.reset_stream(stream_id)
    client.flush()
    assert place.table.left == [b"one"]
    place.table.replies[0](b"nobody reads this")
    client.call("/a.B/Later", prefixed(b"two"))
    client.close()
    await client.settled()
    assert (place.table.left, place.lost) == ([b"one", b"two"], 1)
    place.table.replies[1](KvError(Code.UNKNOWN, "nor this"))


@in_virtual_time
async def test_patient_calls_end_by_their_time_or_by_their_answer():
    place = Place()
    client = place.connect()
    late = client.call("/a.B/Patient", prefixed(b"one"), ("grpc-timeout", "5S"))
    answered = client.call("/a.B/Patient", prefixed(b"two"), ("grpc-timeout", "5S"))
    place.table.replies[1](b"done")
    await client.settled()
    assert answered.messages == [b"done"]
    await asyncio.sleep(4.9)
    client.flush()
    assert not late.ended
    await asyncio.sleep(0.2)
    client.flush()
    assert late.status[0] is Code.DEADLINE_EXCEEDED
    assert place.table.left == [b"one"]
    assert place.server.lane.patient == {}
    place.table.replies[0](b"too late")


@pytest.mark.parametrize("path", ["/a.B/Broken", "/a.B/Raises"])
@in_virtual_time
async def test_a_mistake_of_ours_is_an_internal_error(path, caplog):
    place = Place()
    client = place.connect()
    with caplog.at_level(logging.CRITICAL, "kvstore.api"):
        answer = client.call(path, MESSAGE)
    assert answer.status == (Code.INTERNAL, "kvstore: internal error")
    assert place.counters.surprises == 1
    assert client.call("/a.B/Echo", MESSAGE).messages == [b"hello"]


@in_virtual_time
async def test_a_large_answer_waits_for_the_client():
    place = Place()
    client = place.connect()
    client.takes = False
    answer = client.call("/a.B/Big", prefixed(b"200000"))
    assert (len(answer.body), answer.ended) == (65_535, False)
    stream_id = next(iter(client.answers))
    # Others are not held up by what waits on a stream of its own.
    client.h2.increment_flow_control_window(100_000)
    assert client.call("/a.B/Echo", MESSAGE).messages == [b"hello"]
    client.h2.increment_flow_control_window(100_000, stream_id)
    client.h2.increment_flow_control_window(100_000)
    client.flush()
    client.h2.increment_flow_control_window(100_000, stream_id)
    client.flush()
    assert answer.messages == [bytes(200_000)]
    assert (answer.status[0], answer.ended) == (Code.OK, True)
    assert client.protocol._connection.outbox.pending_bytes == 0


@in_virtual_time
async def test_a_request_that_does_not_come_in_is_given_up():
    place = Place(body_seconds=30.0)
    client = place.connect()
    loop = client.protocol._loop
    slow = client.begin("/a.B/Echo")
    client.send(slow, MESSAGE[:3])
    timed = client.begin("/a.B/Echo", ("grpc-timeout", "5S"))
    for _ in range(5):
        loop.now += 10.0
        client.h2.ping(bytes(8))
        await client.settled()
    assert client.answers[slow].status == (
        Code.DEADLINE_EXCEEDED,
        "kvstore: the request did not come in in time",
    )
    assert client.answers[timed].status == (Code.DEADLINE_EXCEEDED, "context deadline exceeded")
    assert client.protocol._connection.streams == {}


@in_virtual_time
async def test_long_answers_are_encoded_one_at_a_time_and_not_for_those_who_left(caplog):
    place = Place()
    client = place.connect()
    answers = [client.call("/a.B/Long", prefixed(b"%d" % number)) for number in range(5)]
    failed = client.call("/a.B/Long", prefixed(b"no number"))
    last = client.call("/a.B/Long", prefixed(b"9"))
    other = place.connect()
    beside = other.call("/a.B/Long", prefixed(b"7"))
    client.h2.reset_stream(3)
    client.flush()
    for _ in range(15):
        await asyncio.sleep(0)
    other.flush()
    # Others do not wait for it.
    assert beside.messages == [bytes(7)]
    await client.settled(100)
    taken = [answer.messages for answer in answers]
    assert taken == [[bytes(0)], [], [bytes(2)], [bytes(3)], [bytes(4)]]
    assert failed.status[0] is Code.INTERNAL
    assert place.counters.surprises == 1
    assert "could not be encoded" in caplog.text
    assert last.messages == [bytes(9)]
    assert place.table.most_encoding == 2, "one for each connection"
