"""Do the container files say what the cluster needs? They are read here, not run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PEER_PORT = 2380
CLIENT_PORT = 2379


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def _dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_the_initial_cluster_names_every_service_and_is_equal_on_all(
    compose: dict[str, Any],
) -> None:
    # Member ids are derived from it: one node that reads another list would be another cluster.
    services = compose["services"]
    expected = ",".join(f"{name}=http://{name}:{PEER_PORT}" for name in sorted(services))
    assert len(services) == 3
    assert {s["environment"]["ETCD_INITIAL_CLUSTER"] for s in services.values()} == {expected}


def test_each_service_advertises_itself(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        environment = service["environment"]
        assert environment["ETCD_NAME"] == service["hostname"] == name
        assert environment["ETCD_ADVERTISE_CLIENT_URLS"] == f"http://{name}:{CLIENT_PORT}"
        assert environment["ETCD_INITIAL_ADVERTISE_PEER_URLS"] == f"http://{name}:{PEER_PORT}"


def test_each_service_keeps_its_data_on_a_volume_of_its_own(compose: dict[str, Any]) -> None:
    volumes = [volume for s in compose["services"].values() for volume in s["volumes"]]
    data_directory = re.search(r"^VOLUME (\S+)$", _dockerfile(), re.MULTILINE)
    assert data_directory is not None
    assert volumes == [f"{name}:{data_directory.group(1)}" for name in compose["volumes"]]
    for service in compose["services"].values():
        assert service["environment"]["ETCD_DATA_DIR"] == data_directory.group(1)


def test_clients_reach_each_node_on_loopback_at_the_ports_of_make_run(
    compose: dict[str, Any],
) -> None:
    ports = [port for s in compose["services"].values() for port in s["ports"]]
    assert ports == [f"127.0.0.1:{host}:{CLIENT_PORT}" for host in (2379, 22379, 32379)]


def test_the_image_is_built_from_files_that_exist_and_reach_the_builder() -> None:
    sources = re.findall(r"^COPY (?!--from)(.+) \S+$", _dockerfile(), re.MULTILINE)
    names = {name for line in sources for name in line.split()}
    admitted = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert names == admitted
    assert {name for name in names if not (ROOT / name).exists()} == set()


def test_the_image_runs_as_nobody_in_particular_and_watches_its_health() -> None:
    last_stage = _dockerfile().rpartition("\nFROM ")[2]
    assert re.search(r"^USER kvstore$", last_stage, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*\n?.*/health", last_stage, re.MULTILINE)
    assert 'ENTRYPOINT ["kvstore"]' in last_stage
