"""What /metrics says: etcd's names where etcd has the thing, ``kvstore_`` where it has not.

The rooms keep plain counters; this collector reads them when it is asked. So counting costs the hot
path an addition, and the names, which prometheus-client's own counters would change (it adds
``_total``), are etcd's.
"""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import HistogramMetricFamily, Metric

from kvstore.metrics_door import DoorCollector, DoorCounts, metric_of
from kvstore.types import AlarmType
from kvstore.version import CLUSTER_VERSION, KVSTORE_VERSION, VERSION
from raft.types import NO_NODE, Role
from wal.wal import SYNC_SECONDS_BOUNDS

if TYPE_CHECKING:
    from kvstore.server.node import Node

Sample = tuple[str, str, str, Callable[["Node"], float]]
"""Name, kind, help, and how to read it."""

_SAMPLES: Final[tuple[Sample, ...]] = (
    (
        "etcd_server_has_leader",
        "gauge",
        "Whether or not a leader exists. 1 is existence, 0 is not.",
        lambda node: node.driver.leader != NO_NODE,
    ),
    (
        "etcd_server_is_leader",
        "gauge",
        "Whether or not this member is a leader.",
        lambda node: node.driver.role == Role.LEADER,
    ),
    (
        "etcd_server_leader_changes_seen_total",
        "counter",
        "Leader changes that this member saw.",
        lambda node: node.driver.leader_changes_total,
    ),
    (
        "etcd_server_proposals_committed_total",
        "gauge",
        "Index of the last committed entry.",
        lambda node: node.driver.raft.commit_index,
    ),
    (
        "etcd_server_proposals_applied_total",
        "gauge",
        "Index of the last applied entry.",
        lambda node: node.applier.machine.applied_index,
    ),
    (
        "etcd_server_proposals_pending",
        "gauge",
        "Proposals of this member that wait for their outcome.",
        lambda node: len(node.proposals),
    ),
    (
        "etcd_server_proposals_failed_total",
        "counter",
        "Proposals of this member that failed, or whose outcome is unknown.",
        lambda node: node.proposals.failed_total,
    ),
    (
        "etcd_server_read_indexes_failed_total",
        "counter",
        "Linearizable reads that got no index in time.",
        lambda node: node.reads.failed_total,
    ),
    (
        "etcd_server_lease_expired_total",
        "counter",
        "Leases that this member, leading, found run out.",
        lambda node: node.leases.expired_total,
    ),
    (
        "etcd_server_quota_backend_bytes",
        "gauge",
        "The storage quota in bytes, 0 if there is none.",
        lambda node: node.config.quota_bytes or 0,
    ),
    (
        "etcd_mvcc_db_total_size_in_bytes",
        "gauge",
        "Bytes of all retained versions.",
        lambda node: node.applier.machine.store.size_bytes,
    ),
    (
        "etcd_debugging_mvcc_keys_total",
        "gauge",
        "Keys, deleted ones not yet swept included.",
        lambda node: node.applier.machine.store.key_count,
    ),
    (
        "etcd_debugging_mvcc_current_revision",
        "gauge",
        "The store's revision.",
        lambda node: node.applier.machine.store.revision,
    ),
    (
        "etcd_debugging_mvcc_compact_revision",
        "gauge",
        "The last compacted revision, -1 before the first compaction.",
        lambda node: node.applier.machine.store.compacted_revision,
    ),
    (
        "kvstore_leases",
        "gauge",
        "Leases granted and not ended.",
        lambda node: len(node.applier.machine.lessor),
    ),
    (
        "kvstore_proposals_refused_total",
        "counter",
        "Writes refused because too many waited.",
        lambda node: node.proposals.refused_total,
    ),
    (
        "kvstore_proposals_resent_total",
        "counter",
        "Proposals sent again, because leadership moved or an answer was late.",
        lambda node: node.proposals.resent_total,
    ),
    (
        "kvstore_reads_refused_total",
        "counter",
        "Linearizable reads refused because too many waited.",
        lambda node: node.reads.refused_total,
    ),
    (
        "kvstore_passwords_refused_total",
        "counter",
        "Logins and new passwords refused because too many waited.",
        lambda node: node.secret_work.refused_total,
    ),
    (
        "kvstore_peer_errors_total",
        "counter",
        "Messages of peers that broke the protocol.",
        lambda node: node.driver.peer_errors_total,
    ),
    (
        "kvstore_raft_term",
        "gauge",
        "The raft term.",
        lambda node: node.driver.raft.term,
    ),
    (
        "kvstore_loop_turns_total",
        "counter",
        "Batches that the driver handled.",
        lambda node: node.driver.turns_total,
    ),
    (
        "kvstore_loop_stalls_total",
        "counter",
        "Ticks more than two intervals late: the loop, the process or the machine stood still.",
        lambda node: node.driver.slow_ticks_total,
    ),
    (
        "kvstore_apply_sliced_total",
        "counter",
        "Commands so large that they were applied in slices.",
        lambda node: node.applier.huge_total,
    ),
    (
        "kvstore_wal_bytes_total",
        "counter",
        "Bytes written to the log.",
        lambda node: node.wal.bytes_written,
    ),
    (
        "kvstore_wal_queued_bytes",
        "gauge",
        "Bytes that wait for the disk.",
        lambda node: node.wal.queued_bytes,
    ),
    (
        "kvstore_wal_slow_disk_total",
        "counter",
        "Times that this member, leading, handed leadership on because its disk hung.",
        lambda node: node.upkeep.slow_disks_total,
    ),
    (
        "kvstore_snapshots_taken_total",
        "counter",
        "Snapshots taken.",
        lambda node: node.snapshots.taken_total,
    ),
    (
        "kvstore_snapshots_sent_total",
        "counter",
        "Snapshots sent to followers.",
        lambda node: node.snapshots.sent_total,
    ),
    (
        "kvstore_snapshots_installed_total",
        "counter",
        "Snapshots received and installed.",
        lambda node: node.snapshots.installed_total,
    ),
    (
        "kvstore_rebuilding",
        "gauge",
        "Whether this member votes and acknowledges nothing until it has a snapshot again.",
        lambda node: node.rebuild.active,
    ),
    (
        "kvstore_rebuilt_total",
        "counter",
        "Times that this member rebuilt its state in this life, because its disk was damaged.",
        lambda node: node.rebuild.rebuilt_total,
    ),
    (
        "kvstore_scrub_bytes_total",
        "counter",
        "Bytes of the log and of snapshots that were read again to find damage.",
        lambda node: node.scrub.bytes_total,
    ),
    (
        "kvstore_scrub_passes_total",
        "counter",
        "Times that all of them were read again.",
        lambda node: node.scrub.passes_total,
    ),
    (
        "kvstore_scrub_damaged_total",
        "counter",
        "Damaged files that reading again has found.",
        lambda node: node.scrub.damaged_total,
    ),
    (
        "kvstore_scrub_mended_total",
        "counter",
        "Damaged files for which what they held was written anew.",
        lambda node: node.scrub.mended_total,
    ),
    (
        "kvstore_quota_used_ratio",
        "gauge",
        "Part of the storage quota that is used, 0 if there is none.",
        lambda node: node.applier.machine.size_bytes / (node.config.quota_bytes or math.inf),
    ),
    (
        "kvstore_quota_warnings_total",
        "counter",
        "Times that 80 percent of the storage quota were passed.",
        lambda node: node.upkeep.alarms.warnings_total,
    ),
    (
        "kvstore_alarms_raised_total",
        "counter",
        "Alarms that this member asked for.",
        lambda node: node.upkeep.alarms.raised_total,
    ),
    (
        "kvstore_alarms_cleared_total",
        "counter",
        "Alarms that this member took back by itself.",
        lambda node: node.upkeep.alarms.cleared_total,
    ),
    (
        "kvstore_auto_compactions_total",
        "counter",
        "Compactions that this member, leading, made by itself.",
        lambda node: node.upkeep.auto_compaction.compactions_total,
    ),
    (
        "kvstore_auto_compaction_failures_total",
        "counter",
        "Compactions by itself that failed.",
        lambda node: node.upkeep.auto_compaction.failures_total,
    ),
    (
        "kvstore_members_replaced_total",
        "counter",
        "Lost members whose place this member, leading, gave to another.",
        lambda node: node.replacements.replaced_total,
    ),
    (
        "kvstore_corruption_checks_total",
        "counter",
        "Times that this member, leading, compared the members' states.",
        lambda node: node.upkeep.corruption.compared_total,
    ),
    (
        "kvstore_corruption_differences_total",
        "counter",
        "Differences that it found.",
        lambda node: node.upkeep.corruption.differences_total,
    ),
    (
        "kvstore_snapshot_exports_open",
        "gauge",
        "Snapshots on their way to clients.",
        lambda node: node.exports.open,
    ),
    (
        "kvstore_snapshot_exports_total",
        "counter",
        "Snapshots that clients got whole.",
        lambda node: node.exports.exported_total,
    ),
    (
        "kvstore_snapshot_exports_refused_total",
        "counter",
        "Snapshots refused to clients because too many were on their way.",
        lambda node: node.exports.refused_total,
    ),
)

