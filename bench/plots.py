"""What do the figures look like? Each drawn as SVG, the same bytes each time.

Only here is matplotlib needed: it is imported when something is drawn.
"""

from __future__ import annotations

import importlib.util
import io
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from bench.figures import BenchError, Figure, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

PLOTS_DIR: Final = Path(__file__).parent / "plots"

# Each is told from white and from a dark page: the contrast to both is at least 3.
INK: Final = "#767676"
COLOURS: Final = {
    "kvstore": "#2f81f7",
    "etcd": "#d9730d",
    "redis": "#c93c5c",
    "pysyncobj": "#2d9d5c",
}
OTHER_COLOURS: Final = ("#8a63d2", "#1a98a6", "#a37b00", "#b35a9c")
STYLES: Final = ("solid", "dashed", "dotted", "dashdot")
MARKED_POINTS_MAX: Final = 30
"""A longer line shows its form by itself."""
TICKED_POINTS_MAX: Final = 8
GROUPS_MAX: Final = 100
"""Of neighbours on a long line; of each the lowest and the highest are drawn."""
_SIZE_INCHES: Final = (7.2, 4.0)
_PATH: Final = re.compile(r' d="[^"]*"')
_NUMBER: Final = re.compile(r"-?\d+\.\d+")


def can_draw() -> bool:
    """Whether matplotlib is installed here."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_all(figures: Iterable[Figure], plots_dir: Path = PLOTS_DIR) -> list[Path]:
    """Draw each to ``<name>.svg``; returns where.

    Raises:
        BenchError: matplotlib is not installed here, or two figures have one name.
    """
    plots_dir.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for figure in figures:
        path = plots_dir / f"{figure.name}.svg"
        if path in paths:
            raise BenchError(f"two figures have the name {figure.name!r}: rename one")
        path.write_bytes(draw(figure))
        paths.append(path)
    return paths


def draw(figure: Figure) -> bytes:
    """One picture as SVG.

    Raises:
        BenchError: matplotlib is not installed here.
    """
    if not can_draw():
        raise BenchError("matplotlib is not installed here: make bench has it in .make/bench")
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    settings = mpl.rc_context(
        {
            # Text stays text: small, and it can be searched and read aloud.
            "svg.fonttype": "none",
            # Ids come from this and not from chance.
            "svg.hashsalt": figure.name,
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
            "path.simplify_threshold": 0.5,
        }
    )
    with settings:
        canvas = Canvas(figsize=_SIZE_INCHES, layout="constrained")
        axes = canvas.add_subplot()
        seen: dict[str, int] = {}
        for series in map(thin, figure.series):
            who = owner(series.name)
            seen[who] = seen.get(who, -1) + 1
            _draw_series(axes, series, colour(series.name), STYLES[seen[who] % len(STYLES)])
        _dress(axes, figure)
        drawn = io.BytesIO()
        canvas.savefig(
            drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    return _round_paths(drawn.getvalue().decode()).encode()


def owner(name: str) -> str:
    """Whom a line is about: ``etcd`` of ``etcd, 10 k keys``."""
    return re.split(r"[\s,:(]", name.strip(), maxsplit=1)[0].lower()


def colour(name: str) -> str:
    """That of whom a line is about: the same in all pictures."""
    who = owner(name)
    return COLOURS.get(who) or OTHER_COLOURS[zlib.crc32(who.encode()) % len(OTHER_COLOURS)]


def tick(value: float) -> str:
    """A number beside an axis: ``250``, ``5 k``, ``1.5 M``."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g}"


def thin(series: Series) -> Series:
    """A line of few enough points for a small file, in which every peak and every dip is left."""
    size = -(-len(series.x) // GROUPS_MAX)
    if size <= 2:
        return series
    kept = []
    for first in range(0, len(series.x), size):
        group = range(first, min(first + size, len(series.x)))
        lowest = min(group, key=(series.y_low or series.y).__getitem__)
        highest = max(group, key=(series.y_high or series.y).__getitem__)
        kept += sorted({lowest, highest})
    return msgspec.structs.replace(
        series,
        x=[series.x[index] for index in kept],
        y=[series.y[index] for index in kept],
        y_low=[series.y_low[index] for index in kept] if series.y_low else [],
        y_high=[series.y_high[index] for index in kept] if series.y_high else [],
    )


def _draw_series(axes: Axes, series: Series, ink: str, style: str) -> None:
    marker = "o" if len(series.x) <= MARKED_POINTS_MAX else ""
    axes.plot(
        series.x,
        series.y,
        color=ink,
        linestyle=style,
        linewidth=1.8,
        marker=marker,
        markersize=4,
        label=series.name,
    )
    if series.y_low and series.y_high:
        axes.fill_between(series.x, series.y_low, series.y_high, color=ink, alpha=0.2, linewidth=0)


def _dress(axes: Axes, figure: Figure) -> None:
    """Scales, ticks, labels and the legend, in an ink for white and for dark pages."""
    if figure.x_log:
        axes.set_xscale("log")
    if figure.y_log:
        axes.set_yscale("log")
    values = [value for series in figure.series for value in (*series.y, *series.y_low)]
    if not figure.y_log and min(values, default=0) >= 0:
        axes.set_ylim(bottom=0)  # A cut axis makes small differences look large.
    points = sorted({x for series in figure.series for x in series.x})
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: tick(value))
        axis.set_minor_formatter(lambda _value, _position: "")
    if figure.x_log and len(points) <= TICKED_POINTS_MAX:
        _set_ticks(axes.xaxis, points)
    axes.set_title(figure.title, color=INK, fontsize=11)
    axes.set_xlabel(figure.x_label, color=INK)
    axes.set_ylabel(figure.y_label, color=INK)
    axes.tick_params(which="both", colors=INK)
    axes.grid(visible=True, color=INK, alpha=0.25, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_color(INK)
        spine.set_visible(side in ("left", "bottom"))
    if figure.series:
        axes.legend(frameon=False, labelcolor=INK, fontsize=9)


def _set_ticks(axis: Axis, points: list[float]) -> None:
    axis.set_ticks(points)
    axis.set_ticks([], minor=True)


def _round_paths(svg: str) -> str:
    """Cut coordinates to a hundredth of a point: nobody sees more, and it halves the file."""

    def rounded(number: re.Match[str]) -> str:
        return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")

    return _PATH.sub(lambda path: _NUMBER.sub(rounded, path[0]), svg)
