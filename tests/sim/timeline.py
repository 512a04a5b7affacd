"""A picture of a run: one page of HTML that needs nothing else.

A lane a member: its role as colour, terms and restarts on it; messages between the lanes; faults
and marks as flags; a lane a client below, each call as a bar in the colour of its outcome; and the
broken promise as a red line. Whatever is pointed at says what it is; kinds can be switched off.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from math import isinf
from typing import TYPE_CHECKING

from tests.checking.history import Outcome

if TYPE_CHECKING:
    from tests.sim.run import Report
    from tests.sim.trace import TraceEvent

PIXELS_A_SECOND = 90
LEFT = 90
TOP = 70
LANE = 64
BAR = 18
CLIENT = 12
MESSAGES_MAX = 20_000
ENDS = ("crash", "kill", "stop", "failure")
"""What happens to a process that then is no more."""

_ROLE = re.compile(r"(\w+), term (\d+)")
_MESSAGE = re.compile(r"(\w+) (\w+)>(\w+) term (\d+)")

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --paper: #fff; --faint: #d5dbe3; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #dfe5ee; --paper: #14181f; --faint: #333c48; } }
body { font: 13px/1.4 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       margin: 16px; }
.scroll { overflow-x: auto; border: 1px solid var(--faint); }
text { font: 11px system-ui, sans-serif; fill: var(--ink); }
.grid { stroke: var(--faint); }
.follower { fill: #8fa3bd; } .pre_candidate { fill: #e8cf8a; }
.candidate { fill: #e5a53b; } .leader { fill: #3a9d5d; }
.down { fill: none; stroke: var(--faint); stroke-dasharray: 3 3; }
.paused { fill: var(--paper); fill-opacity: .75; stroke: #d9603b; stroke-dasharray: 2 2; }
.message { stroke: #6b7f9c; stroke-opacity: .35; } .vote { stroke: #c9831a; stroke-opacity: .9; }
.ok { fill: #3a9d5d; } .refused { fill: #8fa3bd; } .unknown { fill: #d9603b; }
.fault { stroke: #d9603b; stroke-width: 1.5; } .fault-name { fill: #d9603b; }
.mark { fill: #7a5cc0; } .crash { stroke: #d9603b; stroke-width: 3; }
.violation { stroke: #d11; stroke-width: 3; } .verdict { color: #d11; font-weight: 600; }
label { margin-right: 14px; } .key { display: inline-block; width: 11px; height: 11px;
margin: 0 4px 0 10px; } .hide-message .message, .hide-vote .vote, .hide-fault .faults,
.hide-mark .mark, .hide-call .calls { display: none; }
"""

SCRIPT = """
const svg = document.querySelector(".scroll > svg");
for (const box of document.querySelectorAll("input[data-kind]"))
  box.addEventListener("change", () =>
    svg.classList.toggle("hide-" + box.dataset.kind, !box.checked));
const zoom = document.querySelector("#zoom");
const width = svg.width.baseVal.value;
zoom.addEventListener("input", () => svg.setAttribute("width", width * zoom.value));
"""


def draw_timeline(report: Report) -> str:
    """The page of a run; its trace should have the messages."""
    page = _Page(report)
    verdict = "no promise was broken"
    if report.violation is not None:
        verdict = f'<span class="verdict">{escape(str(report.violation))}</span>'
    kinds = (("message", "messages"), ("vote", "votes"), ("fault", "faults"), ("mark", "marks"))
    boxes = "".join(
        f'<label><input type="checkbox" data-kind="{kind}" checked> {name}</label>'
        for kind, name in (*kinds, ("call", "calls"))
    )
    keys = "".join(
        f'<svg class="key" viewBox="0 0 1 1"><rect class="{name}" width="1" height="1"/></svg>'
        f"{name}"
        for name in (
            "follower",
            "pre_candidate",
            "candidate",
            "leader",
            "paused",
            "ok",
            "refused",
            "unknown",
            "mark",
        )
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        f"<title>{escape(report.profile)}, seed {report.seed}</title><style>{STYLE}</style>"
        f"<h1>Profile {escape(report.profile)}, seed {report.seed}</h1><p>{verdict}</p>"
        f"<p>{boxes} zoom <input id=zoom type=range min=0.2 max=6 step=0.1 value=1></p>"
        f'<p>{keys}</p><div class="scroll">{page.svg()}</div><script>{SCRIPT}</script></html>\n'
    )


