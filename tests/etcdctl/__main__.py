"""``python -m tests.etcdctl``: every subcommand, in every setting; with ``--perf`` under load."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import click

from tests.etcdctl.comparison import SETTINGS, Setting, compare
from tests.etcdctl.story import Story
from tests.etcdctl.systems import ETCD, System
from tests.etcdctl.tool import ETCDCTL, Tool

PERF_SECONDS = 150.0


@click.command()
@click.option("--perf", is_flag=True, help="Also `check perf` and `check datascale` at load s.")
@click.option("--only", "only", default="", help="Settings whose words contain this.")
def main(only: str, *, perf: bool) -> None:
    """Let etcdctl say of kvstore what it says of etcd."""
    if ETCDCTL is None:
        raise click.ClickException("etcdctl is not installed: apt-get install etcd-client")
    if ETCD is None:
        click.echo("etcd is not installed (apt-get install etcd-server): nothing is compared")
    failed = 0
    for setting in SETTINGS:
        if only in str(setting):
            failed += _one(setting)
    if perf:
        failed += _perf()
    sys.exit(failed > 0)


def _one(setting: Setting) -> bool:
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="etcdctl") as directory:
        found = compare(setting, Path(directory))
    verdict = f"{len(found)} differences" if found else "the same"
    click.echo(f"{setting}: {verdict}, {time.monotonic() - begun:.0f} s")
    for words in found:
        click.echo(words)
    return bool(found)


def _perf() -> bool:
    """Both load tests of etcdctl, against three nodes of ours."""
    with tempfile.TemporaryDirectory(prefix="etcdctl") as directory:
        system = System("kvstore", Path(directory), 3)
        try:
            system.start()
            tool = Tool(system)
            Story(tool).wait_ready()
            failed = False
            for what in ("perf", "datascale"):
                said = tool.run("check", what, "--load=s", seconds=PERF_SECONDS)
                click.echo("\n".join(line for line in said.out.splitlines() if ":" in line))
                failed |= said.code != 0
            return failed
        finally:
            system.close()


if __name__ == "__main__":
    main()
