"""What a configuration is made of, and what is refused, by which name."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvstore.config import GIB, ServerConfig, default_text, field_of, settings
from kvstore.config_absent import ABSENT
from kvstore.config_sources import CONFIG_FILE_BYTES_MAX, load, variables
from kvstore.config_values import host_and_port
from kvstore.errors import ConfigError


def read_nothing(path: str) -> bytes:
    raise AssertionError(f"{path} was read")


def load_flags(**flags: str) -> ServerConfig:
    named = {name.replace("_", "-"): text for name, text in flags.items()}
    return load(named, {}, read_nothing).config


def test_no_flag_is_one_node_on_localhost():
    config = load({}, {}, read_nothing).config
    assert config.data_dir == "default.kvstore"
    assert config.listen_client_urls == ("http://localhost:2379",)
    assert config.advertise_client_urls == ("http://localhost:2379",)
    assert config.initial_cluster == {"default": ("http://localhost:2380",)}
    assert config == ServerConfig()


def test_flag_beats_kvstore_variable_beats_etcd_variable_beats_file_beats_default():
    file = {"config-file": "c.yaml"}
    content = b"heartbeat-interval: 10\nelection-timeout: 5000\n"
    environ = {"ETCD_HEARTBEAT_INTERVAL": "20"}
    assert load(file, {}, lambda _: content).config.heartbeat_interval_ms == 10
    assert load(file, environ, lambda _: content).config.heartbeat_interval_ms == 20
    environ["KVSTORE_HEARTBEAT_INTERVAL"] = "30"
    assert load(file, environ, lambda _: content).config.heartbeat_interval_ms == 30
    flags = {**file, "heartbeat-interval": "40"}
    config = load(flags, environ, lambda _: content).config
    assert config.heartbeat_interval_ms == 40
    assert config.election_timeout_ms == 5000
    assert config.max_txn_ops == 128


def test_every_setting_has_a_flag_two_variables_a_help_text_and_a_default():
    assert {field_of(flag) for flag in settings()} == set(ServerConfig.__struct_fields__)
    for flag, setting in settings().items():
        assert variables(flag)[0] == f"KVSTORE_{flag.upper().replace('-', '_')}"
        assert setting.help.endswith((".", ":"))
        assert default_text(flag)


def test_every_shown_default_is_what_no_flag_gives():
    plain = ServerConfig()
    for flag, setting in settings().items():
        if not setting.shown_default:
            config = load({flag: default_text(flag)}, {}, read_nothing).config
            assert getattr(config, field_of(flag)) == getattr(plain, field_of(flag))


def test_three_members_as_etcd_writes_them():
    config = load_flags(
        name="b",
        initial_cluster="a=http://10.0.0.1:2380,b=http://10.0.0.2:2380,c=http://c:2380",
        listen_client_urls="http://0.0.0.0:2379, http://127.0.0.1:4001",
        listen_peer_urls="http://0.0.0.0:2380",
    )
    assert config.initial_cluster["c"] == ("http://c:2380",)
    assert config.initial_advertise_peer_urls == ("http://10.0.0.2:2380",)
    assert config.advertise_client_urls == ("http://localhost:2379", "http://127.0.0.1:4001")
    assert config.data_dir == "b.kvstore"


def test_yaml_takes_lists_and_numbers_and_the_path_comes_from_a_variable_too():
    content = (
        b"name: a\n"
        b"listen-client-urls: [http://127.0.0.1:1, http://127.0.0.1:2]\n"
        b"watch-progress-notify-interval: 1m30s\n"
        b"data-dir:\n"
    )
    paths = []

    def read(path: str) -> bytes:
        paths.append(path)
        return content

    config = load({}, {"KVSTORE_CONFIG_FILE": "x.yaml"}, read).config
    assert paths == ["x.yaml"]
    assert config.listen_client_urls == ("http://127.0.0.1:1", "http://127.0.0.1:2")
    assert config.watch_progress_notify_interval_ms == 90_000
    assert config.data_dir == "a.kvstore"


def test_a_flag_names_another_file_than_the_variable():
    def read(path: str) -> bytes:
        return f"name: {path}".encode()

    loaded = load({"config-file": "flag"}, {"ETCD_CONFIG_FILE": "variable"}, read)
    assert loaded.config.name == "flag"


@pytest.mark.parametrize(
    ("given", "flag", "words"),
    [
        ({"heartbeat-interval": "fast"}, "--heartbeat-interval", "whole number"),
        ({"heartbeat-interval": "0"}, "--heartbeat-interval", "at least 1"),
        ({"election-timeout": "50001"}, "--election-timeout", "at most 50000"),
        ({"election-timeout": "499"}, "--election-timeout", "at least 5 times"),
        ({"initial-cluster-state": "old"}, "--initial-cluster-state", "new or existing"),
        ({"log-level": "loud"}, "--log-level", "debug or info"),
        ({"watch-progress-notify-interval": "10"}, "--watch-progress-notify-interval", "10m"),
        ({"watch-progress-notify-interval": "9ms"}, "--watch-progress-notify-interval", "100 ms"),
        ({"listen-client-urls": "unix://a:1"}, "--listen-client-urls", "only http"),
        ({"listen-client-urls": "localhost:1"}, "--listen-client-urls", "http://host:port"),
        ({"listen-client-urls": "http://a"}, "--listen-client-urls", "http://host:port"),
        ({"listen-client-urls": "http://a:99999"}, "--listen-client-urls", "http://host:port"),
        ({"listen-client-urls": "http://a:1/x"}, "--listen-client-urls", "http://host:port"),
        ({"listen-client-urls": ","}, "--listen-client-urls", "at least one URL"),
        ({"initial-cluster": "http://a:1"}, "--initial-cluster", "name=url"),
        ({"name": ""}, "--name", "empty"),
    ],
)
def test_a_refusal_names_the_flag_and_what_it_may_be(given, flag, words):
    with pytest.raises(ConfigError) as caught:
        load(given, {}, read_nothing)
    assert str(caught.value).startswith(flag)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"initial-cluster": "a=http://a:1"}, "--name 'default'"),
        ({"initial-cluster": "default=http://a:1,b=http://a:1"}, "both"),
        (
            {"initial-cluster": "default=http://a:1", "initial-advertise-peer-urls": "http://b:1"},
            "--initial-advertise-peer-urls",
        ),
    ],
)
def test_the_list_of_founders_goes_with_the_rest_where_it_counts(given, words):
    config = load(given, {}, read_nothing).config
    with pytest.raises(ConfigError, match=r"^--initial-cluster: ") as caught:
        config.check_initial_cluster()
    assert words in str(caught.value)


def test_a_refusal_names_the_variable_or_the_file():
    with pytest.raises(ConfigError, match=r"^ETCD_MAX_TXN_OPS: "):
        load({}, {"ETCD_MAX_TXN_OPS": "many"}, read_nothing)
    with pytest.raises(ConfigError, match=r"^max-txn-ops in c\.yaml: "):
        load({"config-file": "c.yaml"}, {}, lambda _: b"max-txn-ops: 0")
    with pytest.raises(ConfigError, match=r"^max-txn-ops in c\.yaml: "):
        load({"config-file": "c.yaml"}, {}, lambda _: b"max-txn-ops: yes")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: [", "not YAML"),
        (b"- a", "'setting: value'"),
        (b"quota: 1\nname: a", "unknown settings quota"),
        (b"#" * (CONFIG_FILE_BYTES_MAX + 1), "larger than"),
        (b"name: {a: b}", "cannot be its value"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(content, words):
    with pytest.raises(ConfigError, match=r"c\.yaml") as caught:
        load({"config-file": "c.yaml"}, {}, lambda _: content)
    assert words in str(caught.value)


def test_a_missing_file_is_refused_and_an_empty_one_says_nothing(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load({"config-file": str(tmp_path / "no")}, {}, lambda path: Path(path).read_bytes())
    assert load({"config-file": "c"}, {}, lambda _: b"").config == ServerConfig()


def test_unknown_variables_are_warned_of_and_empty_ones_are_unset():
    environ = {
        "KVSTORE_QUOTA": "1",
        "KVSTORE_ENDPOINTS": "http://a:1",
        "ETCD_NAME": "",
        "ETCDCTL_API": "3",
        "HOME": "/",
    }
    loaded = load({}, environ, read_nothing)
    assert loaded.config == ServerConfig()
    assert len(loaded.warnings) == 1
    assert "KVSTORE_QUOTA" in loaded.warnings[0]


def test_quota_zero_is_two_gibibytes_and_negative_is_none():
    assert ServerConfig().quota_bytes == 2 * GIB
    assert ServerConfig(quota_backend_bytes=-1).quota_bytes is None
    assert ServerConfig(quota_backend_bytes=7).quota_bytes == 7


def test_a_config_built_in_code_is_checked_too():
    with pytest.raises(ConfigError, match="--max-txn-ops"):
        ServerConfig(max_txn_ops=0)
    with pytest.raises(ConfigError, match="--listen-peer-urls"):
        ServerConfig(listen_peer_urls=("ftp://a:1",))


def test_host_and_port_of_a_url():
    assert host_and_port("http://[::1]:2379") == ("::1", 2379)
    for none in ("http://a", "http://:1", "http://a:99999", "http://[a:1"):
        with pytest.raises(ValueError, match=r"[Pp]ort|host|IPv6"):
            host_and_port(none)


def test_metrics_may_have_urls_of_their_own_and_clients_must():
    assert ServerConfig().listen_metrics_urls == ()
    config = load_flags(listen_metrics_urls="http://a:1/,http://b:2")
    assert config.listen_metrics_urls == ("http://a:1", "http://b:2")
    with pytest.raises(ConfigError, match="--listen-metrics-urls"):
        load_flags(listen_metrics_urls="ftp://a:1")
    with pytest.raises(ConfigError, match="--listen-client-urls: needs at least one"):
        load_flags(listen_client_urls="")


def test_grpc_has_etcds_settings():
    defaults = ServerConfig()
    assert defaults.listen_client_http_urls == ()
    assert defaults.max_concurrent_streams == 4096
    assert defaults.grpc_keepalive_min_time_ms == 5_000
    assert defaults.grpc_keepalive_interval_ms == 7_200_000
    assert defaults.grpc_keepalive_timeout_ms == 20_000
    config = load_flags(
        listen_client_http_urls="http://a:1",
        max_concurrent_streams="4294967295",
        grpc_keepalive_min_time="10s",
        grpc_keepalive_interval="1m",
        grpc_keepalive_timeout="500ms",
    )
    assert config.listen_client_http_urls == ("http://a:1",)
    assert config.max_concurrent_streams == 2**32 - 1
    assert config.grpc_keepalive_min_time_ms == 10_000
    assert config.grpc_keepalive_interval_ms == 60_000
    assert config.grpc_keepalive_timeout_ms == 500
    with pytest.raises(ConfigError, match="--max-concurrent-streams: must be at least 1"):
        load_flags(max_concurrent_streams="0")


def test_names_and_origins_are_settings_as_in_etcd():
    assert (ServerConfig().cors, ServerConfig().host_whitelist) == ("*", "*")
    config = load({}, {"ETCD_CORS": "http://a", "ETCD_HOST_WHITELIST": "a,b"}, read_nothing).config
    assert (config.cors, config.host_whitelist) == ("http://a", "a,b")


# --- Settings of etcd that this version does not have ---------------------------------------------

# What etcd's own sample file says beyond what we have too.
SAMPLE = """
name: 'default'
data-dir:
wal-dir:
snapshot-count: 10000
max-snapshots: 5
max-wals: 5
cors:
discovery:
discovery-fallback: 'proxy'
discovery-proxy:
discovery-srv:
initial-cluster:
initial-cluster-token: 'etcd-cluster'
strict-reconfig-check: false
enable-pprof: false
proxy: 'off'
proxy-failure-wait: 5000
proxy-read-timeout: 0
client-transport-security:
  cert-file:
  key-file: ''
  client-cert-auth: false
