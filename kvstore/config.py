"""The settings of a node: one table, the fields of ``ServerConfig``, makes flags, variables, YAML.

Names are etcd's, so that its unit files, compose files and Helm values carry over.
``kvstore.config_sources`` puts a configuration together from its sources.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, Final, get_args, get_type_hints

import msgspec

from kvstore.auth.token_setting import parse as parse_auth_token
from kvstore.config_grpc import GrpcConfig
from kvstore.config_tls import check_tls
from kvstore.config_values import (
    Retention,
    Setting,
    check_range,
    checked_url,
    host_and_port,
    parse_retention,
)
from kvstore.errors import ConfigError

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

ELECTION_TIMEOUT_MS_MAX: Final = 50_000
HEARTBEATS_PER_ELECTION_MIN: Final = 5
QUOTA_DEFAULT_BYTES: Final = 2 * GIB

_WILDCARD_HOSTS: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - compared, never bound
_CLUSTER_STATES: Final = ("new", "existing")
_LOG_LEVELS: Final = ("debug", "info", "warn", "error", "panic", "fatal")
_LOG_FORMATS: Final = ("text", "json")


class ServerConfig(GrpcConfig, frozen=True, kw_only=True):
    """All settings of a node; those about TLS are its base.

    Empty names and URLs are filled in and the whole is checked at once.

    Raises:
        ConfigError: A setting is out of its range, or two do not go together; the message names the
            flag.
    """

    name: Annotated[
        str, Setting(flag="name", help="Name of this member, as --initial-cluster spells it.")
    ] = "default"
    data_dir: Annotated[
        str,
        Setting(
            flag="data-dir",
            help="Directory of the log and the snapshots.",
            shown_default="<name>.kvstore",
        ),
    ] = ""
    listen_client_urls: Annotated[
        tuple[str, ...],
        Setting(flag="listen-client-urls", help="URLs to listen on for clients."),
    ] = ("http://localhost:2379",)
    listen_client_http_urls: Annotated[
        tuple[str, ...],
        Setting(
            flag="listen-client-http-urls",
            help="URLs for HTTP alone; --listen-client-urls then serve gRPC alone.",
            shown_default="none",
            optional=True,
        ),
    ] = ()
    listen_metrics_urls: Annotated[
        tuple[str, ...],
        Setting(
            flag="listen-metrics-urls",
            help="Further URLs to listen on, for /metrics, /health, /livez and /readyz alone.",
            shown_default="none",
            optional=True,
        ),
    ] = ()
    advertise_client_urls: Annotated[
        tuple[str, ...],
        Setting(
            flag="advertise-client-urls",
            help="URLs under which clients reach this member.",
            shown_default="as --listen-client-urls",
        ),
    ] = ()
    listen_peer_urls: Annotated[
        tuple[str, ...],
        Setting(flag="listen-peer-urls", help="URLs to listen on for the other members."),
    ] = ("http://localhost:2380",)
    initial_advertise_peer_urls: Annotated[
        tuple[str, ...],
        Setting(
            flag="initial-advertise-peer-urls",
            help="URLs under which the other members reach this one.",
            shown_default="as --initial-cluster or --listen-peer-urls say",
        ),
    ] = ()
    initial_cluster: Annotated[
        dict[str, tuple[str, ...]],
        Setting(
            flag="initial-cluster",
            help="All members at the start: name=peer-url, separated by commas.",
            shown_default="<name>=<initial-advertise-peer-urls>",
        ),
    ] = {}  # noqa: RUF012 - each struct gets one of its own
    initial_cluster_state: Annotated[
        str,
        Setting(
            flag="initial-cluster-state",
            help="'new' to found the cluster, 'existing' to join one.",
            choices=_CLUSTER_STATES,
        ),
    ] = "new"
    initial_cluster_token: Annotated[
        str,
        Setting(
            flag="initial-cluster-token",
            help="Tells clusters apart that were founded with the same URLs.",
        ),
    ] = "kvstore-cluster"  # noqa: S105 - a name, no secret
    heartbeat_interval_ms: Annotated[
        int,
        Setting(
            flag="heartbeat-interval",
            help="Milliseconds between heartbeats of the leader.",
            minimum=1,
        ),
    ] = 100
    election_timeout_ms: Annotated[
        int,
        Setting(
            flag="election-timeout",
            help="Milliseconds without a leader until a member stands for election.",
            minimum=10,
            maximum=ELECTION_TIMEOUT_MS_MAX,
        ),
    ] = 1000
    snapshot_count: Annotated[
        int,
        Setting(
            flag="snapshot-count",
            help="Take a snapshot every so many entries; 0: when the log has grown enough.",
            minimum=0,
        ),
    ] = 0
    snapshot_catchup_entries: Annotated[
        int,
        Setting(
            flag="snapshot-catchup-entries",
            help="Applied entries kept in memory for followers that lag.",
            minimum=1,
        ),
    ] = 5000
    quota_backend_bytes: Annotated[
        int,
        Setting(
            flag="quota-backend-bytes",
            help="Most bytes to store; 0: 2 GiB; negative: no limit.",
        ),
    ] = 0
    max_request_bytes: Annotated[
        int,
        Setting(
            flag="max-request-bytes",
            help="Most bytes of one write.",
            minimum=KIB,
            maximum=32 * MIB,
        ),
    ] = 1536 * KIB
    max_txn_ops: Annotated[
        int,
        Setting(
            flag="max-txn-ops",
            help="Most operations of one transaction.",
            minimum=1,
            maximum=1_000_000,
        ),
    ] = 128
    max_connections: Annotated[
        int,
        Setting(
            flag="max-connections",
            help="Most client connections at a time; more are refused.",
            minimum=1,
        ),
    ] = 20_000
    max_watch_streams: Annotated[
        int, Setting(flag="max-watch-streams", help="Most watch streams at a time.", minimum=1)
    ] = 10_000
    max_watchers_per_stream: Annotated[
        int,
        Setting(flag="max-watchers-per-stream", help="Most watchers on one stream.", minimum=1),
    ] = 100_000
    watch_bytes_max: Annotated[
        int,
        Setting(
            flag="watch-bytes-max",
            help="Most bytes on their way to one watch stream.",
            minimum=64 * KIB,
        ),
    ] = MIB
    watch_progress_notify_interval_ms: Annotated[
        int,
        Setting(
            flag="watch-progress-notify-interval",
            help="How often idle watchers that asked for it hear the revision.",
            minimum=100,
            duration=True,
        ),
    ] = 600_000
    max_inflight_proposals: Annotated[
        int,
        Setting(
            flag="max-inflight-proposals",
            help="Most writes that wait at one member; more are refused, to be retried.",
            minimum=1,
        ),
    ] = 5000
    max_inflight_bytes: Annotated[
        int,
        Setting(
            flag="max-inflight-bytes",
            help="Most bytes of writes that wait at one member; more are refused.",
            minimum=MIB,
        ),
    ] = 64 * MIB
    response_bytes_max: Annotated[
        int,
        Setting(
            flag="response-bytes-max",
            help="Most bytes that one read may answer with.",
            minimum=MIB,
        ),
    ] = 512 * MIB
    wal_segment_bytes: Annotated[
        int,
        Setting(
            flag="wal-segment-bytes",
            help="Size of one file of the log.",
            minimum=64 * KIB,
            maximum=GIB,
        ),
    ] = 64 * MIB
    scrub_bytes_per_second: Annotated[
        int,
        Setting(
            flag="scrub-bytes-per-second",
            help="How fast log and snapshots are read again to find damage; 0: not at all.",
            minimum=0,
        ),
    ] = 4 * MIB
    auto_compaction_mode: Annotated[
        str,
        Setting(
            flag="auto-compaction-mode",
            help="What --auto-compaction-retention counts: hours, or revisions.",
            choices=("periodic", "revision"),
        ),
    ] = "periodic"
    auto_compaction_retention: Annotated[
        str,
        Setting(
            flag="auto-compaction-retention",
            help="History to keep: revisions, or a time ('72h'; a bare number: hours); 0: all.",
        ),
    ] = "0"
    strict_reconfig_check: Annotated[
        bool,
        Setting(
            flag="strict-reconfig-check",
            help="Refuse changes of membership that would cost the cluster its quorum.",
        ),
    ] = True
    max_learners: Annotated[
        int,
        Setting(flag="max-learners", help="Most learners at a time.", minimum=1, maximum=16),
    ] = 1
    replace_damaged_member: Annotated[
        bool,
        Setting(
            flag="replace-damaged-member",
            help="Let a member that lost its data, or whose state is wrong, replace itself.",
        ),
    ] = False
    corrupt_check_time_ms: Annotated[
        int,
        Setting(
            flag="corrupt-check-time",
            help="How often the leader compares the members' states; 0: never.",
            minimum=0,
            duration=True,
        ),
    ] = 10_000
    auth_token: Annotated[
        str,
        Setting(
            flag="auth-token",
            help="'simple', or 'jwt,sign-method=RS256,pub-key=FILE,priv-key=FILE,ttl=5m'.",
        ),
    ] = "simple"  # noqa: S105 - a kind of token, none itself
    auth_token_ttl_seconds: Annotated[
        int,
        Setting(flag="auth-token-ttl", help="Seconds a simple token lasts unless used.", minimum=1),
    ] = 300
    bcrypt_cost: Annotated[
        int,
        Setting(flag="bcrypt-cost", help="Cost of hashing a password.", minimum=4, maximum=31),
    ] = 10
    cors: Annotated[
        str,
        Setting(flag="cors", help="Origins whose pages may read answers, by commas; '*': all."),
    ] = "*"
    host_whitelist: Annotated[
        str,
        Setting(flag="host-whitelist", help="Host names that are answered, by commas; '*': all."),
    ] = "*"
    log_level: Annotated[
        str,
        Setting(flag="log-level", help="Least level that is logged.", choices=_LOG_LEVELS),
    ] = "info"
    log_format: Annotated[
        str,
        Setting(
            flag="log-format", help="'text' or 'json', one line an entry.", choices=_LOG_FORMATS
        ),
    ] = "text"

    def __post_init__(self) -> None:
        _check_urls(self)
        _fill_in(self)
        for setting in settings().values():
            value = getattr(self, field_of(setting.flag))
            check_range(setting, value, f"--{setting.flag}")
        _check_whole(self)

    def check_initial_cluster(self) -> None:
        """Refuse an ``--initial-cluster`` that does not go with the rest.

        It counts for an empty directory only. One that holds a log knows its cluster better: the
        members may have changed, or been given other URLs, since these flags were written.

        Raises:
            ConfigError: It lacks this member, has other URLs for it, or has a URL twice.
        """
        seen: dict[str, str] = {}
        for name, urls in self.initial_cluster.items():
            for url in urls:
                if url in seen:
                    raise ConfigError(
                        f"--initial-cluster: {url} belongs to both {seen[url]} and {name}"
                    )
                seen[url] = name
        mine = self.initial_cluster.get(self.name)
        if mine is None:
            raise ConfigError(
                f"--initial-cluster: does not name this member, --name {self.name!r}; "
                f"it names {', '.join(sorted(self.initial_cluster))}"
            )
        if sorted(mine) != sorted(self.initial_advertise_peer_urls):
            raise ConfigError(
                f"--initial-cluster: gives {self.name} the URLs {','.join(mine)}, but "
                f"--initial-advertise-peer-urls says {','.join(self.initial_advertise_peer_urls)}"
            )

    @property
    def quota_bytes(self) -> int | None:
        """Most bytes to store; None: no limit."""
        if self.quota_backend_bytes < 0:
            return None
        return self.quota_backend_bytes or QUOTA_DEFAULT_BYTES

    @property
    def retention(self) -> Retention:
        """How much history compaction by itself leaves."""
        return parse_retention(self.auto_compaction_mode, self.auto_compaction_retention)


# --- The table ------------------------------------------------------------------------------------


@functools.cache
def rows() -> dict[str, tuple[str, Setting, Any]]:
    """Flag -> (field, setting, plain type), in the order of the fields."""
    found: dict[str, tuple[str, Setting, Any]] = {}
    hints = get_type_hints(ServerConfig, include_extras=True)
    # What everybody looks for first.
    own = [
        name for name in ServerConfig.__struct_fields__ if name not in GrpcConfig.__struct_fields__
    ]
    for field in (*own, *GrpcConfig.__struct_fields__):
        plain, setting = get_args(hints[field])
        found[setting.flag] = (field, setting, plain)
    return found


@functools.cache
def settings() -> dict[str, Setting]:
    """All settings by flag, in the order in which help shows them."""
    return {flag: row[1] for flag, row in rows().items()}


def field_of(flag: str) -> str:
    """The field of ``ServerConfig`` that a flag sets."""
    return rows()[flag][0]


def default_text(flag: str) -> str:
    """A setting's default as one would write it on the command line."""
    field, setting, _ = rows()[flag]
    if setting.shown_default:
        return setting.shown_default
    position = ServerConfig.__struct_fields__.index(field)
    value = ServerConfig.__struct_defaults__[position]
    if isinstance(value, tuple):
        return ",".join(value)
    if setting.duration:
        return f"{value // 1000}s"
    return str(value).lower() if isinstance(value, bool) else str(value)


