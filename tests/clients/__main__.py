"""``python -m tests.clients``: build etcd's own client in Go, and let it use three nodes of ours.

Building takes minutes where nothing was built before, so it is no part of the default run.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import click

from tests.e2e.cluster import Cluster

SOURCE: Final = Path(__file__).with_name("go")
STEPS: Final = 10
CLIENT_SECONDS: Final = 300


@click.command()
def main() -> None:
    """Put, read, watch, lock and lead by go.etcd.io/etcd/client/v3."""
    go = shutil.which("go")
    if go is None:
        raise click.ClickException("go is not installed: see https://go.dev/doc/install")
    with tempfile.TemporaryDirectory(prefix="client-go") as directory:
        program = Path(directory, "client")
        click.echo("building the client; the first time takes minutes")
        subprocess.run([go, "build", "-o", program, "."], cwd=SOURCE, check=True)
        cluster = Cluster(Path(directory, "cluster"))
        try:
            cluster.start()
            cluster.leader()
            endpoints = ",".join(url.partition("//")[2] for url in cluster.urls)
            done = subprocess.run(
                [program, endpoints],
                stdout=subprocess.PIPE,
                text=True,
                timeout=CLIENT_SECONDS,
                check=False,
            )
        finally:
            cluster.close()
    steps = done.stdout.splitlines()
    click.echo("\n".join(f"ok: {step}" for step in steps))
    sys.exit(done.returncode or len(steps) != STEPS)


if __name__ == "__main__":
    main()
