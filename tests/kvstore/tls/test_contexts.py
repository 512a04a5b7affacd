"""Files become contexts, or are refused by their flags; what is replaced counts from then on."""

from __future__ import annotations

import logging
import os
import ssl
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from kvstore.client import Client, Tls, TlsError
from kvstore.errors import ConfigError
from kvstore.tls import contexts
from kvstore.tls.contexts import FILE_BYTES_MAX, Watched, dial_context, reason, server_context
from kvstore.tls.settings import TLS12_SUITES, TlsSettings
from tests.support.certificates import HOSTS, Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def settings(authority: Authority) -> TlsSettings:
    cert, key = authority.pair("server")
    return TlsSettings(port="client", cert_file=cert, key_file=key)


def but(settings: TlsSettings, **changes: Any) -> TlsSettings:
    return msgspec.structs.replace(settings, **changes)


def encrypted(path: str) -> str:
    key = serialization.load_pem_private_key(Path(path).read_bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    target = Path(path).with_name("locked.pem")
    target.write_bytes(locked)
    return str(target)


def meet(server: ssl.SSLContext, client: ssl.SSLContext, host: str = HOSTS[0]) -> ssl.SSLObject:
    """A handshake in memory; the client's side."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=host)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [ours, theirs]
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
    assert not waiting, "the handshake does not end"
    return ours


def test_peers_meet_and_both_show_who_they_are(authority: Authority, settings: TlsSettings) -> None:
    peers = but(settings, port="peer", trusted_ca_file=authority.file)
    session = meet(server_context(peers), dial_context(peers))
    assert session.version() == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        meet(server_context(peers), dial_context(peers), "elsewhere.example")


def test_who_is_dialled_and_not_allowed_is_hung_up_on(
    authority: Authority, settings: TlsSettings
) -> None:
    peers = but(settings, port="peer", trusted_ca_file=authority.file)
    for changes in ({"allowed_names": ("other",)}, {"allowed_hosts": ("other.example",)}):
        with pytest.raises(ssl.SSLError) as caught:
            meet(server_context(peers), dial_context(but(peers, **changes)))
        assert "certificate" in reason(caught.value)
    allowed = but(peers, allowed_names=("server",), allowed_hosts=("localhost",))
    assert meet(server_context(peers), dial_context(allowed)).version()


def test_who_signs_for_himself_is_met_without_looking(settings: TlsSettings) -> None:
    peers = but(settings, port="peer", self_signed=True)
    assert meet(server_context(peers), dial_context(peers), "elsewhere.example").version()


def test_peers_may_dial_with_another_certificate_than_they_serve(
    authority: Authority, settings: TlsSettings
) -> None:
    cert, key = authority.pair("dial")
    peers = but(
        settings,
        port="peer",
        trusted_ca_file=authority.file,
        dial_cert_file=cert,
        dial_key_file=key,
    )
    assert len(dial_context(peers).get_ca_certs()) == 1
    with pytest.raises(
        ConfigError, match=r"^--peer-client-key-file .* is not the key of --peer-cl"
    ):
        dial_context(but(peers, dial_key_file=settings.key_file))


def test_versions_and_ciphers_are_those_that_were_asked_for(
    authority: Authority, settings: TlsSettings
) -> None:
    name = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
    client = Tls(ca_file=authority.file).context()
    chosen = but(settings, cipher_suites=(name,), max_version="TLS1.2")
    spoken = meet(server_context(chosen), client).cipher()
    assert spoken is not None
    assert spoken[0] == TLS12_SUITES[name]
    only_new = server_context(but(settings, cipher_suites=("TLS_AES_128_GCM_SHA256",)))
    assert only_new.minimum_version == ssl.TLSVersion.TLSv1_3
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        meet(server_context(but(settings, min_version="TLS1.3")), client)


def test_every_cipher_that_can_be_asked_for_is_known_and_the_usual_ones_are_good(
    settings: TlsSettings,
) -> None:
    every = {cipher["name"] for cipher in server_context(settings).get_ciphers()}
    assert not {name for name in every if "GCM" not in name and "CHACHA20" not in name}
    for name, spelled in TLS12_SUITES.items():
        context = server_context(but(settings, cipher_suites=(name,)))
        assert spelled in {cipher["name"] for cipher in context.get_ciphers()}


@pytest.mark.parametrize("port", ["client", "peer"])
def test_a_file_that_cannot_be_used_is_named_by_its_flag(
    authority: Authority, settings: TlsSettings, tmp_path: Path, port: str
) -> None:
    _, other_key = authority.pair("other")
    none, huge = str(tmp_path / "none.pem"), tmp_path / "huge.pem"
    with huge.open("wb") as file:
        file.truncate(FILE_BYTES_MAX + 1)
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    der = tmp_path / "crl.der"
    der.write_bytes(b"\x30\x82")
    prefix = "peer-" if port == "peer" else ""
    cases = [
        ({"cert_file": none}, "cert-file", "cannot be read: No such file"),
        ({"key_file": none}, "key-file", "cannot be read: No such file"),
        ({"cert_file": str(huge)}, "cert-file", "larger than"),
        ({"cert_file": settings.key_file}, "cert-file", "holds no certificate in PEM"),
        ({"key_file": settings.cert_file}, "key-file", "holds no private key in PEM"),
        ({"key_file": other_key}, "key-file", f"is not the key of --{prefix}cert-file"),
        ({"key_file": encrypted(settings.key_file)}, "key-file", "openssl pkey"),
        ({"cert_file": str(broken)}, "key-file", "cannot be used with"),
        ({"trusted_ca_file": settings.key_file}, "trusted-ca-file", "must be that of the CA"),
        ({"trusted_ca_file": none}, "trusted-ca-file", "cannot be read"),
        ({"trusted_ca_file": authority.file, "crl_file": str(der)}, "crl-file", "openssl crl"),
    ]
    for changes, flag, words in cases:
        with pytest.raises(ConfigError) as caught:
            server_context(but(settings, port=port, **changes))
        own = f"--{port}-{flag}" if flag == "crl-file" else f"--{prefix}{flag}"
        assert str(caught.value).startswith(own + " "), caught.value
        assert words in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="this user may read everything")
def test_a_key_that_is_not_ours_to_read_says_whose_fault_it_is(settings: TlsSettings) -> None:
    Path(settings.key_file).chmod(0)
    with pytest.raises(ConfigError, match="cannot be read by this process's user"):
        server_context(settings)


def test_without_a_list_of_the_authority_nobody_is_let_in(
    authority: Authority, settings: TlsSettings, tmp_path: Path
) -> None:
    (tmp_path / "else").mkdir()
    foreign = Authority(tmp_path / "else").revoke()
    context = server_context(but(settings, trusted_ca_file=authority.file, crl_file=foreign))
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get certificate CRL"):
        meet(context, authority.client("client").context())


# --- Changes --------------------------------------------------------------------------------------


def shown(context: ssl.SSLContext, authority: Authority) -> int:
    data = meet(context, Tls(ca_file=authority.file).context()).getpeercert(binary_form=True)
    assert data is not None
    return x509.load_der_x509_certificate(data).serial_number


def test_a_context_is_made_again_when_a_file_changes_and_only_then(
    authority: Authority, settings: TlsSettings
) -> None:
    watched = Watched(lambda: server_context(settings), settings.files)
    first = watched.current()
    assert watched.current() is first
    serial = shown(first, authority)
    authority.pair("server")
    assert shown(watched.current(), authority) != serial


def test_what_cannot_be_used_leaves_what_was_there_and_is_said_once(
    authority: Authority, settings: TlsSettings, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(lambda: server_context(settings), settings.files)
    first = watched.current()
    key = Path(settings.key_file)
    right = key.read_bytes()
    with caplog.at_level(logging.WARNING, "kvstore"):
        key.unlink()
        assert watched.current() is watched.current() is first
        assert len(caplog.records) == 1
        key.write_bytes(b"half")
        assert watched.current() is first
        assert len(caplog.records) == 2
    key.write_bytes(right)
    assert watched.current() is not first


def test_what_cannot_be_used_is_not_tried_at_every_connection(
    authority: Authority, settings: TlsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = 1000.0
    monkeypatch.setattr(contexts, "time", SimpleNamespace(monotonic=lambda: seconds))
    tries: list[float] = []

    def build() -> contexts.ServerContext:
        tries.append(seconds)
        return server_context(settings)

    watched = Watched(build, settings.files)
    Path(settings.key_file).write_bytes(b"half")
    for seconds in (1001.0, 1001.5, 1001.9, 1002.0, 1002.5):  # noqa: B007 (the clock's)
        watched.current()
    assert tries == [1000.0, 1001.0, 1002.0]
    authority.pair("server")
    first = watched.current()
    assert tries[-1] == 1002.5, "what has changed is not looked at"
    assert watched.current() is first


def test_a_pipe_is_refused_and_not_waited_for(settings: TlsSettings, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match=r"key-file .*pipe: is a pipe; it must be a file"):
        server_context(but(settings, key_file=str(pipe)))


# --- Clients --------------------------------------------------------------------------------------


def test_a_client_names_the_file_that_it_cannot_use(authority: Authority, tmp_path: Path) -> None:
    cert, key = authority.pair("a")
    _, other = authority.pair("b")
    for tls, words in (
        (Tls(ca_file=str(tmp_path / "x")), "the CA file .*x: No such file"),
        (Tls(ca_file=key), "holds no certificate"),
        (Tls(cert_file=cert), "needs its key"),
        (Tls(cert_file=cert, key_file=str(tmp_path / "x")), "the key .*x: No such file"),
        (Tls(cert_file=cert, key_file=other), "do not belong together"),
        (Tls(cert_file=key, key_file=key), "are no PEM"),
        (Tls(cert_file=cert, key_file=encrypted(key)), "is encrypted"),
    ):
        with pytest.raises(TlsError, match=words):
            Client(["https://a:1"], tls=tls)


def test_an_endpoint_without_a_scheme_is_https_once_there_is_a_word_of_tls(
    authority: Authority,
) -> None:
    tls = Tls(ca_file=authority.file)
    with Client(["a:1", "http://b:2"], tls=tls) as client:
        first, second = client.transport.endpoints
        assert (first.url, second.url) == ("https://a:1", "http://b:2")
        assert first.context is not None
        assert second.context is None
        with client.another() as other:
            assert other.transport.tls == tls
    with Client(["a:1"]) as client:
        assert client.transport.endpoints[0].url == "http://a:1"


def test_a_reason_has_few_words() -> None:
    assert reason(ConnectionResetError(104, "Connection reset")) == "Connection reset"
    assert reason(OSError()) == "OSError"


def test_the_commands_of_the_documentation_make_certificates_that_work(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "operations.md").read_text()
    section = page.partition("\n## TLS\n")[2].partition("\n## ")[0]
    script = section.partition("```bash\n")[2].partition("```")[0]
    assert script.count("openssl") >= 4
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    names = {name: str(tmp_path / f"{name}.pem") for name in ("ca", "node1", "alice", "crl")}
    keys = {name: str(tmp_path / f"{name}-key.pem") for name in ("node1", "alice")}
    settings = TlsSettings(
        port="client",
        cert_file=names["node1"],
        key_file=keys["node1"],
        trusted_ca_file=names["ca"],
        crl_file=names["crl"],
    )
    client = Tls(ca_file=names["ca"], cert_file=names["node1"], key_file=keys["node1"])
    assert meet(server_context(settings), client.context(), "127.0.0.1").version()
    revoked = Tls(ca_file=names["ca"], cert_file=names["alice"], key_file=keys["alice"])
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate revoked"):
        meet(server_context(settings), revoked.context(), "127.0.0.1")
