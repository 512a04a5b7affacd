"""From runs to figures: medians, spread, ratios, and the table that shows them."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bench.load import Run
from bench.machine import machine


class Case(NamedTuple):
    """One kind of load."""

    call: str
    connections: int
    streams: int = 0
    """How many calls each connection makes at a time over gRPC; 0: it is HTTP/JSON."""

    @property
    def title(self) -> str:
        """As the table names it."""
        name = {"put": "put", "get": "linearizable get"}[self.call]
        name = f"gRPC {name}" if self.streams else name
        title = f"{name}, {self.connections} connection{'s' if self.connections > 1 else ''}"
        return f"{title} × {self.streams} streams" if self.streams > 1 else title


Results = Mapping[Case, Mapping[str, Sequence[Run]]]


def table(results: Results, names: Sequence[str]) -> list[str]:
    """A Markdown table: for each case and system the median, its spread and its latency."""
    heads = [f"{name}/s | spread | p50 ms | p99 ms | errors" for name in names]
    ratio = len(names) == 2
    lines = [
        f"| load | {' | '.join(heads)} |" + (f" {names[0]} / {names[1]} |" if ratio else ""),
        "|---|" + "---:|" * (5 * len(names) + ratio),
    ]
    for case, by_name in results.items():
        cells = [case.title]
        for name in names:
            runs = by_name[name]
            rates = [run.rate for run in runs]
            cells += [
                f"{statistics.median(rates):,.0f}",
                f"{min(rates):,.0f} to {max(rates):,.0f}",
                f"{statistics.median(run.p50_us for run in runs) / 1000:.2f}",
                f"{statistics.median(run.p99_us for run in runs) / 1000:.2f}",
                str(sum(run.errors for run in runs)),
            ]
        if ratio:
            cells.append(f"**{_median_ratio(by_name, names):.2f}**")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _median_ratio(by_name: Mapping[str, Sequence[Run]], names: Sequence[str]) -> float:
    ours, theirs = (statistics.median(run.rate for run in by_name[name]) for name in names)
    return ours / theirs if theirs else float("inf")


def document(lines: Sequence[str], versions: Sequence[str], rounds: int, seconds: int) -> str:
    """The whole of RESULTS.md."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return "\n".join(
        [
            "# Side by side",
            "",
            f"{' and '.join(versions)}, {today}, written by `make bench`.",
            "",
            *machine(),
            "",
            "Three nodes each on this machine, data on the same disk, every write synced on a",
            "majority before its answer. wrk (one thread, on the same machine) calls the leader",
            "over HTTP/JSON: 256-byte values, 10,000 keys; h2load (one thread) over gRPC, where",
            "all calls concern one key. The systems take turns, and who begins",
            f"alternates; {rounds} rounds of {seconds} s. Rates are the median of the rounds, with",
            "the lowest and the highest beside it; latencies are the medians of the rounds'. With",
            "one connection calls follow one another: p50 there is the latency of a single call.",
            "",
            *lines,
            "",
        ]
    )