_PER_PEER: Final = (
    ("etcd_network_peer_sent_bytes_total", "Bytes sent to a peer.", "To", "sent_bytes_total"),
    (
        "etcd_network_peer_received_bytes_total",
        "Bytes received from a peer.",
        "From",
        "received_bytes_total",
    ),
    (
        "etcd_network_peer_sent_failures_total",
        "Frames to a peer that were dropped.",
        "To",
        "send_failures_total",
    ),
)


class NodeCollector:
    """Reads a node's counters for prometheus-client."""

    def __init__(self, node: "Node") -> None:
        self._node = node

    def collect(self) -> Iterator[Metric]:
        """Every sample, as it is now."""
        node = self._node
        for name, kind, text, read in _SAMPLES:
            yield metric_of(name, kind, text, [({}, float(read(node)))])
        for name, text, label, attribute in _PER_PEER:
            counts: dict[int, int] = getattr(node.peers, attribute)
            rows = [({label: f"{peer:x}"}, float(n)) for peer, n in sorted(counts.items())]
            yield metric_of(name, "counter", text, rows)
        alarms = node.applier.machine.alarms
        rows = [
            ({"alarm": kind.name}, float(sum(at.alarm == kind for at in alarms)))
            for kind in AlarmType
            if kind != AlarmType.NONE
        ]
        yield metric_of("kvstore_alarms", "gauge", "Alarms raised, of all members.", rows)
        version = {"server_version": VERSION, "kvstore_version": KVSTORE_VERSION}
        yield metric_of("etcd_server_version", "gauge", "This member's version.", [(version, 1.0)])
        cluster = {"cluster_version": node.applier.machine.cluster_version or CLUSTER_VERSION}
        yield metric_of("etcd_cluster_version", "gauge", "The cluster's version.", [(cluster, 1.0)])
        yield self._syncs()

    def _syncs(self) -> Metric:
        wal = self._node.wal
        buckets = []
        seen = 0
        for bound, count in zip(
            (*map(str, SYNC_SECONDS_BOUNDS), "+Inf"), wal.sync_counts, strict=True
        ):
            seen += count
            buckets.append((bound, float(seen)))
        return HistogramMetricFamily(
            "etcd_disk_wal_fsync_duration_seconds",
            "How long writing and syncing a batch of the log took.",
            buckets=buckets,
            sum_value=wal.sync_seconds,
        )


class Metrics:
    """All that /metrics shows."""

    def __init__(self, node: "Node") -> None:
        registry = self._registry = CollectorRegistry(auto_describe=False)
        registry.register(NodeCollector(node))
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

    def add_door(self, counts: DoorCounts) -> None:
        """Show what the front door counts as well."""
        self._registry.register(DoorCollector(counts))

    def render(self) -> bytes:
        """Everything as Prometheus text."""
        return generate_latest(self._registry)
