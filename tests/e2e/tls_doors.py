"""A port with TLS, on either event loop, without a member behind it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import uvloop

from kvstore.tls.contexts import Watched, server_context
from kvstore.tls.listener import Listener
from kvstore.tls.settings import TlsSettings
from tests.support.certificates import Authority

Work = Callable[..., Any]
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}
SECONDS = 10.0


class Ledger:
    def __init__(self, room: int = 100) -> None:
        self.room = room
        self.open = 0
        self.failures: list[tuple[str, bool]] = []

    def enter_gate(self) -> bool:
        if self.open >= self.room:
            return False
        self.open += 1
        return True

    def leave_gate(self) -> None:
        self.open -= 1

    def count_failure(self, address: str, words: str, *, is_tls: bool) -> None:
        assert address == "127.0.0.1"
        self.failures.append((words, is_tls))


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


@contextlib.asynccontextmanager
async def listening(
    authority: Authority, ledger: Ledger, **more: Any
) -> AsyncIterator[tuple[str, int]]:
    cert, key = authority.pair("server")
    settings = TlsSettings(port="client", cert_file=cert, key_file=key, **more)
    contexts = Watched(lambda: server_context(settings), settings.files)
    opened = Listener(contexts, settings, Echo, ledger)
    await opened.open("127.0.0.1", 0, 100)
    try:
        yield opened.sockets[0].getsockname()
    finally:
        opened.close()
        await opened.wait_closed()
    assert ledger.open == 0
    assert not len(opened)


async def until(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        for _ in iter(look, True):
            await asyncio.sleep(0.01)
