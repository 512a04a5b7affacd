"""TLS connections come in on either event loop: what is counted, told, bounded and let through."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from kvstore.client import Tls
from kvstore.server.network import tls as peer_tls
from kvstore.server.network.handshake import Handshake
from kvstore.tls import listener as listener_module
from kvstore.tls.contexts import Watched, server_context
from kvstore.tls.listener import Listener
from kvstore.tls.ports import Port
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


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


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


async def said(address: tuple[str, int], context: ssl.SSLContext | None, sent: bytes) -> bytes:
    """What comes back."""
    host, port = address
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        writer.write(sent)
        return await asyncio.wait_for(reader.read(100), SECONDS)
    finally:
        writer.close()


async def until(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        for _ in iter(look, True):
            await asyncio.sleep(0.01)


@pytest.fixture(params=LOOPS)
def on_loop(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    def run(work: Any) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(work)

    return run


@pytest.mark.parametrize("version", ["TLS1.2", "TLS1.3"])
def test_whoever_is_refused_is_told_why_and_others_get_in(
    on_loop: Work, authority: Authority, tmp_path: Path, version: str
) -> None:
    ledger = Ledger()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    cert, key = Authority(elsewhere).pair("stranger")
    stranger = Tls(ca_file=authority.file, cert_file=cert, key_file=key).context()
    nobody = Tls(ca_file=authority.file).context()
    client = authority.client("client").context()

    async def work() -> None:
        demands = {"trusted_ca_file": authority.file, "max_version": version}
        async with listening(authority, ledger, **demands) as address:
            with pytest.raises(ssl.SSLError, match=r"HANDSHAKE_FAILURE|CERTIFICATE_REQUIRED"):
                await said(address, nobody, b"x")
            with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
                await said(address, stranger, b"x")
            assert await said(address, client, b"hello") == b"hello"
            assert await said(address, None, b"GET / HTTP/1.1\r\n\r\n") == b""

    on_loop(work())
    assert ledger.failures == [
        ("peer did not return a certificate", True),
        ("the other side's certificate is refused: unable to get local issuer certificate", True),
        ("http request", True),
    ]


def test_a_certificate_for_another_host_is_closed_out(on_loop: Work, authority: Authority) -> None:
    ledger = Ledger()
    right = authority.client("right").context()
    cert, key = authority.pair("wrong", hosts=("other.example",))
    wrong = Tls(ca_file=authority.file, cert_file=cert, key_file=key).context()

    async def work() -> None:
        demands = {"trusted_ca_file": authority.file, "allowed_hosts": ("localhost",)}
        async with listening(authority, ledger, **demands) as address:
            assert await said(address, wrong, b"x") == b""
            assert await said(address, right, b"hello") == b"hello"

    on_loop(work())
    words = "its certificate (Common Name 'wrong') is for none of localhost"
    assert ledger.failures == [(words, True)]


def test_a_handshake_that_is_never_finished_ends_and_one_that_is_cut_off_too(
    on_loop: Work, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger()
    monkeypatch.setattr(listener_module, "HANDSHAKE_SECONDS_MAX", 0.3)

    async def work() -> None:
        async with listening(authority, ledger) as address:
            reader, writer = await asyncio.open_connection(*address)
            # Whatever it ends with, it ends.
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), SECONDS) == b""
            writer.close()
            _, writer = await asyncio.open_connection(*address)
            writer.close()
            await until(lambda: len(ledger.failures) == 2)

    on_loop(work())
    assert [is_tls for _, is_tls in ledger.failures] == [False, False]


def test_where_there_is_no_room_the_next_one_is_closed(on_loop: Work, authority: Authority) -> None:
    ledger = Ledger(room=1)

    async def work() -> None:
        async with listening(authority, ledger) as address:
            _, first = await asyncio.open_connection(*address)
            await until(lambda: ledger.open == 1)
            reader, second = await asyncio.open_connection(*address)
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), SECONDS) == b""
            first.close()
            second.close()
            await until(lambda: ledger.open == 0)
            context = Tls(ca_file=authority.file).context()
            assert await said(address, context, b"hello") == b"hello"

    on_loop(work())


def test_handshakes_under_way_end_with_the_listener(on_loop: Work, authority: Authority) -> None:
    ledger = Ledger()

    async def work() -> None:
        async with listening(authority, ledger) as address:
            writers = [(await asyncio.open_connection(*address))[1] for _ in range(5)]
            await until(lambda: ledger.open == 5)
        for writer in writers:
            writer.close()

    on_loop(work())


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
    # What is in no cycle goes within a few turns of the loop.
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
    seconds = 0.3 if kind == "slow" else SECONDS
    monkeypatch.setattr(listener_module, "HANDSHAKE_SECONDS_MAX", seconds)
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
                before = remembered()
                for _ in range(3):
                    await asyncio.to_thread(visit_once, address)
                await until(lambda: ledger.open == 0 and len(ledger.failures) == failures)
                await expect_no_more_than(before)

    on_loop(work())


@pytest.mark.parametrize("kind", ["not trusted", "refused", "no TLS", "slow", "gone"])
def test_a_member_that_cannot_be_dialled_leaves_nothing_in_memory(
    on_loop: Work, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(peer_tls, "HANDSHAKE_SECONDS_MAX", 0.3 if kind == "slow" else SECONDS)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    stranger = Authority(elsewhere)
    trusted = stranger.file if kind == "not trusted" else authority.file
    cert, key = stranger.pair("dialler")
    settings = TlsSettings(port="peer", cert_file=cert, key_file=key, trusted_ca_file=trusted)
    port = Port(settings, ("https://localhost:1",))

    class Plain(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            if kind == "gone":
                transport.abort()

        def data_received(self, _: bytes) -> None:
            if kind == "no TLS":
                self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                self.transport.close()

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
        server = await asyncio.get_running_loop().create_server(Plain, "127.0.0.1", 0)
        try:
            await dial_often(server.sockets[0].getsockname())
        finally:
            server.close()

    on_loop(work())


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["h2", "http/1.1"], "http/1.1"), (["h2"], "h2"), (["http/1.1"], "http/1.1"), (["x"], None)],
)
def test_http_1_is_chosen_where_the_client_leaves_the_choice(
    authority: Authority, offered: list[str], chosen: str | None
) -> None:
    context = Tls(ca_file=authority.file).context()
    context.set_alpn_protocols(offered)

    def look(address: tuple[str, int]) -> str | None:
        with (
            socket.create_connection(address, SECONDS) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as wrapped,
        ):
            return wrapped.selected_alpn_protocol()

    async def work() -> None:
        async with listening(authority, Ledger()) as address:
            assert await asyncio.to_thread(look, address) == chosen

    asyncio.run(work())


def test_an_address_in_use_is_named(authority: Authority) -> None:
    cert, key = authority.pair("server")
    settings = TlsSettings(port="client", cert_file=cert, key_file=key)
    contexts = Watched(lambda: server_context(settings), settings.files)

    async def work() -> None:
        async with listening(authority, Ledger()) as (host, port):
            second = Listener(contexts, settings, Echo, Ledger())
            with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}: Address alr"):
                await second.open(host, port, 10)

    asyncio.run(work())
