"""Any sequence of frames, right or wrong: the connection stays within its rules and its limits."""

import hypothesis.strategies as st
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kvstore.api.grpc.flow import GRANT_BYTES, WINDOW_IN_BYTES
from kvstore.api.grpc.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES_MAX,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_BYTES_DEFAULT,
    WINDOW_UPDATE,
    ErrorCode,
    frame,
)
from kvstore.api.grpc.header_blocks import MEMO_BLOCKS_MAX
from kvstore.api.grpc.http2 import BLOCK_BYTES_MAX
from kvstore.api.grpc.lifecycle import LATE_STREAMS_MAX
from tests.kvstore.api.grpc.peers import Place, prefixed
from tests.kvstore.api.grpc.raw import REQUEST, Wire, reset, setting, update
from tests.support.virtual_loop import run_virtual

STREAMS_MAX = 5
IDS = st.integers(0, 9).map(lambda number: 2 * number + 1)
ANY_IDS = st.one_of(IDS, st.integers(0, 30), st.just(2**31 - 1))
PAYLOADS = st.one_of(
    st.binary(max_size=40), st.sampled_from([bytes(FRAME_BYTES_MAX), bytes(FRAME_BYTES_MAX + 1)])
)
CODES = {code.value for code in ErrorCode}


class AnyFrames(RuleBasedStateMachine):
    """Right frames and wrong ones; what the client may still send and was sent is kept apart."""

    def __init__(self):
        super().__init__()
        self.is_spent = False
        self.wire = Wire(greet=False, is_spent=lambda: self.is_spent, max_streams=STREAMS_MAX)
        self.window = WINDOW_BYTES_DEFAULT
        """What the server may send on the connection, as the client counts it."""
        self.initial = WINDOW_BYTES_DEFAULT
        self.windows: dict[int, int] = {}
        self.highest = -1

    @initialize(whole=st.booleans())
    def greet(self, whole):
        self.say(PREFACE + frame(SETTINGS, 0, 0)) if whole else self.say(PREFACE[:9])

    # --- What the client says ---

    def say(self, raw, cuts=()):
        """Never raises; nothing is said any more after the end."""
        was_over = self.wire.connection.is_over
        pieces, before = [], 0
        for cut in sorted(cuts):
            pieces.append(raw[before:cut])
            before = max(before, cut)
        pieces.append(raw[before:])
        for piece in pieces:
            self.wire.say(piece)
        self.read(was_over=was_over)

    def read(self, was_over=False):
        """What the server says, held against the windows that the client gave it."""
        for kind, _, stream_id, payload in self.wire.take():
            assert not was_over, "silence after the end"
            assert len(payload) <= FRAME_BYTES_MAX
            if kind == DATA:
                assert payload, "empty DATA says nothing"
                self.window -= len(payload)
                self.windows[stream_id] = self.windows.get(stream_id, self.initial) - len(payload)
                assert self.window >= 0
                assert self.windows[stream_id] >= 0
            elif kind == RST_STREAM:
                assert int.from_bytes(payload, "big") in CODES
            elif kind == GOAWAY:
                assert int.from_bytes(payload[4:8], "big") in CODES
            elif kind == HEADERS:
                assert stream_id in self.wire.heard
            else:
                assert kind in (SETTINGS, PING, WINDOW_UPDATE)

    @rule(kind=st.integers(0, 12), flags=st.integers(0, 255), stream_id=ANY_IDS, payload=PAYLOADS)
    def anything(self, kind, flags, stream_id, payload):
        # Windows that are changed by chance would not be known here.
        if kind not in (WINDOW_UPDATE, SETTINGS):
            self.say(frame(kind, flags, stream_id, payload))

    @rule(raw=st.binary(max_size=60))
    def noise(self, raw):
        connection = self.wire.connection
        if not connection.is_over and (connection._held or connection.is_behind):
            return
        if WINDOW_UPDATE in raw[3:] or SETTINGS in raw[3:]:
            return
        self.say(raw)

    @property
    def is_between(self):
        """Whether the next bytes are read as a frame, and at once."""
        connection = self.wire.connection
        return not (
            connection.is_over
            or connection.is_behind
            or connection._held
            or connection._only is not None
        )

    @rule(last=st.booleans(), cuts=st.lists(st.integers(0, 60), max_size=3))
    def request(self, last, cuts):
        self.highest += 2
        stream_id = self.highest
        flags = END_HEADERS | (END_STREAM if last else 0)
        self.say(self.wire.request(stream_id, flags=flags), cuts)

    @rule(stream_id=IDS, fields=st.sampled_from([[(b"x", b"y")], REQUEST, REQUEST[1:]]))
    def block(self, stream_id, fields):
        self.highest = max(self.highest, stream_id)
        self.say(self.wire.request(stream_id, fields, END_HEADERS | END_STREAM))

    @rule(stream_id=IDS, size=st.integers(0, FRAME_BYTES_MAX), last=st.booleans())
    def data(self, stream_id, size, last):
        self.say(frame(DATA, END_STREAM * last, stream_id, bytes(size)))

    @rule(stream_id=ANY_IDS)
    def take_back(self, stream_id):
        self.say(reset(stream_id))

    @rule(stream_id=IDS, gain=st.sampled_from([0, 1, 100, 70_000, 2**31 - 1]))
    def widen_stream(self, stream_id, gain):
        if not self.is_between:
            return
        if stream_id in self.wire.connection.streams:
            self.windows[stream_id] = self.windows.get(stream_id, self.initial) + gain
        self.say(update(stream_id, gain))

    @rule(gain=st.sampled_from([0, 1, 100, 70_000, 2**31 - 1]))
    def widen(self, gain):
        if self.is_between:
            self.window += gain
            self.say(update(0, gain))

    @rule(size=st.sampled_from([0, 1, 65_535, 200_000, 2**31 - 1, 2**31]))
    def initial_window(self, size):
        # The server hears of it first: what it sends from then on is held against it.
        if not self.is_between:
            return
        gain = size - self.initial
        for stream_id in self.wire.heard:
            self.windows[stream_id] = self.windows.get(stream_id, self.initial) + gain
        self.initial = size
        self.say(setting(INITIAL_WINDOW_SIZE, size))

    # --- What the server does ---

    @rule(pick=st.integers(0, 9), size=st.integers(1, 100_000), end=st.booleans())
    def answer(self, pick, size, end):
        streams = [s for s in self.wire.connection.streams.values() if not s.is_answered]
        if not streams:
            return
        stream = streams[pick % len(streams)]
        outbox = self.wire.connection.outbox
        outbox.frames.append(frame(HEADERS, END_HEADERS, stream.id, b"\x88"))
        outbox.send(stream, [b"x" * size], size, self.wire.now)
        if end:
            stream.is_answered = True
            outbox.finish(stream, frame(HEADERS, END_HEADERS | END_STREAM, stream.id, b"\x88"))
        self.read()

    @rule(pick=st.integers(0, 9))
    def give_up(self, pick):
        streams = list(self.wire.connection.streams.values())
        if streams:
            self.wire.connection.reset(streams[pick % len(streams)], ErrorCode.CANCEL)
            self.read()

    @rule(writable=st.booleans())
    def socket(self, writable):
        self.wire.connection.set_writable(self.wire.now, is_writable=writable)
        self.read()

    @rule(seconds=st.sampled_from([0.1, 5.0, 100.0, 4000.0]))
    def wait(self, seconds):
        was_over = self.wire.connection.is_over
        self.wire.now += seconds
        if not was_over:
            self.wire.connection.tick(self.wire.now)
            self.read()

    @rule(is_spent=st.booleans())
    def turn(self, is_spent):
        self.is_spent = is_spent
        was_over = self.wire.connection.is_over
        if self.wire.connection.is_behind:
            self.wire.connection.go_on(self.wire.now)
            self.read(was_over=was_over)

    @rule()
    def drain(self):
        self.wire.connection.drain(self.wire.now)
        self.read()

    # --- What always holds ---

    @invariant()
    def stays_within_its_limits(self):
        connection = self.wire.connection
        assert connection.is_behind or not connection._kept
        assert len(connection.streams) <= STREAMS_MAX
        assert len(connection._held) <= FRAME_BYTES_MAX + 9
        assert len(connection._block) <= BLOCK_BYTES_MAX
        assert len(connection._late) <= LATE_STREAMS_MAX
        assert len(connection._memo) <= MEMO_BLOCKS_MAX
        assert connection.grants.granted_bytes <= GRANT_BYTES
        assert 0 <= connection._window_in <= WINDOW_IN_BYTES
        streams = connection.streams.values()
        assert connection.outbox.pending_bytes == sum(s.pending_bytes for s in streams)
        for stream in streams:
            assert stream.pending_bytes == sum(map(len, stream.pending))
            assert 0 <= stream.window_in <= WINDOW_BYTES_DEFAULT
            assert not stream.is_over

    @invariant()
    def windows_agree(self):
        connection = self.wire.connection
        if not connection.is_over:
            assert connection.outbox.window == self.window
            for stream in connection.streams.values():
                assert stream.window_out == self.windows.get(stream.id, self.initial)

    @invariant()
    def every_stream_ends_once(self):
        connection = self.wire.connection
        for stream_id, heard in self.wire.heard.items():
            assert heard.gone <= 1
            assert heard.is_over is (stream_id not in connection.streams)

    @invariant()
    def nothing_waits_without_a_reason(self):
        connection = self.wire.connection
        outbox = connection.outbox
        if connection.is_over or not outbox.is_writable or outbox.window <= 0:
            return
        for stream in connection.streams.values():
            assert not stream.pending or stream.window_out <= 0


