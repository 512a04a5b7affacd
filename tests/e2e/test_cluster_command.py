"""``kvstore cluster`` and every command that the README and the pages for operators show."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import free_ports
from tests.e2e.commands import Foreground, kvstore, log_is_clean
from tests.e2e.processes import environment

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.executable).parent
SHOWN_PORTS = ("2379", "22379", "32379")
BLOCK_SECONDS = 60.0
LAST_WORDS_AT_START = "Ctrl-C stops all nodes."

# Without it a command that gets an error would look as if it had worked.
CURL = 'curl() { command curl --silent --show-error --fail-with-body "$@"; }\n'

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


class LocalCluster:
    """``kvstore cluster`` on free ports, its data in a directory."""

    def __init__(self, directory: Path) -> None:
        ports = list(map(str, free_ports(6)))
        self.ports = ports[:3]
        self.base_dir = directory / "data"
        self._arguments = (
            "cluster",
            f"--base-dir={self.base_dir}",
            f"--client-ports={','.join(ports[:3])}",
            f"--peer-ports={','.join(ports[3:])}",
        )
        self._output = directory / "output"
        self.command: Foreground | None = None

    def start(self) -> Foreground:
        """Start it and wait until it says that it is ready."""
        self.command = Foreground(self._arguments, self._output)
        self.command.wait_output(LAST_WORDS_AT_START)
        return self.command

    def data_dirs(self) -> list[Path]:
        """Where its nodes keep their data."""
        return [self.base_dir / f"node{number}" for number in (1, 2, 3)]


@pytest.fixture
def local_cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    cluster = LocalCluster(tmp_path)
    yield cluster
    if cluster.command is not None:
        cluster.command.discard()


def shell(script: str, ports: list[str]) -> str:
    """Run shell lines as somebody would who has activated the environment; returns the output."""
    for shown, real in zip(SHOWN_PORTS, ports, strict=True):
        script = re.sub(rf"\b{shown}\b", real, script)
    script = script.replace(".venv/bin/", f"{BIN}/")
    environ = environment()
    environ["PATH"] = f"{BIN}:{environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", CURL + script],
        capture_output=True,
        cwd=ROOT,
        env=environ,
        timeout=BLOCK_SECONDS,
        check=False,
    )
    words = f"{script}\n{done.stdout.decode(errors='replace')}\n{done.stderr.decode()}"
    assert done.returncode == 0, f"exit code {done.returncode} of:\n{words}"
    return done.stdout.decode(errors="replace")


def shell_blocks(page: str) -> list[str]:
    """The shell blocks of a page, but for the one that starts everything."""
    text = (ROOT / page).read_text()
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```$", text, flags=re.MULTILINE | re.DOTALL)
    assert blocks, f"{page} shows no commands"
    return [block for block in blocks if "make run" not in block]


def test_make_run_is_kvstore_cluster() -> None:
    # The other tests here start the command itself: `make` would add an environment, not a cluster.
    recipe = subprocess.run(
        ["make", "--dry-run", "run"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert recipe.rstrip().endswith("kvstore cluster")


@needs_curl
def test_a_cluster_in_one_command_works_ends_by_ctrl_c_and_finds_its_data_again(
    local_cluster: LocalCluster,
) -> None:
    command = local_cluster.start()
    printed = re.findall(r"^  (curl .*)$", command.output(), re.MULTILINE)
    assert len(printed) >= 4
    answers = [shell(line, local_cluster.ports) for line in printed]
    assert "host=db1" in answers
    assert any('"value":"aGVsbG8="' in answer for answer in answers)

    assert command.end(signal.SIGINT) == 0, command.output()
    assert "the data is kept" in command.output()
    assert all(log_is_clean(directory) for directory in local_cluster.data_dirs())

    again = local_cluster.start()
    for port in local_cluster.ports:
        found = kvstore("get", "config/db", "--print-value-only", f"--endpoints=127.0.0.1:{port}")
        assert (found.returncode, found.stdout) == (0, b"host=db1\n"), found.stderr
    assert again.end(signal.SIGTERM) == 0, again.output()
    assert all(log_is_clean(directory) for directory in local_cluster.data_dirs())


def test_the_readme_says_once_how_to_start_it() -> None:
    assert (ROOT / "README.md").read_text().count("\nmake run ") == 1


SHOWN = {
    "README.md": (
        "host=db1",
        '"value":"aGVsbG8="',
        '{"health":"true","reason":""}',
        "config/web/port\n8080\n",
        "granted with TTL(60s)",
        "one at a time",
        "SUCCESS\n\nOK\n",
        "is healthy: successfully committed proposal",
        "Authentication Enabled",
        "as it should be",
        "compacted revision",
        " equal, 0 different",
        Path("/etc/passwd").read_text(),
        "10.0.0.7:8080",
    ),
    "docs/operations.md": (
        "started, node1, ",
        "is healthy: successfully committed proposal",
        "Role reader\nKV Read:\n\t[config/, config0) (prefix config/)\nKV Write:\n",
        "Authentication Status: true",
        "Authentication Disabled",
        "Finished defragmenting",
        "Snapshot saved at ",
        "| HASH ",
        "as member ",
        "-0000000000000",
    ),
}


@needs_curl
@pytest.mark.parametrize("page", SHOWN)
def test_every_command_of_a_page_runs(local_cluster: LocalCluster, page: str) -> None:
    local_cluster.start()
    # In one shell: what a line exports the later ones have, as in a terminal.
    everything = shell("\n".join(shell_blocks(page)), local_cluster.ports)
    for shown in SHOWN[page]:
        assert shown in everything, f"{shown!r} in what the commands of {page} print:\n{everything}"


def test_a_command_that_fails_is_noticed() -> None:
    with pytest.raises(AssertionError, match="exit code 3"):
        shell("true\n(exit 3)\ntrue", list(SHOWN_PORTS))
