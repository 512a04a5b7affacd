"""TLS in a configuration: what it may say, from which source, and what does not go together."""

from __future__ import annotations

import pytest

from kvstore.config_absent import ABSENT
from kvstore.config_sources import load
from kvstore.config_tls import SECTIONS
from kvstore.errors import ConfigError

CLIENT = "https://127.0.0.1:2379"
PEER = "https://127.0.0.1:2380"
PAIR = {"cert-file": "c.pem", "key-file": "k.pem"}
PEER_PAIR = {"peer-cert-file": "pc.pem", "peer-key-file": "pk.pem"}


def read_nothing(path: str) -> bytes:
    raise AssertionError(f"{path} was read")


def load_yaml(text: str):
    return load({"config-file": "c.yaml"}, {}, lambda _: text.encode())


def test_no_flag_is_no_tls():
    config = load({}, {}, read_nothing).config
    assert config.client_tls.files == config.peer_tls.files == ()
    assert not config.client_tls.self_signed
    assert (config.tls_min_version, config.tls_max_version) == ("TLS1.2", "")


def test_flags_as_etcd_writes_them():
    flags = {
        "listen-client-urls": CLIENT,
        "listen-peer-urls": PEER,
        "initial-advertise-peer-urls": PEER,
        **PAIR,
        **PEER_PAIR,
        "trusted-ca-file": "ca.pem",
        "client-cert-auth": "true",
        "client-crl-file": "crl.pem",
        "client-cert-allowed-hostname": "a, b",
        "peer-trusted-ca-file": "pca.pem",
        "peer-client-cert-auth": "true",
        "peer-cert-allowed-cn": "member",
        "peer-client-cert-file": "dc.pem",
        "peer-client-key-file": "dk.pem",
        "cipher-suites": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "tls-max-version": "tls1.3",
    }
    loaded = load(flags, {}, read_nothing)
    assert loaded.warnings == []
    client, peer = loaded.config.client_tls, loaded.config.peer_tls
    assert client.files == ("c.pem", "k.pem", "ca.pem", "crl.pem")
    assert client.allowed_hosts == ("a", "b")
    assert client.max_version == "TLS1.3"
    assert peer.files == ("pc.pem", "pk.pem", "dc.pem", "dk.pem", "pca.pem")
    assert peer.allowed_names == ("member",)
    assert client.cipher_suites == peer.cipher_suites == (flags["cipher-suites"],)
    assert loaded.config.client_cert_auth


