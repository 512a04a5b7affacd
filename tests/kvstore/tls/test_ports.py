"""A member tells at its start what others will find wrong with its certificates."""

from __future__ import annotations

import datetime
import logging
import ssl
import warnings
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kvstore.config import ServerConfig
from kvstore.errors import ConfigError
from kvstore.tls.ports import client_port, peer_port
from tests.support.certificates import DAY, Authority

NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def config_of(pair: tuple[str, str], ca: str, **more: str) -> ServerConfig:
    return ServerConfig(
        listen_peer_urls=("https://127.0.0.1:1",),
        peer_cert_file=pair[0],
        peer_key_file=pair[1],
        peer_trusted_ca_file=ca,
        **more,  # type: ignore[arg-type]
    )


def test_a_member_whose_certificates_fit_says_when_they_end(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    pair = authority.pair("server", "member", ends=NOW + 300 * DAY)
    with caplog.at_level(logging.INFO, "kvstore"):
        peer_port(config_of(pair, authority.file, peer_cert_allowed_cn="member"))
    assert [record.levelno for record in caplog.records] == [logging.INFO]
    assert "CN=member" in caplog.text
    assert f"is valid until {(NOW + 300 * DAY).date()}" in caplog.text


def test_what_other_members_will_refuse_is_told(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "else").mkdir()
    stranger = Authority(tmp_path / "else").pair("stranger")
    pair = authority.pair("server")
    elsewhere = authority.pair("elsewhere", hosts=("other.example",))
    # For the right address, and a name that is no UTF-8.
    odd = authority.odd("odd", b"\x30\x0a\x82\x02\xff\xfe\x87\x04\x7f\0\0\1")
    for config, words in (
        (config_of(stranger, authority.file), "unable to get local issuer certificate"),
        (config_of(elsewhere, authority.file), "IP address mismatch"),
        (config_of(pair, authority.file, peer_cert_allowed_cn="x"), "'server' is not allowed"),
        (config_of(odd, authority.file), "the other side's certificate cannot be read"),
    ):
        caplog.clear()
        peer_port(config)
        assert words in caplog.text
        assert "--peer-cert-file, --peer-trusted-ca-file and the URL with 127.0.0.1" in caplog.text


@pytest.mark.parametrize(
    ("ends", "level", "words"),
    [
        (NOW - DAY, logging.ERROR, "is refused by everybody"),
        (NOW + 10 * DAY, logging.WARNING, "must be replaced soon"),
    ],
)
def test_an_end_that_is_near_or_past_is_told(
    authority: Authority,
    caplog: pytest.LogCaptureFixture,
    ends: datetime.datetime,
    level: int,
    words: str,
) -> None:
    cert, key = authority.pair("server", ends=ends)
    client_port(ServerConfig(listen_client_urls=("https://a:1",), cert_file=cert, key_file=key))
    assert [(record.levelno, words in record.message) for record in caplog.records] == [
        (level, True)
    ]


def signed_by_itself(path: Path, name: str | None, ends: datetime.datetime) -> tuple[str, str]:
    """Certificate and key of whoever has this Common Name."""
    key = ec.generate_private_key(ec.SECP256R1())
    with warnings.catch_warnings():
        # OpenSSL takes what the library refuses, or warns of.
        warnings.simplefilter("ignore")
        common = x509.NameAttribute(NameOID.COMMON_NAME, name or "", _validate=False)
    subject = x509.Name([common] if name is not None else [])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - 400 * DAY)
        .not_valid_after(ends)
    )
    made = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    path.write_bytes(made)
    key_path = path.with_suffix(".key")
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(path), str(key_path)


def test_a_ca_and_a_list_that_are_over_are_told(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = authority.pair("server", ends=NOW + 300 * DAY)
    parts = [
        Path(signed_by_itself(tmp_path / "part.pem", name, ends)[0]).read_bytes()
        for name, ends in (("over", NOW - DAY), ("soon", NOW + DAY), ("fine", NOW + 300 * DAY))
    ]
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(b"".join(parts))
    client_port(
        ServerConfig(
            listen_client_urls=("https://a:1",),
            cert_file=cert,
            key_file=key,
            trusted_ca_file=str(bundle),
            client_crl_file=authority.revoke(ends=NOW - DAY / 2),
        )
    )
    told = [(record.levelno, record.message) for record in caplog.records]
    assert [level for level, _ in told] == [logging.ERROR, logging.WARNING, logging.ERROR]
    assert f"{bundle} (CN=over) lets nobody in whom it signed" in told[0][1]
    assert f"{bundle} (CN=soon) is a CA that must be replaced soon" in told[1][1]
    assert "list of revoked certificates by which nobody gets in" in told[2][1]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (None, "(a subject without a name)"),
        ("", "(CN=)"),
        ("a\nERROR b\x1b[31m", "(CN=a?ERROR b?[31m)"),
        ("n" * 65536, f"(CN={'n' * 253})"),
    ],
    ids=["none", "empty", "control characters", "64 KiB"],
)
def test_whatever_a_certificate_is_called_it_is_one_short_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str | None, shown: str
) -> None:
    cert, key = signed_by_itself(tmp_path / "own.pem", name, NOW + 300 * DAY)
    with caplog.at_level(logging.INFO, "kvstore.tls"):
        client_port(ServerConfig(listen_client_urls=("https://a:1",), cert_file=cert, key_file=key))
    assert len(caplog.records) == 1
    assert f"{cert} {shown} is valid until" in caplog.records[0].message


@pytest.mark.parametrize(
    "encoded", [b"\x14\x04M\xfcll", b"\x03\x04\0\x11\0\0"], ids=["T61", "bits"]
)
def test_a_name_that_cannot_be_read_does_not_stop_a_member(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, encoded: bytes
) -> None:
    cert, key = signed_by_itself(tmp_path / "own.pem", "name", NOW + 300 * DAY)
    path = Path(cert)
    der = ssl.PEM_cert_to_DER_cert(path.read_text()).replace(b"\x0c\x04name", encoded)
    path.write_text(ssl.DER_cert_to_PEM_cert(der))
    with caplog.at_level(logging.DEBUG, "kvstore.tls"):
        client_port(ServerConfig(listen_client_urls=("https://a:1",), cert_file=cert, key_file=key))
    assert f"{cert} cannot be described" in caplog.text


def test_a_host_that_no_certificate_is_for_does_not_stop_a_member(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    port = peer_port(config_of(authority.pair("server"), authority.file))
    caplog.clear()
    port.rehearse([".example"])
    assert "other members will not be linked with this one" in caplog.text


def test_a_ca_that_is_needed_to_dial_is_missed_at_the_start(tmp_path: Path) -> None:
    config = ServerConfig(
        initial_cluster={
            "default": ("http://localhost:2380",),
            "other": ("https://localhost:2381",),
        },
        peer_trusted_ca_file=str(tmp_path / "none"),
    )
    with pytest.raises(ConfigError, match=r"^--peer-trusted-ca-file .*none: cannot be read"):
        peer_port(config)
