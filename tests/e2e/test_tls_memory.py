"""A TLS connection that is over leaves nothing in memory, however it ended, on either loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvstore.client import Tls
from kvstore.server.network import tls as peer_tls
from kvstore.server.network.handshake import Handshake
from kvstore.tls import listener as listener_module
from kvstore.tls.ports import Port
from kvstore.tls.settings import TlsSettings
from tests.e2e.tls_doors import LOOPS, SECONDS, Ledger, Work, listening, until
from tests.support.certificates import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture(params=LOOPS)
def on_loop(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    def run(work: Any) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(work)

    return run


@contextlib.contextmanager
def nobody_collects() -> Iterator[None]:
    """As in a member: what is in a cycle and no longer young stays for good."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def remembered() -> Counter[str]:
    """How many objects there are of the kinds that a connection consists of, on either loop."""
    kinds = ("SSLProtocol", "_SSLProtocolTransport", "_Handshake", "_Dialling", "Visitor")
    found = Counter(type(each).__name__ for each in gc.get_objects())
    return Counter({kind: found[kind] for kind in (*kinds, "Handshake", "traceback")})


async def expect_no_more_than(before: Counter[str]) -> None:
    # What is in no cycle goes within a few turns of the loop, or with the timer of its handshake:
    # one that was cancelled keeps its context until then.
    with contextlib.suppress(TimeoutError):
        await until(lambda: remembered() <= before)
    assert remembered() - before == Counter()


def visit(address: tuple[str, int], context: ssl.SSLContext | None, sent: bytes) -> None:
    """Connect, say something, and go when the other side does."""
    with socket.create_connection(address, SECONDS) as plain, contextlib.suppress(OSError):
        if context is None:
            plain.sendall(sent)
            while plain.recv(1000):
                pass
        else:
            with context.wrap_socket(plain, server_hostname="localhost") as wrapped:
                wrapped.sendall(sent)
                wrapped.recv(1000)
                wrapped.unwrap()


def first_words() -> bytes:
    """How a client begins."""
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(
        ssl.MemoryBIO(), outgoing, server_hostname="localhost"
    )
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize(
    "kind", ["http", "nonsense", "cut", "slow", "nobody", "stranger", "other host", "friend"]
)
def test_a_connection_that_is_over_leaves_nothing_in_memory(
    on_loop: Work, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "slow":
        monkeypatch.setattr(listener_module, "HANDSHAKE_SECONDS_MAX", 0.3)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    pairs = {
        "stranger": lambda: Authority(elsewhere).pair("stranger"),
        "other host": lambda: authority.pair("other", hosts=("other.example",)),
        "friend": lambda: authority.pair("friend"),
        "nobody": lambda: ("", ""),
    }
    context = None
    if kind in pairs:
        cert, key = pairs[kind]()
        context = Tls(ca_file=authority.file, cert_file=cert, key_file=key).context()
    said_first = {"http": b"GET / HTTP/1.1\r\n\r\n", "nonsense": b"\0\1" * 99}
    sent = said_first.get(kind, first_words()[:50] if context is None else b"hello")
    ledger = Ledger()
    failures = 0 if kind == "friend" else 4

    def visit_once(address: tuple[str, int]) -> None:
        if kind == "cut":
            with socket.create_connection(address, SECONDS) as plain:
                plain.sendall(sent)
        else:
            visit(address, context, sent)

    async def work() -> None:
        demands = {"trusted_ca_file": authority.file, "allowed_hosts": ("localhost",)}
        async with listening(authority, ledger, **demands) as address:
            # Whoever comes first brings what stays for all.
            await asyncio.to_thread(visit_once, address)
            await until(lambda: ledger.open == 0)
            with nobody_collects():
                # Whoever accepts holds the last one until the next comes, and one who leaves at
                # once may come to be accepted only now.
                before = remembered() | Counter(Visitor=1)
                for _ in range(3):
                    await asyncio.to_thread(visit_once, address)
                await until(lambda: ledger.open == 0 and len(ledger.failures) == failures)
                await expect_no_more_than(before)

    on_loop(work())


class NoMember(asyncio.Protocol):
    """Whoever listens where a member was."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self.kind == "gone":
            transport.abort()

    def data_received(self, _: bytes) -> None:
        if self.kind == "no TLS":
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            self.transport.close()


@pytest.mark.parametrize("kind", ["not trusted", "refused", "no TLS", "slow", "gone"])
def test_a_member_that_cannot_be_dialled_leaves_nothing_in_memory(
    on_loop: Work, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "slow":
        monkeypatch.setattr(peer_tls, "HANDSHAKE_SECONDS_MAX", 0.3)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    stranger = Authority(elsewhere)
    trusted = stranger.file if kind == "not trusted" else authority.file
    cert, key = stranger.pair("dialler")
    settings = TlsSettings(port="peer", cert_file=cert, key_file=key, trusted_ca_file=trusted)
    port = Port(settings, ("https://localhost:1",))

    async def dial(address: tuple[str, int]) -> None:
        lost = asyncio.get_running_loop().create_future()
        handshake = Handshake(
            client=True, on_head=lambda _: None, on_lost=lambda _, why: lost.set_result(why)
        )
        try:
            await peer_tls.connect(handshake, *address, port)
            # With TLS 1.3 the refusal of what was shown comes behind the handshake.
            assert "ALERT_UNKNOWN_CA" in await asyncio.wait_for(lost, SECONDS)
            assert kind == "refused"
        except OSError:
            assert kind != "refused"
        finally:
            handshake.drop()

    async def dial_often(address: tuple[str, int]) -> None:
        await dial(address)
        with nobody_collects():
            before = remembered()
            for _ in range(3):
                await dial(address)
            await expect_no_more_than(before)

    async def work() -> None:
        if kind in ("not trusted", "refused"):
            demands = {"trusted_ca_file": authority.file}
            async with listening(authority, Ledger(), **demands) as address:
                await dial_often(address)
            return
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: NoMember(kind), "127.0.0.1", 0)
        try:
            await dial_often(server.sockets[0].getsockname())
        finally:
            server.close()

    on_loop(work())
