"""Compaction by itself: the rules alone, and on whole members."""

import asyncio

import pytest

from kvstore.config import ServerConfig
from kvstore.config_values import Retention
from kvstore.errors import ConfigError
from kvstore.server.auto_compaction import (
    REVISION_INTERVAL_SECONDS,
    PeriodicRule,
    RevisionRule,
    Rule,
    new_rule,
)
from kvstore.types import CompactionRequest
from tests.support.cluster import Cluster
from tests.support.scenario import scenario

HOUR = 3600.0


def compactions(
    rule: Rule, seconds: float, step: float, *, leads_from: float = 0.0
) -> list[tuple[float, int]]:
    """When a rule compacts and where, while the revision is the number of seconds passed."""
    found = []
    now = 0.0
    while now <= seconds:
        revision = rule.due(now, 1 + int(now), leads=now >= leads_from)
        if revision is not None:
            found.append((now, revision))
            rule.compacted(now, revision)
        now += step
    return found


def test_a_period_of_minutes_is_compacted_once_a_period():
    found = compactions(PeriodicRule(600.0, 0.0), 2400, 60)
    assert [when for when, _ in found] == [600, 1200, 1800, 2400]
    for when, revision in found:
        assert 600 <= when + 1 - revision <= 660, "history of another length is kept"


def test_a_period_of_days_is_compacted_every_hour_once_it_is_over():
    found = compactions(PeriodicRule(24 * HOUR, 0.0), 27 * HOUR, 360)
    assert [when / HOUR for when, _ in found] == [24, 25, 26, 27]
    for when, revision in found:
        assert 24 * HOUR <= when + 1 - revision <= 24 * HOUR + 360


def test_a_follower_that_comes_to_lead_compacts_what_is_old_already():
    found = compactions(PeriodicRule(600.0, 0.0), 1000, 60, leads_from=900)
    assert found == [(900, 900 - 660 + 1)]


def test_nothing_written_means_nothing_to_compact_again():
    rule = PeriodicRule(10.0, 0.0)
    found = []
    for now in range(100):
        revision = rule.due(float(now), 7, leads=True)
        if revision is not None:
            found.append(revision)
            rule.compacted(float(now), revision)
    assert found == [7]


def test_a_compaction_that_failed_is_due_again_at_the_next_sample():
    rule = PeriodicRule(600.0, 0.0)
    due = [now for now in range(0, 800, 60) if rule.due(float(now), 1 + now, leads=True)]
    assert due == [600, 660, 720, 780]


def test_so_many_revisions_are_kept_and_looked_at_every_five_minutes():
    assert compactions(RevisionRule(100, 0.0), 1000, 10) == [(300, 201), (600, 501), (900, 801)]
    assert compactions(RevisionRule(5000, 0.0), 1000, 10) == []
    assert compactions(RevisionRule(100, 0.0), 1000, 10, leads_from=500) == [(600, 501), (900, 801)]


@pytest.mark.parametrize(
    ("mode", "text", "retention"),
    [
        ("periodic", "0", Retention()),
        ("periodic", "72", Retention(seconds=72 * HOUR)),
        ("periodic", "1.5h", Retention(seconds=1.5 * HOUR)),
        ("periodic", "1h30m", Retention(seconds=1.5 * HOUR)),
        ("periodic", "500ms", Retention(seconds=0.5)),
        ("revision", "0", Retention()),
        ("revision", "1000", Retention(revisions=1000)),
    ],
)
def test_retention_is_written_as_in_etcd(mode: str, text: str, retention: Retention) -> None:
    config = ServerConfig(auto_compaction_mode=mode, auto_compaction_retention=text)
    assert config.retention == retention
    assert (new_rule(retention, 0.0) is None) == (text == "0")


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("periodic", ""),
        ("periodic", "-1"),
        ("periodic", "-1h"),
        ("periodic", "3d"),
        ("periodic", "9999999999"),
        ("revision", "10m"),
        ("revision", "-5"),
        ("revision", "9" * 30),
        ("hourly", "1"),
    ],
)
def test_a_retention_that_means_nothing_is_refused_by_its_flag(mode: str, text: str) -> None:
    with pytest.raises(ConfigError, match="--auto-compaction-"):
        ServerConfig(auto_compaction_mode=mode, auto_compaction_retention=text)


def compacted(cluster: Cluster) -> list[int]:
    return [host.machine.store.compacted_revision for host in cluster.up]


@scenario(1, 2, auto_compaction_retention="10s")
async def test_periodic_compaction_goes_on_through_a_change_of_leader(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    for number in range(20):
        await leader.put(b"k", b"%d" % number)
    written = leader.machine.store.revision
    await asyncio.sleep(8.0)
    assert max(compacted(cluster)) < written
    leader.crash()
    new = await cluster.wait_leader(other_than=leader)
    await cluster.wait(lambda: compacted(cluster) == [written, written], seconds_max=25.0)
    assert new.node.upkeep.auto_compaction.compactions_total >= 1
    for number in range(20):
        await new.put(b"k", b"%d" % number)
    await cluster.wait(lambda: compacted(cluster) == [written + 20] * 2, seconds_max=30.0)
    assert new.node.upkeep.auto_compaction.failures_total == 0
    await leader.start()
    await cluster.wait_equal()


@scenario(1, auto_compaction_mode="revision", auto_compaction_retention="5")
async def test_revision_compaction_keeps_so_many_revisions(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    for number in range(20):
        await leader.put(b"k", b"%d" % number)
    await asyncio.sleep(REVISION_INTERVAL_SECONDS + 1.0)
    await cluster.wait(lambda: compacted(cluster) == [16, 16, 16])
    assert (await leader.range(b"k", revision=16)).kvs
    assert leader.node.upkeep.auto_compaction.compactions_total == 1


@scenario(1, auto_compaction_retention="2s")
async def test_what_somebody_else_compacted_counts_as_compacted(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    await leader.put(b"k", b"v")
    await leader.call("compact", CompactionRequest(leader.machine.store.revision))
    await asyncio.sleep(6.0)
    auto = leader.node.upkeep.auto_compaction
    assert auto.failures_total == 0
    assert auto.compactions_total >= 1
