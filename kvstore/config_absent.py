"""Settings of etcd that this version does not have: which may be given, and which must not.

So that files and unit files written for etcd start here without being weeded first. One that says
what holds anyway passes in silence. One that asks for more is warned of where nothing breaks by
ignoring it, and refused where somebody would rely on what is not there.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from kvstore.errors import ConfigError

_NO_DISCOVERY: Final = "name all members in --initial-cluster"
_NO_V2: Final = "the v2 API is not served"


class Absent(NamedTuple):
    """What the table says about one setting.

    Attributes:
        harmless: Values that ask for nothing: etcd's default, or what is the case here.
        refusal: Why any other value must not be ignored; empty if it may, with a warning.
        silent: Whether it only shapes what another setting switches on, so that no value matters.
    """

    harmless: tuple[str, ...] = ()
    refusal: str = ""
    silent: bool = False

    @property
    def boolean(self) -> bool:
        """Whether its flag may stand without a value."""
        return bool({"true", "false"} & {*self.harmless})


def _refused(why: str, *names: str, harmless: tuple[str, ...] = ()) -> dict[str, Absent]:
    return {name: Absent(harmless, why) for name in names}


def _silent(*names: str) -> dict[str, Absent]:
    return {name: Absent(silent=True) for name in names}


ABSENT: Final[dict[str, Absent]] = {
    # --- Refused ---
    **_refused("the log is in the data directory", "wal-dir"),
    **_refused(_NO_DISCOVERY, "discovery", "discovery-srv"),
    **_refused(_NO_DISCOVERY, "discovery-token", "discovery-endpoints"),
    **_refused("a member cannot leave its cluster", "force-new-cluster", harmless=("false",)),
    **_refused("there is no proxy", "proxy", harmless=("off",)),
    **_refused(_NO_V2, "enable-v2", harmless=("false",)),
    **_refused(_NO_V2, "enable-v2v3"),
    # --- Ignored, with a warning ---
    "logger": Absent(("zap",)),
    "log-outputs": Absent(("default", "stderr")),
    "enable-log-rotation": Absent(("false",)),
    "max-snapshots": Absent(("5",)),
    "max-wals": Absent(("5",)),
    "enable-pprof": Absent(("false",)),
    "metrics": Absent(("basic",)),
    "pre-vote": Absent(("true",)),
    "initial-election-tick-advance": Absent(("true",)),
    "enable-grpc-gateway": Absent(("true",)),
    "socket-reuse-port": Absent(("false",)),
    "socket-reuse-address": Absent(("false",)),
    "raft-read-timeout": Absent(("5s",)),
    "raft-write-timeout": Absent(("5s",)),
    "unsafe-no-fsync": Absent(("false",)),
    "feature-gates": Absent(),
    "set-member-localaddr": Absent(("false",)),
    # The members' states are compared all the time, in another way.
    "initial-corrupt-check": Absent(("false", "true")),
    "compact-hash-check-enabled": Absent(("false", "true")),
    "memory-mlock": Absent(("false",)),
    "warning-apply-duration": Absent(("100ms",)),
    "warning-unary-request-duration": Absent(("300ms",)),
    "enable-distributed-tracing": Absent(("false",)),
    # Leases are always checkpointed.
    "enable-lease-checkpoint": Absent(("false", "true")),
    "enable-lease-checkpoint-persist": Absent(("false", "true")),
    # --- Without meaning, where what they shape is not there ---
    **_silent("discovery-fallback", "discovery-proxy", "discovery-srv-name"),
    **_silent("proxy-failure-wait", "proxy-refresh-interval", "proxy-dial-timeout"),
    **_silent("proxy-write-timeout", "proxy-read-timeout", "v2-deprecation"),
    **_silent("log-rotation-config-json", "backend-bbolt-freelist-type"),
    **_silent("backend-batch-interval", "backend-batch-limit", "compact-hash-check-time"),
    **_silent("compaction-batch-limit", "compaction-sleep-interval", "downgrade-check-time"),
    **_silent("txn-mode-write-with-shared-buffer", "bootstrap-defrag-threshold-megabytes"),
    **_silent("stop-grpc-service-on-defrag", "peer-skip-client-san-verification"),
    **_silent("distributed-tracing-address", "distributed-tracing-service-name"),
    **_silent("distributed-tracing-instance-id", "distributed-tracing-sampling-rate"),
}
"""By flag, as in the newest etcd."""

EXPERIMENTAL: Final = "experimental-"
"""Before the names of what etcd was not yet sure of: the same setting."""

_NOTHING: Final = re.compile(r"|false|null|0+(\.0+)?(ns|us|ms|s|m|h)?")


def judge(flag: str, given: object, source: str) -> str:
    """What to say about a setting that is given: a warning, or nothing.

    Args:
        flag: One of ``ABSENT``.
        given: Its value, as text or as YAML has it.
        source: What messages call it.

    Raises:
        ConfigError: It must not be ignored.
    """
    absent = ABSENT[flag]
    if absent.silent or not _asks(given, absent.harmless):
        return ""
    if absent.refusal:
        raise ConfigError(f"{source}: not supported in this version: {absent.refusal}")
    return f"{source}: not supported in this version, ignored"


def _asks(given: Any, harmless: tuple[str, ...]) -> bool:
    """Whether a value asks for anything; a list or section does if one of its parts does."""
    if isinstance(given, dict):
        given = list(given.values())
    if isinstance(given, list):
        return any(_asks(part, harmless) for part in given)
    text = "" if given is None else str(given).strip().lower()
    if not text or text in harmless:
        return False
    # Where the default is true, false is not nothing: it asks for something.
    return harmless == ("true",) or _NOTHING.fullmatch(text) is None
