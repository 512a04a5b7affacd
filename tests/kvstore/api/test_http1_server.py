"""What a connection says of a request that nobody answered: a client that left is no news."""

import asyncio
import logging

import pytest
from aiohttp import web

from kvstore.api.http1_server import HttpServer
from kvstore.api.limits import ApiLimits, Counters


class Left(asyncio.Transport):
    """A connection whose client has gone: it is closing, and everything written is for nobody."""

    def __init__(self) -> None:
        super().__init__({"peername": ("client", 1)})

    def is_closing(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def close(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


@pytest.mark.parametrize(
    ("failure", "logged"),
    [(ConnectionResetError("the client is gone"), 0), (ZeroDivisionError("ours"), 1)],
)
async def test_a_client_that_leaves_before_its_answer_is_not_reported_as_our_mistake(
    failure: Exception, logged: int, caplog: pytest.LogCaptureFixture
) -> None:
    asked = asyncio.Event()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        asked.set()
        raise failure

    server = HttpServer(handle, ApiLimits(), Counters(), lambda: None)
    connection = server()
    with caplog.at_level(logging.ERROR, "kvstore.api"):
        connection.connection_made(Left())
        connection.data_received(
            b"POST /v3/kv/put HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"
        )
        await asyncio.wait_for(asked.wait(), 5)
        for _ in range(5):
            await asyncio.sleep(0)
        connection.connection_lost(None)
        await server.shutdown()
    assert len(caplog.records) == logged
