"""Clusters of real processes as fixtures; when a test fails, the ends of its nodes' logs show."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster import Cluster

_clusters = pytest.StashKey[list[Cluster]]()

_figures = pytest.StashKey[list[str]]()

ClusterMaker = Callable[..., Cluster]
FigureMaker = Callable[[str], None]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the logs to the report of a failure, before teardown removes the nodes."""
    report = yield
    if report.failed:
        for cluster in item.stash.get(_clusters, []):
            for name, log in cluster.logs():
                report.sections.append((f"log of {name}", log))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints what the tests counted: a verdict alone does not say how much was tried."""
    figures = terminalreporter.config.stash.get(_figures, [])
    if figures:
        terminalreporter.section("figures of the real processes")
        for line in figures:
            terminalreporter.write_line(line)


@pytest.fixture
def figure(pytestconfig: pytest.Config) -> FigureMaker:
    """Keeps a line for the end of the run."""
    return pytestconfig.stash.setdefault(_figures, []).append


@pytest.fixture
def new_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ClusterMaker]:
    """Makes clusters that run and are ended with the test; arguments as for ``Cluster``."""
    made: list[Cluster] = []
    request.node.stash[_clusters] = made

    def make(**arguments: Any) -> Cluster:
        cluster = Cluster(tmp_path / f"cluster{len(made) + 1}", **arguments)
        made.append(cluster)
        cluster.start()
        return cluster

    yield make
    for cluster in made:
        cluster.close()


@pytest.fixture
def cluster(new_cluster: ClusterMaker) -> Cluster:
    """Three members with default settings, for one test."""
    return new_cluster()


@pytest.fixture(scope="session")
def calm_cluster_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three members for all tests that leave them running as they are."""
    cluster = Cluster(tmp_path_factory.mktemp("calm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def calm_cluster(request: pytest.FixtureRequest, calm_cluster_of_session: Cluster) -> Cluster:
    """The cluster of many tests: not to be hurt, and each test uses keys of its own."""
    request.node.stash[_clusters] = [calm_cluster_of_session]
    return calm_cluster_of_session
