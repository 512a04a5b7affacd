"""A gRPC server without sockets in virtual time, and h2 as its client: another implementation."""

import asyncio
import functools
from struct import Struct
from typing import Any

import h2.config
import h2.connection
import h2.events

from kvstore.api.grpc.calls import Calls, Unary
from kvstore.api.grpc.frames import GOAWAY, frame
from kvstore.api.grpc.long_answers import Long
from kvstore.api.grpc.server import GrpcServer
from kvstore.api.limits import ApiLimits, Counters
from kvstore.budget import CountedBudget
from kvstore.errors import Code, KvError
from tests.kvstore.api.grpc.raw import frames_of
from tests.support.virtual_loop import run_virtual

PREFIX = Struct(">BI")


def in_virtual_time(test):
    """Run a test on a loop whose time is virtual."""

    def run(**arguments):
        run_virtual(lambda loop: test(**arguments), 100_000.0)

    functools.update_wrapper(run, test)
    return run


def prefixed(message, flag=0):
    return PREFIX.pack(flag, len(message)) + message


def echo(message, caller, reply):
    # Not as bytes: those would not be encoded any more.
    reply(bytearray(message))


class Table:
    """A table of calls, and what they heard."""

    def __init__(self):
        self.callers = []
        self.replies = []
        self.left = []
        self.ended = []
        self.claims = []
        self.encoding = set()
        self.most_encoding = 0
        self.calls: Calls = {
            "/a.B/Echo": Unary(self._echo, lambda outcome: outcome),
            "/a.B/Fail": Unary(self._fail, lambda outcome: outcome),
            "/a.B/Later": Unary(self._later, lambda outcome: outcome),
            "/a.B/Patient": Unary(self._patient, lambda outcome: outcome, is_patient=True),
            "/a.B/Broken": Unary(echo, self._broken),
            "/a.B/Raises": Unary(self._raises, lambda outcome: outcome),
            "/a.B/Long": Unary(self._long, lambda outcome: outcome),
            "/a.B/Big": Unary(echo, lambda outcome: bytes(int(outcome))),
            "/a.B/Chat": self._chat,
            "/a.B/Collect": self._collect,
            "/a.B/Count": self._count,
            "/a.B/Pour": self._pour,
            "/a.B/Hang": self._hang,
            "/a.B/Refuse": self._refuse,
            "/a.B/Crash": self._crash,
        }

    def drain(self) -> None:
        """The server stops."""

    def _echo(self, message, caller, reply):
        self.callers.append(caller)
        reply(message)

    def _fail(self, message, caller, reply):
        reply(KvError(Code.NOT_FOUND, message.decode()))

    def _later(self, message, caller, reply):
        self.callers.append(caller)
        self.replies.append(reply)
        return lambda: self.left.append(message)

    _patient = _later

    def _broken(self, outcome):
        raise ValueError("cannot be encoded")

    def _raises(self, message, caller, reply):
        raise ValueError("cannot begin")

    def _long(self, message, caller, reply):
        reply(Long(self._in_slices(message), CountedBudget(1)))

    def _in_slices(self, message):
        """Encode an answer of so many bytes in ten slices, or fail."""
        self.encoding.add(message)
        for _ in range(10):
            self.most_encoding = max(self.most_encoding, len(self.encoding))
            yield
        self.encoding.remove(message)
        return bytes(int(message))

    async def _chat(self, exchange, caller):
        self.callers.append(caller)
        while (message := await exchange.receive()) is not None:
            await exchange.send([message])
        self.ended.append("chat")

    async def _collect(self, exchange, caller):
        parts = []
        while (message := await exchange.receive()) is not None:
            parts.append(message)
        await exchange.send([b"".join(parts)])

    async def _count(self, exchange, caller):
        number = int(await exchange.receive() or b"0")
        for value in range(number):
            await exchange.send([b"%d" % value, b"x" * 1000])

    async def _pour(self, exchange, caller):
        """Write without end: what there is room for, but messages of the length asked for."""
        length = int(await exchange.receive() or b"0")
        while True:
            size = await exchange.claim(1024 * 1024)
            self.claims.append(size)
            if size >= length:
                # Others get to ask for room while this is being made.
                await asyncio.sleep(0)
            exchange.write([bytes(length)] * max(size // length, 1))

    async def _hang(self, exchange, caller):
        try:
            await exchange.receive()
            await asyncio.get_running_loop().create_future()
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise

    async def _refuse(self, exchange, caller):
        first = await exchange.receive()
        if first:
            await exchange.send([first])
        raise KvError(Code.PERMISSION_DENIED, "not for you")

    async def _crash(self, exchange, caller):
        raise ValueError("a mistake")


class Answer:
    """What came back on one stream."""

    def __init__(self):
        self.headers = {}
        self.trailers = {}
        self.body = b""
        self.reset = None
        self.ended = False

    @property
    def messages(self):
        found = []
        body = self.body
        while body:
            flag, length = PREFIX.unpack_from(body)
            assert flag == 0, "answers are not compressed"
            if len(body) < 5 + length:
                break
            found.append(body[5 : 5 + length])
            body = body[5 + length :]
        return found

    @property
    def status(self):
        """gRPC's code and text, wherever they are."""
        fields = self.trailers or self.headers
        code = fields.get("grpc-status")
        return None if code is None else (Code(int(code)), fields.get("grpc-message", ""))


class Transport(asyncio.Transport):
    """Takes what is written; a ``stalled`` one keeps it, as a client does that reads nothing."""

    def __init__(self):
        super().__init__()
        self.protocol: Any = None
        self.written = bytearray()
        self.stalled = False
        self.unsent = bytearray()
        self.high = 65536
        self.paused_writing = False
        self.reading = True
        self.closed = False
        self.eof = False
        self.writes = 0

    def set_protocol(self, protocol):
        self.protocol = protocol

    def set_write_buffer_limits(self, high=None, low=None):
        self.high = high

    def get_write_buffer_size(self):
        return len(self.unsent)

    def is_closing(self):
        return self.closed

    def write(self, data):
        assert not self.closed
        assert not self.eof
        self.writes += 1
        if self.stalled:
            self.unsent += data
            if len(self.unsent) > self.high and not self.paused_writing:
                self.paused_writing = True
                self.protocol.pause_writing()
        else:
            self.written += data

    def drain(self, size=None):
        """The client reads, some or all."""
        size = len(self.unsent) if size is None else size
        self.written += self.unsent[:size]
        del self.unsent[:size]
        if not self.unsent:
            self.stalled = False
            if self.paused_writing:
                self.paused_writing = False
                self.protocol.resume_writing()

    def can_write_eof(self):
        return True

    def write_eof(self):
        assert not self.eof
        self.eof = True

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def close(self):
        self.abort()

    def abort(self):
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)


class Place:
    """A server, and clients of it."""

    def __init__(self, steps=1_000_000, **limits):
        self.table = Table()
        self.counters = Counters()
        self.lost = 0
        self.server = GrpcServer(
            self.table.calls,
            ApiLimits(**limits),
            self.counters,
            asyncio.get_running_loop(),
            self._lost,
            CountedBudget(steps),
        )

    def _lost(self):
        self.lost += 1

    def connect(self, **settings):
        return Client(self.server, **settings)


class Client:
    """One connection to the server, by h2."""

    def __init__(self, server, greet=True):
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.protocol = server()
        self.transport = Transport()
        self.transport.set_protocol(self.protocol)
        self.answers = {}
        self.goaway = None
        self.torn = False
        """Whether bytes come in cut anywhere."""
        self.takes = True
        """Whether it opens its windows as it reads."""
        self.protocol.connection_made(self.transport)
        self.h2.initiate_connection()
        if greet:
            self.flush()

    def flush(self):
        """Both say what they have to say."""
        while True:
            raw = bytes(self.transport.written)
            self.transport.written.clear()
            if raw:
                raw = self._without_goaways(raw)
                for event in self.h2.receive_data(raw):
                    self._on_event(event)
            # What is not read waits.
            is_read = self.transport.reading and not self.transport.closed
            mine = self.h2.data_to_send() if is_read else b""
            if mine:
                self.protocol.data_received(mine)
            elif not raw:
                return

    def _without_goaways(self, raw):
        """h2 takes nothing more after a GOAWAY, where gRPC's clients await what is due."""
        if self.transport.stalled or self.torn:
            return raw
        kept = []
        for kind, flags, stream_id, payload in frames_of(raw):
            if kind == GOAWAY:
                code = int.from_bytes(payload[4:8], "big")
                self.goaway = (code, payload[8:])
            else:
                kept.append(frame(kind, flags, stream_id, payload))
        return b"".join(kept)

    def _on_event(self, event):
        answer: Any = self.answers.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.ResponseReceived):
            answer.headers = dict(event.headers)
        elif isinstance(event, h2.events.TrailersReceived):
            answer.trailers = dict(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            answer.body += event.data
            if self.takes:
                length = event.flow_controlled_length
                if length and answer is not None:
                    self.h2.acknowledge_received_data(length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            answer.ended = True
        elif isinstance(event, h2.events.StreamReset):
            answer.reset = event.error_code

    def begin(self, path, *fields, method="POST", content_type="application/grpc"):
        """Send the head of a call."""
        stream_id = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "here")]
        if content_type:
            head.append(("content-type", content_type))
        self.h2.send_headers(stream_id, [*head, ("te", "trailers"), *fields])
        self.answers[stream_id] = Answer()
        self.flush()
        return stream_id

    def send(self, stream_id, raw, end=False):
        """Send bytes, as the windows allow; whether all of them went."""
        answer = self.answers[stream_id]
        sent = 0
        while sent < len(raw):
            if answer.ended or answer.reset is not None:
                return False
            room = min(self.h2.local_flow_control_window(stream_id), 16384)
            if not room:
                break
            self.h2.send_data(stream_id, raw[sent : sent + room])
            sent += room
            self.flush()
        whole = sent >= len(raw)
        if whole and end and not answer.ended:
            self.h2.end_stream(stream_id)
            self.flush()
        return whole

    def call(self, path, raw, *fields, **head):
        """A whole call."""
        stream_id = self.begin(path, *fields, **head)
        self.send(stream_id, raw, end=True)
        return self.answers[stream_id]

    async def settled(self, turns=20):
        """Let the server's tasks run."""
        for _ in range(turns):
            await asyncio.sleep(0)
            self.flush()

    def close(self):
        self.transport.abort()
