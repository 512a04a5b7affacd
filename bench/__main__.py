"""``python -m bench``: measure part by part beside etcd, keep what is found, and write the page."""

from __future__ import annotations

import importlib
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

import click

from bench import plots, report
from bench.figures import BenchError, Section, load, save
from bench.parts import Options, say
from kvstore.errors import KvstoreError

HERE: Final = Path(__file__).parent
PAGE: Final = HERE / "RESULTS.md"
PARTS: Final = {
    "throughput": "calls a second over HTTP/JSON and gRPC, at 1 to 256 connections",
    "relayed": "puts a second with 2 ms between the nodes",
    "latency": "how long puts take at a fixed rate (open loop)",
    "watch": "events a second to 1,000 watchers, their delay and what they cost",
    "leases": "keep-alives a second of 10,000 leases",
    "memory": "a million keys: memory, restart, stalls while a snapshot is taken",
    "revisions": "ten million revisions with compaction: is memory flat?",
    "curves": "what a put costs as keys, watchers, leases and connections grow",
    "failover": "from the kill of the leader to the next write",
    "startup": "how fast a node is ready, and the command line answers",
    "peers": "Redis and PySyncObj as yardsticks, and what they do not promise",
    "account": "where a put's CPU time goes, by stage, on leader and follower",
    "scaling": "more cores for one node: front workers (a prototype) and a model",
}
SELECTIVE: Final = ("throughput", "relayed")
"""Parts of many loads, of which one may choose."""

QUICK_ROUNDS: Final = 1
QUICK_SECONDS: Final = 1


@click.command(
    epilog="All parts with their defaults take an hour or more; with --quick, three minutes. "
    "Needs wrk, h2load and Go, and etcd and Redis to compare with (.ci/packages.txt names them)."
)
@click.argument("parts", nargs=-1, metavar="[PART]...")
@click.option("--quick", is_flag=True, help="A look, not a measurement: writes nothing.")
@click.option(
    "--rounds",
    type=click.IntRange(1, 100),
    default=5,
    show_default=True,
    help="How often the systems take turns.",
)
@click.option(
    "--seconds",
    type=click.IntRange(1, 60),
    default=3,
    show_default=True,
    help="How long each turn of a steady load lasts.",
)
@click.option(
    "--only",
    type=click.Choice(["kvstore", "etcd"]),
    help=f"Load one of the two ({', '.join(SELECTIVE)}); writes nothing.",
)
@click.option(
    "--match",
    default="",
    help=f"Only loads whose title contains this ({', '.join(SELECTIVE)}): gRPC put. "
    "Writes nothing.",
)
@click.option("--page", is_flag=True, help="Measure nothing: write page and pictures anew.")
@click.option("--list", "list_parts", is_flag=True, help="Name the parts and end.")
def main(
    parts: tuple[str, ...],
    rounds: int,
    seconds: int,
    only: str | None,
    match: str,
    *,
    quick: bool,
    page: bool,
    list_parts: bool,
) -> None:
    """Compare kvstore with the etcd that is installed: all PARTs, or those that are named."""
    if list_parts:
        for name, title in PARTS.items():
            print(f"{name:<12} {title}")
        return
    if page:
        write_page()
        return
    chosen = _choose(parts, selective=bool(only or match))
    options = Options(
        rounds=QUICK_ROUNDS if quick else rounds,
        seconds=QUICK_SECONDS if quick else seconds,
        quick=quick,
    )
    keep = not (quick or only or match)
    signal.signal(signal.SIGTERM, _interrupt)
    failed = []
    for name in chosen:
        say(f"== {name}: {PARTS[name]}")
        started_at = time.monotonic()
        failure = _measure(name, options, only or "", match, keep=keep)
        if failure:
            failed.append(name)
            print(f"error: {name}: {failure}", file=sys.stderr, flush=True)
        say(f"   {name} took {time.monotonic() - started_at:.0f} s\n")
    if keep and len(failed) < len(chosen):
        write_page()
    if failed:
        raise BenchError(f"failed (see above): {', '.join(failed)}; all else is done")


def _choose(names: Sequence[str], *, selective: bool) -> list[str]:
    """The parts to measure, in the order of the page."""
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise click.UsageError(f"no part {', '.join(unknown)}; there are: {', '.join(PARTS)}")
    if selective and not set(names) <= set(SELECTIVE):
        raise click.UsageError(f"--only and --match are for {' and '.join(SELECTIVE)}")
    default = SELECTIVE[:1] if selective else PARTS
    return [name for name in PARTS if name in (names or default)]


def _measure(name: str, options: Options, only: str, match: str, *, keep: bool) -> str:
    """Measure one part, show it and keep it; returns what went wrong, if something did.

    Whatever it is: hours of other parts must not be lost with this one.
    """
    # Beside the sources and not in /tmp, which may be memory: a sync must reach a disk.
    raw = HERE / ".run"
    raw.mkdir(parents=True, exist_ok=True)
    base_dir = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=raw))
    try:
        module = importlib.import_module(f"bench.parts.{name}")
        choice = {"only": only, "match": match} if name in SELECTIVE else {}
        section: Section = module.measure(options, base_dir, **choice)
        if section.part != name:
            return f"it calls itself {section.part!r}"
        print("\n" + "\n".join([*report.chapter(section), *report.summary([section])]), flush=True)
        if keep:
            save(section)
    except KvstoreError as error:
        return str(error)
    except Exception:  # noqa: BLE001
        return traceback.format_exc()
    finally:
        shutil.rmtree(base_dir, ignore_errors=True)
    return ""


def write_page() -> None:
    """Write RESULTS.md and draw the pictures from everything that has been kept.

    Raises:
        BenchError: Nothing has, or a file of it cannot be read.
    """
    found = {name: load(name) for name in PARTS}
    sections = [section for section in found.values() if section is not None]
    if not sections:
        raise BenchError("nothing has been measured yet: run make bench")
    missing = [name for name, section in found.items() if section is None]
    PAGE.write_text(report.page(sections, missing))
    say(f"written: {PAGE.relative_to(HERE.parent)}")
    if not plots.can_draw():
        say("no matplotlib here: the pictures were not drawn (make bench ARGS=--page does)")
        return
    drawn = plots.draw_all(figure for section in sections for figure in section.figures)
    say(f"drawn: {len(drawn)} pictures in {plots.PLOTS_DIR.relative_to(HERE.parent)}")


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
