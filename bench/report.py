"""What was found, on one page: goals on top, then a chapter a part, with tables and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bench.figures import Section, Table

INTRODUCTION: Final = """\
# Side by side

kvstore beside etcd on one machine, written by `make bench`. Every figure comes from a file in
`bench/results/`, and each part can be measured anew by itself (`make bench PARTS=throughput`).
Ratios are between figures of one run. Nodes, generators and whatever else is measured share the
processors of this machine: figures compare systems, they do not say what one does on a larger one.
"""


def page(sections: Sequence[Section], missing: Sequence[str] = ()) -> str:
    """The whole of RESULTS.md.

    Args:
        sections: In the order of the page.
        missing: Names of parts that have never been measured.
    """
    lines = [INTRODUCTION]
    machines = {tuple(section.machine) for section in sections}
    if len(machines) == 1:
        lines += [*machines.pop(), ""]
        shared = True
    else:
        shared = False
    if missing:
        lines += [f"Not measured yet: {', '.join(missing)}.", ""]
    lines += summary(sections)
    for section in sections:
        lines += chapter(section, with_machine=not shared)
    return "\n".join(lines).rstrip() + "\n"


def summary(sections: Sequence[Section]) -> list[str]:
    """What was to be reached, in one table; nothing if there are no goals."""
    rows = [
        [goal.what, goal.wanted, goal.found, "yes" if goal.met else "**no**"]
        for section in sections
        for goal in section.goals
    ]
    if not rows:
        return []
    met = sum(goal.met for section in sections for goal in section.goals)
    table = Table(header=["what", "goal", "reached", "met"], rows=rows)
    return ["## Goals", "", f"{met} of {len(rows)} are met.", "", *markdown(table), ""]


def chapter(section: Section, *, with_machine: bool = False) -> list[str]:
    """One part: its text, tables and pictures."""
    lines = [f"## {section.title}", "", f"{section.measured_on}.", ""]
    if with_machine and section.machine:
        lines += [*section.machine, ""]
    lines += [section.text.strip(), ""]
    for table in section.tables:
        if table.caption:
            lines += [table.caption, ""]
        lines += [*markdown(table), ""]
    for figure in section.figures:
        lines += [f"![{figure.title}](plots/{figure.name}.svg)", ""]
    return lines


def markdown(table: Table) -> list[str]:
    """A table: the first column to the left, the others to the right."""
    columns = len(table.header)
    return [
        _row(table.header),
        "|---|" + "---:|" * (columns - 1),
        *(_row(row) for row in table.rows),
    ]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
