"""``python -m tests.sim``: runs seeds, replays one, makes a failure smaller."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tests.sim import schedule
from tests.sim.campaign import REPORT_DIRECTORY, conduct
from tests.sim.minimise import minimise
from tests.sim.profile import PROFILES
from tests.sim.run import Report, run
from tests.sim.timeline import draw_timeline

PROFILE = click.option(
    "--profile", default="default", show_default=True, type=click.Choice(list(PROFILES))
)


@click.group()
def main() -> None:
    """Run whole clusters in virtual time, from seeds."""


@main.command("run")
@click.option("--seeds", default=1_000_000, help="How many of each profile.")
@click.option("--minutes", default=3.0, show_default=True, help="No run begins later than this.")
@click.option("--from", "first", default=1, show_default=True, help="The first seed.")
@click.option("--profile", default="all", type=click.Choice(["all", *PROFILES]), show_default=True)
@click.option("--processes", default=2, show_default=True, help="How many at once.")
def run_many(seeds: int, minutes: float, first: int, profile: str, processes: int) -> None:
    """Run many seeds, and report what they came to."""
    campaign = conduct(
        list(PROFILES) if profile == "all" else [profile],
        seeds=seeds,
        first=first,
        seconds_max=60 * minutes,
        processes=processes,
        progress=lambda line: click.echo(line, err=True),
    )
    for line in campaign.lines():
        click.echo(line)
    click.echo(f"written to {campaign.save()}")
    sys.exit(bool(campaign.failures))


@main.command()
@click.argument("seed", type=int)
@PROFILE
@click.option("--faults", type=click.Path(exists=True, path_type=Path), help="Another schedule.")
@click.option("--messages", is_flag=True, help="Show every message too.")
@click.option("--picture", type=click.Path(path_type=Path), help="Draw it into this HTML file.")
def replay(
    seed: int, profile: str, faults: Path | None, messages: bool, picture: Path | None
) -> None:
    """Run one seed again, and show all that happens."""
    chosen = schedule.decode(faults.read_text()) if faults else None
    report = run(seed, PROFILES[profile], chosen, messages=messages or picture is not None)
    if picture is None:
        click.echo(report.trace, nl=False)
    else:
        picture.write_text(draw_timeline(report))
        click.echo(f"drawn in {picture}")
    _explain(report)


@main.command("minimise")
@click.argument("seed", type=int)
@PROFILE
@click.option("--seconds", default=300.0, show_default=True, help="How long to try.")
def make_smaller(seed: int, profile: str, seconds: float) -> None:
    """Find fewer faults that break the same promise."""
    smaller = minimise(
        seed,
        PROFILES[profile],
        seconds_max=seconds,
        progress=lambda line: click.echo(line, err=True),
    )
    if smaller is None:
        click.echo("this seed does not fail")
        return
    REPORT_DIRECTORY.mkdir(parents=True, exist_ok=True)
    path = REPORT_DIRECTORY / f"{profile}-{seed}.json"
    path.write_text(schedule.encode(smaller.report.faults))
    click.echo(
        f"{len(smaller.report.faults)} faults are left, after {smaller.runs} runs; replay:\n"
        f"{sys.executable} -m tests.sim replay --profile {profile} {seed} --faults {path}"
    )
    _explain(smaller.report)


def _explain(report: Report) -> None:
    click.echo(f"faults: {schedule.encode(report.faults)}")
    click.echo(f"digest: {report.digest}")
    if report.violation is not None:
        click.echo(f"FAILED: {report.violation}", err=True)
        sys.exit(1)
    click.echo("no promise was broken")


if __name__ == "__main__":
    main()