TestAnyFrames = AnyFrames.TestCase
TestAnyFrames.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(
    calls=st.lists(
        st.tuples(st.sampled_from([0, 1, 500, 65_530, 70_000]), st.integers(300, 40_000)),
        min_size=1,
        max_size=6,
    ),
    window=st.sampled_from([700, 20_000, 65_535, 500_000]),
    interleaved=st.booleans(),
)
@settings(max_examples=12, deadline=None)
def test_valid_sequences_are_answered(calls, window, interleaved):
    async def played():
        place = Place()
        client = place.connect()
        client.h2.update_settings({INITIAL_WINDOW_SIZE: window})
        client.flush()
        left = {}
        for number, (size, piece) in enumerate(calls):
            left[client.begin("/a.B/Echo")] = (prefixed(b"x" * size), piece)
            if interleaved and number < len(calls) - 1:
                continue
            while left:
                for stream_id, (raw, piece) in list(left.items()):
                    room = client.h2.local_flow_control_window(stream_id)
                    part = raw[: min(room, piece, FRAME_BYTES_MAX)]
                    assert part, "whoever may send nothing waits for ever"
                    client.h2.send_data(stream_id, part, end_stream=part == raw)
                    client.flush()
                    left[stream_id] = (raw[len(part) :], piece)
                    if not left[stream_id][0]:
                        del left[stream_id]
        await client.settled()
        answers = [answer.messages for answer in client.answers.values()]
        assert answers == [[b"x" * size] for size, _ in calls]
        assert all(answer.ended for answer in client.answers.values())
        assert client.protocol._connection.outbox.pending_bytes == 0
        assert place.counters.http2.stream_faults == 0

    run_virtual(lambda loop: played(), 100.0)
