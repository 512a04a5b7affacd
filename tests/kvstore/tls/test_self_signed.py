"""A certificate of one's own is made once, kept while it lasts, and readable by nobody else."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from kvstore.config import ServerConfig
from kvstore.errors import ConfigError
from kvstore.tls.ports import client_port
from kvstore.tls.self_signed import self_signed

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def made(tmp_path: Path, *hosts: str, years: int = 1, now: datetime.datetime = NOW) -> Path:
    cert, key = self_signed(str(tmp_path / "data"), "client", hosts, years, now)
    assert Path(key) == Path(cert).with_name("key.pem")
    return Path(cert)


def test_it_is_for_the_hosts_that_are_named(tmp_path: Path) -> None:
    cert = made(tmp_path, "a.example", "10.0.0.1", "::", "0.0.0.0", "a.example", years=3)
    found = x509.load_pem_x509_certificate(cert.read_bytes())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.example"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1"]
    assert abs(found.not_valid_after_utc - NOW - 3 * 365 * DAY) < DAY
    assert oct(cert.with_name("key.pem").stat().st_mode)[-3:] == "600"
    assert oct(cert.parent.stat().st_mode)[-3:] == "700"
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, cert.with_name("key.pem"))


def test_it_is_kept_until_little_of_its_time_is_left(tmp_path: Path) -> None:
    first = made(tmp_path, "a").read_bytes()
    assert made(tmp_path, "a", now=NOW + 330 * DAY).read_bytes() == first
    assert made(tmp_path, "a", now=NOW + 340 * DAY).read_bytes() != first


def test_a_key_that_others_may_read_is_closed_and_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = made(tmp_path, "a").with_name("key.pem")
    made(tmp_path, "a")
    assert not caplog.records
    key.chmod(0o644)
    made(tmp_path, "a")
    assert oct(key.stat().st_mode)[-3:] == "600"
    assert f"{key} was readable by others" in caplog.text


def test_what_is_half_there_is_made_anew(tmp_path: Path) -> None:
    cert = made(tmp_path, "a")
    cert.write_bytes(b"nonsense")
    assert made(tmp_path, "a").read_bytes() != b"nonsense"
    cert.with_name("key.pem").unlink()
    assert made(tmp_path, "a").with_name("key.pem").exists()


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no directory")
    with pytest.raises(ConfigError, match=r"^--auto-tls: cannot keep a certificate in .*client"):
        made(tmp_path, "a")


def test_a_host_that_is_not_as_in_dns_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^bücher\.example: no certificate can be made .*xn--"):
        made(tmp_path, "bücher.example")


def test_a_port_with_http_alone_makes_none(tmp_path: Path) -> None:
    client_port(ServerConfig(data_dir=str(tmp_path), auto_tls=True))
    assert list(tmp_path.iterdir()) == []
    url = ("https://127.0.0.1:1",)
    config = ServerConfig(data_dir=str(tmp_path), auto_tls=True, listen_client_urls=url)
    client_port(config)
    assert (tmp_path / "fixtures" / "client" / "cert.pem").exists()
