"""Are the pictures the same bytes each time, small, and true to the figures?"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from bench import plots
from bench.figures import BenchError, Figure, Series

PUTS = Figure(
    name="throughput-put",
    title="Puts against connections",
    x_label="connections",
    y_label="puts/s",
    x_log=True,
    series=[
        Series(
            name=name,
            x=[1.0, 4.0, 16.0, 64.0, 256.0],
            y=[most / 10, most / 5, most / 2, most, most],
            y_low=[most / 11, most / 6, most / 3, most * 0.9, most * 0.8],
            y_high=[most / 9, most / 4, most / 1.5, most * 1.1, most * 1.2],
        )
        for name, most in (("kvstore", 24_000.0), ("etcd", 7_000.0))
    ],
)
LONG = Figure(
    name="memory",
    title="Memory",
    x_label="time, s",
    y_label="memory, MB",
    y_log=True,
    series=[
        Series(
            name=name,
            x=[float(second) for second in range(5_000)],
            y=[100.0 + second * 37 % 101 for second in range(5_000)],
        )
        for name in ("kvstore", "etcd", "kvstore, compacted")
    ],
)


@pytest.mark.parametrize("figure", [PUTS, LONG], ids=lambda figure: figure.name)
def test_the_same_figures_give_the_same_bytes(figure: Figure) -> None:
    pytest.importorskip("matplotlib")
    drawn = plots.draw(figure)
    assert plots.draw(figure) == drawn
    assert len(drawn) < 60_000
    text = "".join(ET.fromstring(drawn.decode()).itertext())
    for word in (figure.title, figure.x_label, figure.y_label, "kvstore", "etcd"):
        assert word in text
    assert plots.COLOURS["kvstore"] in drawn.decode()
    assert "<dc:date>" not in drawn.decode()


def test_each_figure_has_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "draw", lambda figure: figure.title.encode())
    assert plots.draw_all([PUTS, LONG], tmp_path) == [
        tmp_path / "throughput-put.svg",
        tmp_path / "memory.svg",
    ]
    assert (tmp_path / "memory.svg").read_bytes() == b"Memory"
    with pytest.raises(BenchError, match="rename one"):
        plots.draw_all([PUTS, PUTS], tmp_path)


def test_without_matplotlib_the_error_says_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "can_draw", lambda: False)
    with pytest.raises(BenchError, match="make bench"):
        plots.draw(PUTS)


def test_a_system_has_one_colour_whatever_its_line_is_called() -> None:
    assert plots.colour("etcd, 10 k keys") == plots.colour("etcd") == plots.COLOURS["etcd"]
    assert plots.colour("Redis (always)") == plots.COLOURS["redis"]
    assert plots.colour("another") == plots.colour("another: p99")
    assert plots.colour("another") in plots.OTHER_COLOURS


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.25, "0.25"), (250, "250"), (5_000, "5 k"), (12_500, "12.5 k"), (2e6, "2 M")],
)
def test_numbers_beside_an_axis_are_short(value: float, text: str) -> None:
    assert plots.tick(value) == text


def test_a_long_line_keeps_its_peaks_and_dips() -> None:
    y = [10.0] * 2_000
    y[777], y[1_234] = 99.0, 1.0
    thin = plots.thin(Series(name="kvstore", x=[float(at) for at in range(2_000)], y=y))
    points = list(zip(thin.x, thin.y, strict=True))
    assert (777.0, 99.0) in points
    assert (1234.0, 1.0) in points
    assert len(points) <= 2 * plots.GROUPS_MAX
    assert thin.x == sorted(thin.x)


def test_a_long_band_keeps_its_lowest_and_highest() -> None:
    x = [float(at) for at in range(1_000)]
    low, high = [5.0] * 1_000, [15.0] * 1_000
    low[123], high[124] = 0.0, 50.0
    thin = plots.thin(Series(name="etcd", x=x, y=[10.0] * 1_000, y_low=low, y_high=high))
    assert min(thin.y_low) == 0.0
    assert max(thin.y_high) == 50.0
    assert len(thin.y) == len(thin.y_low) == len(thin.y_high)


def test_a_short_line_is_drawn_as_it_is() -> None:
    assert plots.thin(PUTS.series[0]) is PUTS.series[0]
