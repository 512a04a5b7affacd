"""What a measurement leaves behind: tables and pictures, kept as JSON beside the page they make.

One file a part (``bench/results/<part>.json``), so that one part can be measured again and the page
be written anew from all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from kvstore.errors import KvstoreError

RESULTS_DIR: Final = Path(__file__).parent / "results"


class BenchError(KvstoreError):
    """The comparison cannot be made; the message says why."""


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of text. The first column is aligned to the left, all others to the right."""

    header: list[str]
    rows: list[list[str]]
    caption: str = ""


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a picture: ``y[i]`` was seen at ``x[i]``."""

    name: str
    """Who was measured: ``kvstore``, ``etcd``. Each name has one colour in all pictures."""
    x: list[float]
    y: list[float]
    y_low: list[float] = []
    y_high: list[float] = []
    """Lowest and highest of the rounds at each ``x``; empty: there was one."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A picture, drawn to ``bench/plots/<name>.svg``."""

    name: str
    title: str
    x_label: str
    y_label: str
    """With its unit: ``puts/s``, ``memory, MB``."""
    series: list[Series]
    x_log: bool = False
    y_log: bool = False


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was to be reached, and what was: a row of the summary on top of the page."""

    what: str
    """The work and its size: ``put, 64 connections``."""
    wanted: str
    """``at least 4 times etcd``."""
    found: str
    """In the same terms: ``4.31 times``."""
    met: bool


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """All that one part of the benchmark found: a chapter of the page."""

    part: str
    """The name of the part and of its file: ``throughput``."""
    title: str
    text: str
    """Markdown: what was done and how, rounds and seconds, what a reader must know."""
    measured_on: str
    """The day (ISO 8601) and the versions of the systems."""
    machine: list[str]
    tables: list[Table]
    figures: list[Figure] = []
    goals: list[Goal] = []


def save(section: Section, results_dir: Path = RESULTS_DIR) -> Path:
    """Keep what a part found; returns where."""
    results_dir.mkdir(parents=True, exist_ok=True)
    path = results_dir / f"{section.part}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(section), indent=1) + b"\n")
    return path


def load(part: str, results_dir: Path = RESULTS_DIR) -> Section | None:
    """What a part found when it was measured last; None if it never was.

    Raises:
        BenchError: The file is not what ``save`` writes.
    """
    path = results_dir / f"{part}.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Section)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise BenchError(f"{path}: {error}: measure this part again") from error
