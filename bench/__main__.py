"""``python -m bench``: start both clusters, load them in turns, print and write the table."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

import click

from bench import grpc_load, report
from bench.figures import BenchError
from bench.load import Run, run, wrk
from bench.report import Case
from bench.systems import System, etcd, ours
from kvstore.errors import KvstoreError

HERE: Final = Path(__file__).parent
WARM_SECONDS: Final = 1
GRPC_CONNECTIONS: Final = ((1, 1), (1, 64), (64, 1))
"""Connections, and streams on each."""


@click.command()
@click.option("--quick", is_flag=True, help="Two rounds of one second: a look, not a measurement.")
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option("--seconds", type=click.IntRange(1, 60), default=3, show_default=True)
@click.option("--connections", default="1,64,256", show_default=True, help="Separated by commas.")
@click.option("--only", type=click.Choice(["kvstore", "etcd"]), help="Load one of the two.")
@click.option("--match", default="", help="Only loads whose title contains this: gRPC put.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=HERE / "RESULTS.md",
    help="Where to write the table (not with --quick, --only or --match).",
)
def main(
    rounds: int,
    seconds: int,
    connections: str,
    only: str | None,
    match: str,
    output: Path,
    *,
    quick: bool,
) -> None:
    """Compare kvstore with the etcd that is installed."""
    if quick:
        rounds, seconds = 2, 1
    wrk()
    grpc_load.h2load()
    systems = _systems(only)
    cases = [
        Case(call, count)
        for call in ("put", "get")
        for count in (int(part) for part in connections.split(","))
    ]
    cases += [Case(call, *each) for call in ("put", "get") for each in GRPC_CONNECTIONS]
    cases = [case for case in cases if match in case.title]
    signal.signal(signal.SIGTERM, _interrupt)
    # Beside the sources and not in /tmp, which may be memory: a sync must reach a disk.
    raw = HERE / ".run"
    raw.mkdir(parents=True, exist_ok=True)
    base_dir = Path(tempfile.mkdtemp(prefix="run-", dir=raw))
    try:
        results = _measure(systems, base_dir, cases, rounds, seconds)
    finally:
        for system in systems:
            system.stop()
        shutil.rmtree(base_dir, ignore_errors=True)
    names = [system.name for system in systems]
    lines = report.table(results, names)
    print("\n" + "\n".join(lines))
    if not (quick or only or match):
        versions = [system.version for system in systems]
        output.write_text(report.document(lines, versions, rounds, seconds))
        print(f"\nwritten to {os.path.relpath(output)}")


def _systems(only: str | None) -> list[System]:
    systems = [ours()] if only != "etcd" else []
    if only != "kvstore":
        other = etcd()
        if other is not None:
            systems.append(other)
        elif only:
            raise BenchError("etcd is not installed: apt-get install etcd-server")
        else:
            print("etcd is not installed (apt-get install etcd-server): kvstore alone")
    return systems


def _measure(
    systems: Sequence[System], base_dir: Path, cases: Sequence[Case], rounds: int, seconds: int
) -> dict[Case, dict[str, list[Run]]]:
    for system in systems:
        print(f"starting {system.version}, three nodes", flush=True)
        system.start(base_dir)
        system.fill()
        for call in ("put", "get"):
            run(system.leader_url(), call, 16, WARM_SECONDS, seed=0)
    results: dict[Case, dict[str, list[Run]]] = {case: defaultdict(list) for case in cases}
    for number in range(rounds):
        for case in cases:
            # Who begins alternates, so that neither always finds the disk as the other left it.
            for system in systems if number % 2 == 0 else list(reversed(systems)):
                url = system.leader_url()
                found = _load(url, case, seconds, seed=number)
                results[case][system.name].append(found)
                errors = f", {found.errors} errors" if found.errors else ""
                print(
                    f"round {number + 1}: {system.name}: {case.title}: {found.rate:,.0f}/s, "
                    f"p50 {found.p50_us / 1000:.2f} ms, p99 {found.p99_us / 1000:.2f} ms{errors}",
                    flush=True,
                )
    return results


def _load(url: str, case: Case, seconds: int, seed: int) -> Run:
    if case.streams:
        return grpc_load.run(url, case.call, case.connections, case.streams, seconds)
    return run(url, case.call, case.connections, seconds, seed)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End as by Ctrl-C, so that the clusters are stopped."""
    del number, frame
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        main()
    except KvstoreError as failure:
        print(f"error: {failure}", file=sys.stderr)
        sys.exit(1)
