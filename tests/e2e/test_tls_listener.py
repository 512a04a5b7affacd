"""TLS connections come in on either event loop: what is counted, told, bounded and let through."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvstore.client import Tls
from kvstore.tls import listener as listener_module
from kvstore.tls.contexts import Watched, server_context
from kvstore.tls.listener import Listener
from kvstore.tls.settings import TlsSettings
from tests.e2e.tls_doors import LOOPS, SECONDS, Echo, Ledger, Work, listening, until
from tests.support.certificates import DAY, Authority

NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def said(address: tuple[str, int], context: ssl.SSLContext | None, sent: bytes) -> bytes:
    """What comes back."""
    host, port = address
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        writer.write(sent)
        return await asyncio.wait_for(reader.read(100), SECONDS)
    finally:
        writer.close()


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


def test_a_session_does_not_outlive_the_certificate_that_began_it(
    on_loop: Work, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger()
    context = authority.client("client", ends=NOW + DAY).context()
    resumed: list[bool | None] = []

    def call(address: tuple[str, int], session: ssl.SSLSession | None) -> tuple[bytes, Any]:
        with (
            socket.create_connection(address, SECONDS) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as wrapped,
        ):
            resumed.append(wrapped.session_reused)
            wrapped.sendall(b"hello")
            found = wrapped.recv(100), wrapped.session
            wrapped.unwrap()
            return found

    async def work() -> None:
        demands = {"trusted_ca_file": authority.file, "max_version": "TLS1.2"}
        async with listening(authority, ledger, **demands) as address:
            answer, session = await asyncio.to_thread(call, address, None)
            assert answer == b"hello"
            answer, session = await asyncio.to_thread(call, address, session)
            assert answer == b"hello"
            later = (NOW + 2 * DAY).timestamp
            monkeypatch.setattr(listener_module, "wall_clock", later)
            with contextlib.suppress(OSError):
                answer, _ = await asyncio.to_thread(call, address, session)
                assert answer == b""
            await until(lambda: bool(ledger.failures))

    on_loop(work())
    assert resumed == [False, True, True]
    assert ledger.failures[0][0].startswith("its certificate was valid until ")


def test_a_certificate_that_cannot_be_read_is_refused_without_a_stack(
    on_loop: Work, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger()
    # A name in DNS of two bytes that are no UTF-8.
    cert, key = authority.odd("odd", b"\x30\x04\x82\x02\xff\xfe")
    context = Tls(ca_file=authority.file, cert_file=cert, key_file=key).context()

    async def work() -> None:
        async with listening(authority, ledger, trusted_ca_file=authority.file) as address:
            with contextlib.suppress(OSError):
                assert await said(address, context, b"x") == b""
            await until(lambda: bool(ledger.failures))

    on_loop(work())
    (words, is_tls), *more = ledger.failures
    assert words.startswith("the other side's certificate cannot be read: 'utf-8' codec")
    assert is_tls
    assert not more
    assert not caplog.records


def test_whoever_is_refused_counts_until_it_is_gone(
    on_loop: Work, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger()
    monkeypatch.setattr(listener_module, "SHUTDOWN_SECONDS_MAX", 2.0)
    cert, key = authority.pair("wrong", hosts=("other.example",))
    context = Tls(ca_file=authority.file, cert_file=cert, key_file=key).context()

    def enter(address: tuple[str, int]) -> ssl.SSLSocket:
        plain = socket.create_connection(address, SECONDS)
        return context.wrap_socket(plain, server_hostname="localhost")

    async def work() -> None:
        demands = {"trusted_ca_file": authority.file, "allowed_hosts": ("localhost",)}
        async with listening(authority, ledger, **demands) as address:
            # None of them says farewell, and one is there when the listener closes.
            with await asyncio.to_thread(enter, address):
                await until(lambda: len(ledger.failures) == 1)
                await asyncio.sleep(0.1)
                assert ledger.open == 1
                await until(lambda: ledger.open == 0)
            last = await asyncio.to_thread(enter, address)
            await until(lambda: len(ledger.failures) == 2)
        last.close()

    on_loop(work())


def test_a_crowd_at_the_door_does_not_keep_others_from_their_turn(
    on_loop: Work, authority: Authority
) -> None:
    turn = 0
    knocked: Counter[int] = Counter()

    class Doorman(Ledger):
        def enter_gate(self) -> bool:
            knocked[turn] += 1
            return False

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async def work() -> None:
        async with listening(authority, Doorman()) as address:
            counting = asyncio.create_task(count_turns())
            crowd = [socket.create_connection(address, SECONDS) for _ in range(60)]
            await until(lambda: knocked.total() == len(crowd))
            counting.cancel()
            for each in crowd:
                each.close()

    on_loop(work())
    assert max(knocked.values()) <= listener_module.ACCEPTED_AT_ONCE_MAX


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
