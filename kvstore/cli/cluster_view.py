"""What ``kvstore cluster`` shows: a table that lives in a terminal, or plain lines elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, Self

from kvstore.cli.cluster_nodes import Node, State
from kvstore.cli.processes import Child

if TYPE_CHECKING:
    from rich.table import Table


class View(Protocol):
    """Something that shows a cluster."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def show(
        self, nodes: Sequence[Node], children: Sequence[Child], states: Sequence[State]
    ) -> None:
        """Show how the nodes are now."""

    def ready(self, nodes: Sequence[Node]) -> None:
        """Say that the cluster serves, and how to try it."""

    def note(self, text: str) -> None:
        """Say something."""


def examples(nodes: Sequence[Node]) -> list[str]:
    """Commands to try, that work as they stand."""
    urls = [node.client_url for node in nodes]
    key = base64.b64encode(b"greeting").decode()
    value = base64.b64encode(b"hello").decode()
    return [
        f"curl -X PUT {urls[0]}/v1/kv/config/db -d 'host=db1'",
        f"curl {urls[-1]}/v1/kv/config/db",
        f'curl {urls[0]}/v3/kv/put -d \'{{"key":"{key}","value":"{value}"}}\'',
        f'curl {urls[-1]}/v3/kv/range -d \'{{"key":"{key}"}}\'',
    ]


def _pid(child: Child) -> str:
    """Of one that was brought back by hand we know no process id."""
    return str(child.pid) if child.is_alive() else "?"


def _role(state: State) -> str:
    if state.error:
        return "down"
    if state.leads:
        return "leader"
    return "follower" if state.leader_id else "no leader"


class PlainView:
    """A line for each change, for logs and pipes."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def show(
        self, nodes: Sequence[Node], children: Sequence[Child], states: Sequence[State]
    ) -> None:
        """Print whose role has changed."""
        for node, child, state in zip(nodes, children, states, strict=True):
            role = _role(state)
            if role != self._last.get(node.name, "down"):
                term = f", term {state.term}" if not state.error else ""
                print(f"{node.name} {node.client_url} pid {_pid(child)}: {role}{term}", flush=True)
            self._last[node.name] = role

    def ready(self, nodes: Sequence[Node]) -> None:
        """Print what to try."""
        print("ready; try:")
        for line in examples(nodes):
            print(f"  {line}")
        print("Ctrl-C stops all nodes.", flush=True)

    def note(self, text: str) -> None:
        """Print it."""
        print(text, flush=True)


class LiveView:
    """A table that is drawn anew."""

    def __init__(self) -> None:
        from rich.live import Live

        self._live = Live(auto_refresh=False, transient=True)
        self._ready = False

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def show(
        self, nodes: Sequence[Node], children: Sequence[Child], states: Sequence[State]
    ) -> None:
        """Draw the table."""
        self._live.update(self._table(nodes, children, states), refresh=True)

    def _table(
        self, nodes: Sequence[Node], children: Sequence[Child], states: Sequence[State]
    ) -> Table:
        from rich.table import Table

        caption = "Ctrl-C stops all nodes" if self._ready else "starting…"
        table = Table(title="kvstore cluster", caption=caption, title_justify="left")
        for heading in ("node", "clients", "role", "term", "revision", "size", "pid"):
            table.add_column(heading, no_wrap=True)
        styles = {"leader": "bold green", "follower": "", "no leader": "yellow", "down": "red"}
        for node, child, state in zip(nodes, children, states, strict=True):
            role = _role(state)
            numbers = (
                ["", "", ""]
                if state.error
                else [
                    str(state.term),
                    str(state.revision),
                    f"{state.size_bytes / 1e6:.1f} MB",
                ]
            )
            table.add_row(
                node.name,
                node.client_url.removeprefix("http://"),
                role,
                *numbers,
                _pid(child),
                style=styles[role],
            )
        return table

    def ready(self, nodes: Sequence[Node]) -> None:
        """Print what to try, above the table."""
        self._ready = True
        print_line = self._live.console.print
        print_line("ready; try:")
        for line in examples(nodes):
            # Neither wrapped nor coloured: the lines are there to be copied.
            print_line(f"  {line}", soft_wrap=True, markup=False, highlight=False)

    def note(self, text: str) -> None:
        """Print it above the table."""
        self._live.console.print(text, soft_wrap=True, markup=False, highlight=False)
