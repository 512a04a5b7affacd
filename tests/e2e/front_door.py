"""A front door on a free port, before a service of one dict, and clients that see each byte."""

import asyncio
import contextlib
import functools
import inspect
import json

import pytest
import uvloop

from kvstore.api.front_door import EVERYBODY, FrontDoor
from kvstore.api.limits import ApiLimits
from kvstore.budget import CountedBudget
from tests.kvstore.api.fake_service import FakeService

KIB = 1024
WAIT_SECONDS = 5.0


class House:
    """A front door on a free port of the loopback, before a service of one dict."""

    def __init__(self, access=EVERYBODY, grpc=None, **limits):
        self.service = FakeService()
        self.door = FrontDoor(
            self.service,
            ApiLimits(**limits),
            lambda: b"# HELP up\nup 1\n",
            lambda: CountedBudget(1000),
            access,
            grpc=grpc,
        )
        self.port = 0
        self.connections = []

    async def open(self):
        await self.door.start(["http://localhost:0"])
        ((_, self.port),) = self.door.addresses

    @property
    def counters(self):
        return self.door.counters

    async def connect(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.connections.append(Connection(reader, writer))
        return self.connections[-1]

    async def ask(self, raw):
        """One request on a connection of its own."""
        connection = await self.connect()
        connection.send(raw)
        answer = await connection.answer()
        connection.close()
        return answer


class Connection:
    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    def send(self, raw):
        self.writer.write(raw)

    async def head(self):
        async with asyncio.timeout(WAIT_SECONDS):
            raw = await self.reader.readuntil(b"\r\n\r\n")
        return Head(raw)

    async def answer(self, method="GET"):
        head = await self.head()
        if method == "HEAD" or head.status in (204, 304):
            return Answer(head, b"")
        if head.headers.get("transfer-encoding") == "chunked":
            return Answer(head, b"".join([chunk async for chunk in self.chunks()]))
        async with asyncio.timeout(WAIT_SECONDS):
            if "content-length" in head.headers:
                return Answer(
                    head, await self.reader.readexactly(int(head.headers["content-length"]))
                )
            return Answer(head, await self.reader.read())

    async def chunk(self):
        async with asyncio.timeout(WAIT_SECONDS):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
        assert data.endswith(b"\r\n")
        return data[:-2]

    async def chunks(self):
        while chunk := await self.chunk():
            yield chunk

    async def is_closed(self):
        async with asyncio.timeout(WAIT_SECONDS):
            return await self.reader.read() == b""

    def close(self):
        self.writer.close()


class Head:
    def __init__(self, raw):
        status_line, *lines = raw.decode().removesuffix("\r\n\r\n").split("\r\n")
        self.status = int(status_line.split(" ")[1])
        self.headers: dict[str, str] = {}
        for line in lines:
            name, value = line.split(": ", 1)
            assert name.lower() not in self.headers, "each header once"
            self.headers[name.lower()] = value


class Answer:
    def __init__(self, head, body):
        self.status = head.status
        self.headers = head.headers
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        body = self.json
        assert set(body) == {"error", "message", "code"}
        return self.status, body["code"], body["message"]


def request(method, path, body=None, *headers):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def post(path, body, *headers):
    return request("POST", path, body, *headers)


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def on_both_loops(test):
    """Run a test on either loop: they differ in what they do with connections that are gone."""

    def run(loop_name, **arguments):
        with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
            runner.run(test(**arguments))

    # pytest asks for arguments by name: those of the test, and the loop's.
    functools.update_wrapper(run, test)
    vars(run).pop("__wrapped__")
    given = inspect.signature(test)
    loop_name = inspect.Parameter("loop_name", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    vars(run)["__signature__"] = given.replace(parameters=[loop_name, *given.parameters.values()])
    return pytest.mark.parametrize("loop_name", LOOPS)(run)


@contextlib.asynccontextmanager
async def house(access=EVERYBODY, grpc=None, **limits):
    """A house that is empty again when the test is over."""
    place = House(access, grpc, **limits)
    await place.open()
    try:
        yield place
    finally:
        for connection in place.connections:
            connection.close()
            with contextlib.suppress(ConnectionError):
                await connection.writer.wait_closed()
        await place.door.stop(0.2)
        await until(lambda: place.counters.connections_open == 0)
        assert place.counters.streams_open == 0


async def until(holds):
    """What happens on the other side of a socket can only be looked at, again and again."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not holds():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.002)
