"""Does the page show everything that was kept, and nothing else?"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import bench.__main__ as harness
from bench import plots, report
from bench.figures import BenchError, Figure, Goal, Section, Series, Table, load, save


def _section(part: str = "throughput", **changes: object) -> Section:
    fields: dict[str, object] = {
        "part": part,
        "title": part.capitalize(),
        "text": "How it was done.\n",
        "measured_on": "2026-12-01, kvstore 1 and etcd 2",
        "machine": ["- 2 × a processor"],
        "tables": [Table(header=["load", "kvstore/s"], rows=[["put", "1,234"]], caption="Rates.")],
    }
    return Section(**{**fields, **changes})  # type: ignore[arg-type]


FIGURE = Figure(
    name="throughput-put",
    title="Puts",
    x_label="connections",
    y_label="puts/s",
    series=[Series(name="kvstore", x=[1.0], y=[2.0])],
)
MET = Goal(what="put", wanted="at least 4 times etcd", found="4.31 times", met=True)
MISSED = Goal(what="get", wanted="at least 6 times etcd", found="5.99 times", met=False)


def test_a_table_is_aligned_and_its_bars_do_not_end_a_cell() -> None:
    table = Table(header=["load", "a", "b"], rows=[["x | y", "1", "2"]])
    assert report.markdown(table) == [
        "| load | a | b |",
        "|---|---:|---:|",
        "| x \\| y | 1 | 2 |",
    ]


def test_the_page_opens_with_every_goal_whether_met_or_not() -> None:
    page = report.page([_section(goals=[MET]), _section("relayed", goals=[MISSED])])
    summary = page[page.index("## Goals") : page.index("## Throughput")]
    assert "1 of 2 are met." in summary
    assert "| put | at least 4 times etcd | 4.31 times | yes |" in summary
    assert "| get | at least 6 times etcd | 5.99 times | **no** |" in summary


def test_a_chapter_has_text_tables_and_pictures() -> None:
    page = report.page([_section(figures=[FIGURE])])
    chapter = page[page.index("## Throughput") :]
    assert "2026-12-01, kvstore 1 and etcd 2." in chapter
    assert "How it was done." in chapter
    assert "Rates.\n\n| load | kvstore/s |" in chapter
    assert "![Puts](plots/throughput-put.svg)" in chapter


def test_the_machine_is_named_once_if_all_parts_ran_on_it() -> None:
    same = report.page([_section(), _section("relayed")])
    assert same.count("- 2 × a processor") == 1
    other = report.page([_section(), _section("relayed", machine=["- another"])])
    assert other.index("- 2 × a processor") > other.index("## Throughput")
    assert other.index("- another") > other.index("## Relayed")


def test_parts_without_figures_are_named() -> None:
    assert "Not measured yet: watch, leases." in report.page([_section()], ["watch", "leases"])


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    section = _section(figures=[FIGURE], goals=[MET])
    save(section, tmp_path)
    assert load("throughput", tmp_path) == section
    assert load("relayed", tmp_path) is None


def test_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "watch.json").write_text("{")
    with pytest.raises(BenchError, match="measure this part again"):
        load("watch", tmp_path)


def test_the_page_is_written_from_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"relayed": _section("relayed"), "throughput": _section(figures=[FIGURE])}
    drawn: list[Figure] = []

    def draw_all(figures: Iterable[Figure]) -> list[Figure]:
        drawn.extend(figures)
        return drawn

    monkeypatch.setattr(harness, "HERE", tmp_path / "bench")
    monkeypatch.setattr(harness, "PAGE", tmp_path / "bench" / "RESULTS.md")
    monkeypatch.setattr(harness, "load", kept.get)
    monkeypatch.setattr(plots, "PLOTS_DIR", tmp_path / "bench" / "plots")
    monkeypatch.setattr(plots, "can_draw", lambda: True)
    monkeypatch.setattr(plots, "draw_all", draw_all)
    (tmp_path / "bench").mkdir()
    harness.write_page()
    page = (tmp_path / "bench" / "RESULTS.md").read_text()
    assert page.index("## Throughput") < page.index("## Relayed")
    assert "Not measured yet: latency, watch," in page
    assert drawn == [FIGURE]


def test_a_page_of_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "load", lambda name: None)
    with pytest.raises(BenchError, match="nothing has been measured"):
        harness.write_page()


class _Parts:
    """Stands for the modules of the parts, the page and what is kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.kept: list[str] = []
        self.measured: list[str] = []
        self.pages = 0
        self.broken: dict[str, Exception] = {}
        monkeypatch.setattr(harness, "HERE", tmp_path)
        monkeypatch.setattr(harness, "save", lambda section: self.kept.append(section.part))
        monkeypatch.setattr(harness, "write_page", self._write_page)
        monkeypatch.setattr("signal.signal", lambda *_: None)
        monkeypatch.setattr("importlib.import_module", self._module)

    def _write_page(self) -> None:
        self.pages += 1

    def _module(self, name: str) -> object:
        part = name.rpartition(".")[2]

        def measure(options: object, base_dir: Path, **choice: object) -> Section:
            assert base_dir.is_dir()
            self.measured.append(part)
            if part in self.broken:
                raise self.broken[part]
            return _section(part)

        return type("Part", (), {"measure": staticmethod(measure)})

    def run(self, *arguments: str) -> BaseException | None:
        return CliRunner().invoke(harness.main, arguments).exception


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> _Parts:
    return _Parts(monkeypatch, tmp_path)


def test_all_parts_are_measured_in_their_order_and_kept(parts: _Parts, tmp_path: Path) -> None:
    assert parts.run() is None
    assert parts.measured == parts.kept == list(harness.PARTS)
    assert parts.pages == 1
    assert list((tmp_path / ".run").iterdir()) == []


def test_one_part_that_fails_takes_no_other_with_it(parts: _Parts) -> None:
    parts.broken = {"relayed": BenchError("no leader"), "watch": ZeroDivisionError()}
    error = parts.run()
    assert isinstance(error, BenchError)
    assert "relayed, watch" in str(error)
    assert parts.kept == [name for name in harness.PARTS if name not in {"relayed", "watch"}]
    assert parts.pages == 1


@pytest.mark.parametrize("flags", [["--quick"], ["--only", "etcd"], ["--match", "put"]])
def test_a_look_keeps_nothing(parts: _Parts, flags: list[str]) -> None:
    assert parts.run("throughput", *flags) is None
    assert parts.measured == ["throughput"]
    assert parts.kept == []
    assert parts.pages == 0


def test_named_parts_alone_are_measured_in_the_order_of_the_page(parts: _Parts) -> None:
    assert parts.run("leases", "watch") is None
    assert parts.measured == ["watch", "leases"]


def test_a_part_that_is_not_there_is_refused(parts: _Parts) -> None:
    result = CliRunner().invoke(harness.main, ["speed"])
    assert result.exit_code == click.UsageError.exit_code
    assert "throughput" in result.output
    assert parts.measured == []


def test_a_choice_of_loads_is_refused_where_there_is_none(parts: _Parts) -> None:
    assert isinstance(parts.run("watch", "--match", "put"), SystemExit)
    assert parts.measured == []
