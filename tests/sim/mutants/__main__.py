"""``python -m tests.sim.mutants``: are planted bugs found, and by nothing less?"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context

import click

from tests.sim.mutants.catalog import MUTANTS, find
from tests.sim.mutants.hunt import hunt_one
from tests.sim.mutants.survive import survive
from tests.sim.profile import PROFILES


@click.group()
def main() -> None:
    """Plant bugs in the product."""


@main.command()
def names() -> None:
    """List them."""
    for mutant in MUTANTS:
        click.echo(f"{mutant.name} ({mutant.checker})\n    {mutant.wrong}\n    {mutant.source}")
        if mutant.blunt:
            click.echo(f"    plainer, and found by the unit tests: {mutant.blunt}")


@main.command(name="hunt")
@click.argument("chosen", nargs=-1)
@click.option("--seeds", default=60, show_default=True, help="How many at most, for each.")
@click.option("--from", "first", default=1, show_default=True, help="The first one.")
@click.option("--profile", default="default", type=click.Choice(list(PROFILES)))
@click.option("--processes", default=2, show_default=True, help="Bugs hunted at a time.")
def hunt_all(chosen: tuple[str, ...], seeds: int, first: int, profile: str, processes: int) -> None:
    """Run seeds until the checker that is meant to finds each bug."""
    names = chosen or tuple(mutant.name for mutant in MUTANTS)
    # Let a name that is none be said before anything runs.
    mutants = [find(name) for name in names]
    begun, missed = time.monotonic(), 0
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        rows = pool.map(hunt_one, names, repeat(profile), repeat(range(first, first + seeds)))
        for number, row in enumerate(rows, 1):
            click.echo(f"{number:>3}/{len(mutants)} {time.monotonic() - begun:>6.0f} s  {row.text}")
            click.echo(f"    {row.evidence}", err=True)
            missed += not row.found
    click.echo(f"{missed} not found by the checker that is meant to")
    sys.exit(missed > 0)


@main.command(name="survive")
@click.argument("chosen", nargs=-1)
def survive_all(chosen: tuple[str, ...]) -> None:
    """Run the unit tests with each bug: they pass."""
    killed = 0
    for survival in survive([find(name) for name in chosen] or list(MUTANTS)):
        click.echo(survival.row())
        killed += bool(survival.killed_by)
    click.echo(f"{killed} found by the unit tests")
    sys.exit(killed > 0)


if __name__ == "__main__":
    main()