def test_the_sections_of_etcds_file_and_its_variables_say_the_same():
    loaded = load_yaml(
        f"listen-client-urls: {CLIENT}\n"
        f"listen-peer-urls: {PEER}\n"
        "client-transport-security:\n"
        "  cert-file: c.pem\n"
        "  key-file: k.pem\n"
        "  trusted-ca-file: ca.pem\n"
        "  client-cert-auth: true\n"
        "  auto-tls: false\n"
        "peer-transport-security: {cert-file: pc.pem, key-file: pk.pem, trusted-ca-file: pca.pem,\n"
        "  allowed-cn: [a, b], client-cert-auth: true, auto-tls:}\n"
        "cipher-suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_AES_128_GCM_SHA256]\n"
    )
    assert loaded.warnings == []
    assert loaded.config.client_tls.files == ("c.pem", "k.pem", "ca.pem")
    assert loaded.config.peer_tls.allowed_names == ("a", "b")
    assert len(loaded.config.client_tls.cipher_suites) == 2
    environ = {
        "ETCD_LISTEN_CLIENT_URLS": CLIENT,
        "ETCD_CERT_FILE": "c.pem",
        "KVSTORE_KEY_FILE": "k.pem",
        "ETCD_TRUSTED_CA_FILE": "ca.pem",
        "ETCD_CLIENT_CERT_AUTH": "true",
    }
    config = load({}, environ, read_nothing).config
    assert config.client_tls.files == ("c.pem", "k.pem", "ca.pem")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("client-transport-security: true", "'setting: value' lines"),
        ("client-transport-security: {ca: x}", "unknown settings ca; there are cert-file"),
        ("peer-transport-security: {client-cert-auth: maybe}", "client-cert-auth in c.yaml: must"),
    ],
)
def test_a_section_that_cannot_be_read_is_refused_by_its_name(text, words):
    with pytest.raises(ConfigError, match=rf"^{text.split(':')[0]}") as caught:
        load_yaml(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"listen-client-urls": CLIENT}, "give --cert-file and --key-file, or --auto-tls"),
        ({"listen-metrics-urls": CLIENT}, "give --cert-file and --key-file, or --auto-tls"),
        ({"listen-peer-urls": PEER}, "give --peer-cert-file and --peer-key-file, or --peer-auto"),
        ({"cert-file": "c"}, "--cert-file: needs --key-file"),
        ({"peer-key-file": "c"}, "--peer-key-file: needs --peer-cert-file"),
        ({"peer-client-cert-file": "c"}, "one needs the other"),
        ({"listen-client-urls": CLIENT, **PAIR, "client-cert-auth": "true"}, "--trusted-ca-file"),
        ({"client-cert-auth": "true", "trusted-ca-file": "a"}, "none of the --listen-client-urls"),
        ({"peer-client-cert-auth": "true", "peer-trusted-ca-file": "a"}, "--listen-peer-urls"),
        ({"client-crl-file": "a"}, "--client-crl-file: means nothing without --trusted-ca-file"),
        ({"peer-cert-allowed-cn": "a"}, "means nothing without --peer-trusted-ca-file"),
        ({"client-cert-allowed-hostname": "a"}, "--client-cert-allowed-hostname: means nothing"),
        ({"cipher-suites": "TLS_RSA_WITH_RC4_128_SHA"}, "unknown or too weak"),
        ({"tls-min-version": "TLS1.1"}, "--tls-min-version: must be TLS1.2 or TLS1.3"),
        ({"tls-min-version": "TLS1.3", "tls-max-version": "TLS1.2"}, "older than"),
        (
            {
                "tls-min-version": "TLS1.3",
                "cipher-suites": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            },
            "are for TLS 1.2",
        ),
        (
            {"tls-max-version": "TLS1.2", "cipher-suites": "TLS_AES_128_GCM_SHA256"},
            "none is for TLS 1.2",
        ),
        ({"self-signed-cert-validity": "0"}, "--self-signed-cert-validity: must be at least 1"),
    ],
)
def test_what_does_not_go_together_is_refused_with_what_to_do(given, words):
    with pytest.raises(ConfigError) as caught:
        load(given, {}, read_nothing)
    assert words in str(caught.value)


def test_what_will_not_be_used_is_warned_of():
    urls = f"http://127.0.0.1:1,{CLIENT}"
    loaded = load({"listen-client-urls": urls, **PAIR, "auto-tls": "true"}, {}, read_nothing)
    assert [words.split(" is ")[0] for words in loaded.warnings] == [
        "http://127.0.0.1:1",
        "--auto-tls",
    ]
    assert not loaded.config.client_tls.self_signed


def test_a_wildcard_address_is_advertised_with_its_scheme():
    urls = "https://0.0.0.0:2379,http://0.0.0.0:2377"
    config = load({"listen-client-urls": urls, "auto-tls": "true"}, {}, read_nothing).config
    assert config.advertise_client_urls == ("https://localhost:2379", "http://localhost:2377")
    assert config.client_tls.self_signed


def test_every_entry_of_a_section_is_a_setting_or_known_to_be_absent():
    fields = load({}, {}, read_nothing).config.__struct_fields__
    for flags in SECTIONS.values():
        for flag in flags.values():
            assert flag in ABSENT or flag.replace("-", "_") in fields