class _Page:
    """Where everything goes. x is time; y is whose lane it is in."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._events = report.events
        self._end = max([event.at for event in report.events], default=1.0)
        self._members = sorted({event.member for event in self._events if event.member >= 0})
        self._ids = _ids(self._events)
        clients = sorted({operation.client for operation in report.history.operations})
        # Who goes on after an unknown outcome has another number; lanes are used again.
        self._client_lanes = {client: place for place, client in enumerate(clients)}
        self._clients_top = TOP + len(self._members) * LANE + 20
        self._height = self._clients_top + len(clients) * CLIENT + 20

    def svg(self) -> str:
        """The whole picture."""
        width = int(LEFT + (self._end + 0.5) * PIXELS_A_SECOND)
        parts = [
            *self._grid(),
            *self._lanes(),
            *self._pauses(),
            *self._messages(),
            *self._flags(),
            *self._calls(),
        ]
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{self._height}" '
            f'viewBox="0 0 {width} {self._height}" preserveAspectRatio="none">'
            f"{''.join(parts)}</svg>"
        )

    def _x(self, at: float) -> float:
        return round(LEFT + at * PIXELS_A_SECOND, 1)

    def _y(self, member: int) -> int:
        return TOP + self._members.index(member) * LANE + LANE // 2

    def _grid(self) -> Iterator[str]:
        for second in range(int(self._end) + 1):
            x = self._x(second)
            yield f'<line class="grid" x1="{x}" x2="{x}" y1="{TOP - 10}" y2="{self._height}"/>'
            yield f'<text x="{x + 2}" y="{TOP - 12}">{second} s</text>'
        for member in self._members:
            yield f'<text x="8" y="{self._y(member) + 4}">member {member}</text>'

    def _lanes(self) -> Iterator[str]:
        for member in self._members:
            state, since, said = "down", 0.0, "down"
            for event in self._events:
                if event.member != member or event.kind not in ("start", "role", *ENDS):
                    continue
                yield self._bar(member, state, since, event.at, said)
                since, said = event.at, f"{event.kind} {event.text}"
                if event.kind == "role" and (found := _ROLE.match(event.text)):
                    state = found[1]
                    x, y = self._x(event.at), self._y(member)
                    yield f'<text x="{x + 2}" y="{y + 22}">t{found[2]}</text>'
                elif event.kind == "start":
                    state = "follower"
                else:
                    state = "down"
                    x, y = self._x(event.at), self._y(member)
                    yield f'<line class="crash" x1="{x}" x2="{x}" y1="{y - 14}" y2="{y + 14}"/>'
            yield self._bar(member, state, since, self._end, said)

    def _pauses(self) -> Iterator[str]:
        """Over the lanes: a process that stands still, until it goes on or ends."""
        since: dict[int, TraceEvent] = {}
        for event in self._events:
            paused = since.get(event.member)
            if event.kind == "pause":
                since[event.member] = event
            elif paused is not None and event.kind in ("resume", *ENDS):
                yield self._bar(event.member, "paused", paused.at, event.at, paused.text)
                del since[event.member]
        for member, paused in since.items():
            yield self._bar(member, "paused", paused.at, self._end, paused.text)

    def _bar(self, member: int, state: str, since: float, until: float, said: str) -> str:
        x, y = self._x(since), self._y(member) - BAR // 2
        width = max(self._x(until) - x, 0.5)
        return (
            f'<rect class="{state}" x="{x}" y="{y}" width="{width:.1f}" height="{BAR}">'
            f"<title>{escape(said)}, from {since:.6f} s</title></rect>"
        )

    def _messages(self) -> Iterator[str]:
        """Each from where it left to where it arrived; what never arrives is not drawn."""
        under_way: dict[str, list[float]] = {}
        drawn = 0
        for event in self._events:
            if event.kind == "send":
                under_way.setdefault(event.text, []).append(event.at)
            elif event.kind == "receive" and under_way.get(event.text):
                left = under_way[event.text].pop(0)
                found = _MESSAGE.match(event.text)
                sender = self._ids.get(found[2]) if found else None
                if sender is None or drawn >= MESSAGES_MAX:
                    continue
                drawn += 1
                kind = "vote" if event.text.startswith("RequestVote") else "message"
                yield (
                    f'<line class="{kind}" x1="{self._x(left)}" y1="{self._y(sender)}" '
                    f'x2="{self._x(event.at)}" y2="{self._y(event.member)}">'
                    f"<title>{escape(event.text)}, {left:.6f} to {event.at:.6f} s</title></line>"
                )

    def _flags(self) -> Iterator[str]:
        row = 0
        for event in self._events:
            x = self._x(event.at)
            said = f"<title>{escape(str(event))}</title>"
            if event.kind == "fault":
                row = (row + 1) % 3
                yield (
                    f'<g class="faults"><line class="fault" x1="{x}" x2="{x}" y1="{14 * row + 8}" '
                    f'y2="{self._clients_top - 10}">{said}</line><text class="fault-name" '
                    f'x="{x + 3}" y="{14 * row + 16}">{escape(event.text)}</text></g>'
                )
            elif event.kind == "mark" and event.member in self._members:
                y = self._y(event.member) - 16
                yield f'<circle class="mark" cx="{x}" cy="{y}" r="3">{said}</circle>'
            elif event.kind == "violation":
                yield (
                    f'<line class="violation" x1="{x}" x2="{x}" y1="0" y2="{self._height}">{said}'
                    "</line>"
                )

    def _calls(self) -> Iterator[str]:
        yield '<g class="calls">'
        for operation in self._report.history.operations:
            y = self._clients_top + self._client_lanes[operation.client] * CLIENT
            x = self._x(operation.called_at)
            until = self._end if isinf(operation.returned_at) else operation.returned_at
            width = max(self._x(until) - x, 1.5)
            said = operation.error if operation.outcome is not Outcome.OK else operation.response
            words = (
                f"client {operation.client}, member {operation.member}: {operation.method} "
                f"{operation.request}: {operation.outcome.value} {said}"
            )
            yield (
                f'<rect class="{operation.outcome.value}" x="{x}" y="{y}" width="{width:.1f}" '
                f'height="{CLIENT - 3}"><title>{escape(words[:600])}</title></rect>'
            )
        yield "</g>"


def _ids(events: list[TraceEvent]) -> dict[str, int]:
    """Member id, as messages name it, to number."""
    found = {}
    for event in events:
        if event.kind == "start":
            found[event.text.split()[1].rstrip(",")] = event.member
    return found
