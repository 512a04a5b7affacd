"""The core's limits and rhythm. Times are ticks: the driver decides how long one lasts."""

import msgspec

from raft.errors import ConfigError
from raft.types import NodeId


class RaftConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one node.

    Bounds: ``append_bytes_max`` is what one AppendEntries may carry (always at least one entry),
    ``inflight_appends_max`` and ``inflight_bytes_max`` what may be unacknowledged to one follower,
    ``uncommitted_bytes_max`` what a leader holds uncommitted before it rejects proposals,
    ``committed_bytes_max`` what one take hands out to apply, ``tail_entries_max`` and
    ``tail_bytes_max`` what applied log stays in memory for followers that lag.
    """

    node_id: NodeId
    election_ticks: int = 10
    heartbeat_ticks: int = 1
    append_bytes_max: int = 1024 * 1024
    inflight_appends_max: int = 16
    inflight_bytes_max: int = 16 * 1024 * 1024
    uncommitted_bytes_max: int = 64 * 1024 * 1024
    committed_bytes_max: int = 4 * 1024 * 1024
    tail_entries_max: int = 5000
    tail_bytes_max: int = 64 * 1024 * 1024
    pending_reads_max: int = 65536
    check_invariants: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot work, naming the field.

        Raises:
            ConfigError: A field is out of its range.
        """
        if self.node_id <= 0:
            raise ConfigError(f"node_id must be positive, not {self.node_id}")
        if self.heartbeat_ticks < 1:
            raise ConfigError(f"heartbeat_ticks must be at least 1, not {self.heartbeat_ticks}")
        if self.election_ticks <= self.heartbeat_ticks:
            raise ConfigError(
                f"election_ticks ({self.election_ticks}) must exceed"
                f" heartbeat_ticks ({self.heartbeat_ticks})"
            )
        for name in self.__struct_fields__:
            if name.endswith("_max") and getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
