"""A real node over TLS: who gets in, what is refused, and what changes without a restart."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.client import Client, Tls, UnreachableError
from kvstore.tls.names import common_name
from tests.e2e.cluster import Cluster, free_ports
from tests.e2e.commands import kvstore
from tests.e2e.processes import Member, wait_for
from tests.support.certificates import DAY, Authority

HANDSHAKES_OPEN = "kvstore_tls_handshakes_open"
HANDSHAKES_FAILED = "kvstore_tls_handshakes_failed_total"
CONNECTIONS_OPEN = "kvstore_http_connections_open"
SECONDS = 15.0
UNREACHABLE = 4


class Strict:
    """A node that demands certificates, and its authority. For all tests of this file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority(directory)
        self.server = self.authority.pair("server", "first")
        self.tls = self.authority.client("client")
        self.revocable = self.authority.client("revocable")
        flags = (
            f"--cert-file={self.server[0]}",
            f"--key-file={self.server[1]}",
            f"--trusted-ca-file={self.authority.file}",
            f"--client-crl-file={self.authority.revoke()}",
            "--client-cert-auth",
        )
        self.cluster = Cluster(directory / "data", size=1, flags=flags, tls=self.tls)

    @property
    def member(self) -> Member:
        """The node."""
        return self.cluster.members[0]

    def curl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run curl, trusting the authority."""
        return subprocess.run(
            ["curl", "-sS", "--cacert", self.authority.file, *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def gets_in(self, tls: Tls) -> bool:
        """Whether a client that brings this is served."""
        try:
            with Client([self.member.client_url], 5.0, tls=tls) as client:
                client.get(b"k")
        except UnreachableError:
            return False
        return True


@pytest.fixture(scope="module")
def strict_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strict]:
    strict = Strict(tmp_path_factory.mktemp("tls"))
    try:
        strict.cluster.start()
        yield strict
        # Whatever was tried: nobody's mistake is a mistake of the server's.
        log = strict.member.log(10_000)
        assert "Traceback" not in log, log
        found = strict.member.metrics()
        assert found["kvstore_http_internal_errors_total"] == 0
        # Whoever left is not counted any more, however it left.
        assert found[CONNECTIONS_OPEN] == 1
    finally:
        strict.cluster.close()


@pytest.fixture
def strict(strict_of_module: Strict) -> Strict:
    return strict_of_module


def test_curl_with_a_certificate_is_served_over_http_1(strict: Strict) -> None:
    url = f"{strict.member.client_url}/v1/kv/curl"
    own = ("--cert", strict.tls.cert_file, "--key", strict.tls.key_file)
    assert strict.curl(*own, "-X", "PUT", "-d", "hello", url).returncode == 0
    # It offers HTTP/2 as well, which is for gRPC here.
    answer = strict.curl(*own, "--write-out", " %{http_version}", url)
    assert answer.stdout == "hello 1.1", answer.stderr


def test_the_command_line_has_etcdctls_options(strict: Strict) -> None:
    tls = strict.tls
    url = strict.member.client_url.removeprefix("https://")
    own = (f"--cacert={tls.ca_file}", f"--cert={tls.cert_file}", f"--key={tls.key_file}")
    assert kvstore("put", "cli", "v", f"--endpoints={url}", *own).returncode == 0
    environ = {
        "KVSTORE_ENDPOINTS": url,
        "KVSTORE_CACERT": tls.ca_file,
        "KVSTORE_CERT": tls.cert_file,
        "KVSTORE_KEY": tls.key_file,
    }
    assert kvstore("get", "cli", "--print-value-only", environ=environ).stdout == b"v\n"

    blind = environ | {"KVSTORE_CACERT": ""}
    refused = kvstore("get", "cli", environ=blind)
    assert refused.returncode == UNREACHABLE
    assert b"its certificate is not trusted" in refused.stderr
    blindly = kvstore("get", "cli", "--insecure-skip-tls-verify", environ=blind)
    assert blindly.stdout == b"cli\nv\n"


def test_a_watch_over_tls_hears_of_a_change_and_is_ended_by_another_thread(strict: Strict) -> None:
    heard: list[bytes] = []
    with strict.cluster.client() as client:
        watch = client.watch(b"watched")

        def listen() -> None:
            events = (event for response in watch for event in response.events)
            heard.extend(event.kv.value for event in events if event.kv is not None)

        thread = threading.Thread(target=listen)
        thread.start()
        client.put(b"watched", b"1")
        wait_for("the event", lambda: heard == [b"1"], SECONDS)
        watch.close()
        thread.join(SECONDS)
        assert not thread.is_alive()


def test_a_write_without_a_certificate_does_not_happen(strict: Strict) -> None:
    url = strict.member.client_url
    nobody = Tls(ca_file=strict.authority.file)
    # It is told before the request is read: there is no doubt.
    with Client([url], 5.0, tls=nobody) as client, pytest.raises(UnreachableError) as caught:
        client.put(b"nobody", b"v")
    assert "--cert" in caught.value.message
    with strict.cluster.client() as client:
        assert client.get(b"nobody").kvs == []


def test_certificates_that_are_over_or_somebody_elses_are_refused(strict: Strict) -> None:
    authority = strict.authority
    assert strict.gets_in(strict.tls)
    yesterday = datetime.datetime.now(datetime.UTC) - DAY
    assert not strict.gets_in(authority.client("expired", ends=yesterday))
    elsewhere = strict.directory / "elsewhere"
    elsewhere.mkdir()
    cert, key = Authority(elsewhere).pair("stranger")
    assert not strict.gets_in(Tls(ca_file=authority.file, cert_file=cert, key_file=key))
    assert strict.member.metrics()[HANDSHAKES_FAILED] >= 2


def test_the_reason_of_a_refusal_reaches_the_client(strict: Strict) -> None:
    host, port = "127.0.0.1", strict.member.node.client_port
    context = Tls(ca_file=strict.authority.file).context()
    # Of TLS 1.2, whose client knows at the end of the handshake whether it is in.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection((host, port), 5) as plain,
        pytest.raises(ssl.SSLError, match="ALERT_HANDSHAKE_FAILURE"),
    ):
        context.wrap_socket(plain, server_hostname=host)


def test_a_certificate_that_is_revoked_meanwhile_is_refused_without_a_restart(
    strict: Strict,
) -> None:
    assert strict.gets_in(strict.revocable)
    strict.authority.revoke(strict.revocable.cert_file)
    assert not strict.gets_in(strict.revocable)
    assert strict.gets_in(strict.tls)
    strict.authority.revoke()
    assert strict.gets_in(strict.revocable)


def shown(strict: Strict) -> str:
    """The Common Name of the certificate that the server shows to who comes now."""
    host, port = "127.0.0.1", strict.member.node.client_port
    with (
        socket.create_connection((host, port), 5) as plain,
        strict.tls.context().wrap_socket(plain, server_hostname=host) as wrapped,
    ):
        certificate = wrapped.getpeercert()
    assert certificate is not None
    return str(common_name(certificate))


def test_a_new_certificate_counts_without_a_restart_and_a_broken_one_does_not(
    strict: Strict,
) -> None:
    before = shown(strict)
    with strict.cluster.client() as client:
        client.put(b"open", b"1")
        strict.authority.pair("server", "second")
        assert before == "first"
        assert shown(strict) == "second"
        key = Path(strict.server[1])
        right = key.read_bytes()
        key.write_bytes(b"half of it")
        assert shown(strict) == "second"
        key.write_bytes(right)
        assert shown(strict) == "second"
        strict.authority.pair("server", "first")
        assert shown(strict) == "first"
        # Who was connected stays so.
        client.put(b"open", b"2")
    assert "what was there before stays in force: --key-file" in strict.member.log(10_000)


def test_plain_http_is_closed_and_counted(strict: Strict) -> None:
    failed = strict.member.metrics()[HANDSHAKES_FAILED]
    connection = http.client.HTTPConnection("127.0.0.1", strict.member.node.client_port, timeout=5)
    connection.request("GET", "/health")
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        connection.getresponse()
    connection.close()
    wait_for("the count", lambda: strict.member.metrics()[HANDSHAKES_FAILED] == failed + 1, SECONDS)


def test_a_handshake_that_is_not_finished_counts_as_a_connection(strict: Strict) -> None:
    assert strict.member.metrics()[HANDSHAKES_OPEN] == 0
    with contextlib.ExitStack() as stack:
        address = ("127.0.0.1", strict.member.node.client_port)
        for _ in range(20):
            stack.enter_context(socket.create_connection(address, 5))
        found = strict.member.metrics()
        assert found[HANDSHAKES_OPEN] == 20
        assert found[CONNECTIONS_OPEN] >= 20
    wait_for("no handshake", lambda: strict.member.metrics()[HANDSHAKES_OPEN] == 0, SECONDS)


def test_a_certificate_of_ones_own_is_made_kept_and_served_beside_http(tmp_path: Path) -> None:
    (plain,) = free_ports(1)
    kept = tmp_path / "cluster1" / "node1" / "fixtures" / "client" / "cert.pem"
    # The client trusts what the server will have made.
    cluster = Cluster(
        tmp_path / "cluster1",
        size=1,
        flags=("--auto-tls", "--tls-min-version=TLS1.3"),
        tls=Tls(skip_verification=True),
    )
    try:
        url = cluster.urls[0]
        cluster.members[0]._arguments.append(f"--listen-client-urls={url},http://127.0.0.1:{plain}")
        cluster.start()
        with Client([url], 5.0, tls=Tls(ca_file=str(kept))) as client:
            client.put(b"k", b"v")
        with Client([f"http://127.0.0.1:{plain}"], 5.0) as client:
            assert client.get(b"k").kvs[0].value == b"v"
        assert (kept.with_name("key.pem").stat().st_mode & 0o777) == 0o600
    finally:
        cluster.close()
