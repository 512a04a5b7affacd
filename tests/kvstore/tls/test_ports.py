"""A member tells at its start what others will find wrong with its certificates."""

from __future__ import annotations

import datetime
import logging
from pathlib import Path

import pytest

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
    for config, words in (
        (config_of(stranger, authority.file), "unable to get local issuer certificate"),
        (config_of(elsewhere, authority.file), "IP address mismatch"),
        (config_of(pair, authority.file, peer_cert_allowed_cn="x"), "'server' is not allowed"),
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
