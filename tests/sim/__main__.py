"""``python -m tests.sim``: runs seeds, and replays one."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tests.sim import schedule
from tests.sim.profile import PROFILES
from tests.sim.run import Report, run


@click.group()
def main() -> None:
    """Run whole clusters in virtual time, from seeds."""


@main.command()
@click.option("--seeds", default=20, show_default=True, help="How many.")
@click.option("--from", "first", default=1, show_default=True, help="The first one.")
@click.option("--profile", default="default", type=click.Choice(list(PROFILES)))
def seeds(seeds: int, first: int, profile: str) -> None:
    """Run many seeds, one after the other."""
    failed = False
    for seed in range(first, first + seeds):
        report = run(seed, PROFILES[profile])
        verdict = f"FAILED: {report.violation}" if report.violation else "ok"
        click.echo(
            f"seed {seed}: {verdict}; {report.faults_done} faults, "
            f"{len(report.history.operations)} calls, {report.virtual_seconds:.0f} virtual s in "
            f"{report.real_seconds:.1f} s, {report.digest}"
        )
        failed |= report.violation is not None
    sys.exit(failed)


@main.command()
@click.argument("seed", type=int)
@click.option("--profile", default="default", type=click.Choice(list(PROFILES)))
@click.option(
    "--faults", type=click.Path(exists=True, path_type=Path), help="Another schedule, as JSON."
)
@click.option("--messages", is_flag=True, help="Show every message too.")
def replay(seed: int, profile: str, faults: Path | None, messages: bool) -> None:
    """Run one seed again, and show all that happens."""
    chosen = schedule.decode(faults.read_text()) if faults else None
    report = run(seed, PROFILES[profile], chosen, messages=messages)
    click.echo(report.trace)
    _explain(report)


def _explain(report: Report) -> None:
    click.echo(schedule.encode(report.faults))
    click.echo(f"digest {report.digest}")
    if report.violation:
        raise report.violation


main()