# --- Filling in and checking ----------------------------------------------------------------------


def _check_urls(config: ServerConfig) -> None:
    for flag in settings():
        value = getattr(config, field_of(flag))
        if isinstance(value, tuple):
            for url in value:
                checked_url(url, f"--{flag}")


def _fill_in(config: ServerConfig) -> None:
    """Compute what was left empty. The struct is frozen only once this is done."""
    put = msgspec.structs.force_setattr
    if not config.data_dir:
        put(config, "data_dir", f"{config.name}.kvstore")
    if not config.advertise_client_urls:
        put(config, "advertise_client_urls", _reachable(config.listen_client_urls))
    if not config.initial_advertise_peer_urls:
        urls = config.initial_cluster.get(config.name) or _reachable(config.listen_peer_urls)
        put(config, "initial_advertise_peer_urls", urls)
    if not config.initial_cluster:
        put(config, "initial_cluster", {config.name: config.initial_advertise_peer_urls})


def _reachable(urls: tuple[str, ...]) -> tuple[str, ...]:
    """Nobody can connect to a wildcard address: from this machine localhost is the same."""
    found = []
    for url in urls:
        host, port = host_and_port(url)
        scheme = url.partition(":")[0]
        found.append(f"{scheme}://localhost:{port}" if host in _WILDCARD_HOSTS else url)
    return tuple(found)


def _check_whole(config: ServerConfig) -> None:
    if not config.name:
        raise ConfigError("--name: must not be empty")
    for flag, setting in settings().items():
        if getattr(config, field_of(flag)) == () and not setting.optional:
            raise ConfigError(f"--{flag}: needs at least one URL, http://host:port or https://…")
    if config.election_timeout_ms < HEARTBEATS_PER_ELECTION_MIN * config.heartbeat_interval_ms:
        raise ConfigError(
            f"--election-timeout: must be at least {HEARTBEATS_PER_ELECTION_MIN} times "
            f"--heartbeat-interval; {config.election_timeout_ms} ms is less than "
            f"{HEARTBEATS_PER_ELECTION_MIN} × {config.heartbeat_interval_ms} ms"
        )
    check_tls(config)
    parse_auth_token(config.auth_token)
    parse_retention(config.auto_compaction_mode, config.auto_compaction_retention)
    for urls in config.initial_cluster.values():
        for url in urls:
            checked_url(url, "--initial-cluster")