peer-transport-security:
  auto-tls: false
self-signed-cert-validity: 1
log-level: debug
logger: zap
log-outputs: [stderr]
force-new-cluster: false
auto-compaction-mode: periodic
auto-compaction-retention: "0"
cipher-suites: []
tls-min-version: 'TLS1.2'
pre-vote: true
experimental-watch-progress-notify-interval: 5s
"""


def load_yaml(text: str):
    return load({"config-file": "c.yaml"}, {}, lambda _: text.encode())


def test_a_file_of_etcd_that_asks_for_nothing_more_passes_in_silence():
    loaded = load_yaml(SAMPLE)
    assert loaded.warnings == []
    assert loaded.config.snapshot_count == 10000
    assert loaded.config.watch_progress_notify_interval_ms == 5000


@pytest.mark.parametrize(
    "line",
    [
        "logger: json",
        "log-outputs: [stderr, /var/log/etcd.log]",
        "max-snapshots: 9",
        "max-wals: 9",
        "enable-pprof: true",
        "metrics: extensive",
        "pre-vote: false",
        "experimental-memory-mlock: true",
    ],
)
def test_what_may_be_ignored_is_named_in_a_warning(line):
    name = line.split(":")[0]
    expected = f"{name} in c.yaml: not supported in this version, ignored"
    assert load_yaml(line).warnings == [expected]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("wal-dir: /wal", "data directory"),
        ("discovery: https://discovery.etcd.io/x", "--initial-cluster"),
        ("discovery-srv: example.com", "--initial-cluster"),
        ("force-new-cluster: true", "cannot leave"),
        ("proxy: 'on'", "proxy"),
        ("experimental-enable-v2v3: /x", "v2"),
    ],
)
def test_what_must_not_be_ignored_is_refused(line, words):
    name = line.split(":")[0]
    with pytest.raises(ConfigError, match=rf"^{name} in c\.yaml: not supported") as caught:
        load_yaml(line)
    assert words in str(caught.value)


def test_flags_and_variables_of_etcd_are_judged_alike_and_the_stronger_source_counts():
    with pytest.raises(ConfigError, match=r"^ETCD_DISCOVERY: not supported"):
        load({}, {"ETCD_DISCOVERY": "https://a"}, read_nothing)
    with pytest.raises(ConfigError, match=r"^--wal-dir: not supported"):
        load({"wal-dir": "/wal"}, {}, read_nothing)
    environ = {"ETCD_WAL_DIR": "/wal", "ETCD_ENABLE_PPROF": "true"}
    loaded = load({"wal-dir": ""}, environ, read_nothing)
    assert loaded.warnings == ["ETCD_ENABLE_PPROF: not supported in this version, ignored"]
    assert load({}, {"ETCD_EXPERIMENTAL_MEMORY_MLOCK": "false"}, read_nothing).warnings == []


@pytest.mark.parametrize(("given", "found"), [("true", True), ("FALSE", False)])
def test_a_switch_is_true_or_false(given, found):
    environ = {"ETCD_STRICT_RECONFIG_CHECK": given}
    assert load({}, environ, read_nothing).config.strict_reconfig_check is found
    assert load_yaml(f"strict-reconfig-check: {given}").config.strict_reconfig_check is found


@pytest.mark.parametrize("line", ["strict-reconfig-check: 1", "strict-reconfig-check: yess"])
def test_a_switch_is_nothing_else(line):
    with pytest.raises(ConfigError, match=r"^strict-reconfig-check in c\.yaml"):
        load_yaml(line)


def test_no_setting_is_both_ours_and_absent():
    assert not ABSENT.keys() & settings().keys()
