"""``kvstore cluster``: a whole cluster on this machine, in one command, until Ctrl-C."""

from __future__ import annotations

import os
import select
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final, Self

import click

from kvstore.cli.cluster_nodes import (
    CLIENT_PORTS,
    PEER_PORTS,
    Node,
    ask,
    check_ports,
    plan,
    serve_arguments,
    start,
)
from kvstore.cli.cluster_view import LiveView, PlainView, View
from kvstore.cli.processes import Child, stop_all

ROUND_SECONDS: Final = 0.5
STARTING_ROUND_SECONDS: Final = 0.1
READY_SECONDS: Final = 60.0


class PortsType(click.ParamType[tuple[int, ...]]):
    """Port numbers, separated by commas."""

    name = "ports"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Read them."""
        if isinstance(value, tuple):
            return value
        try:
            ports = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of ports such as 2379,22379,32379", param, ctx)
        if not all(0 < port < 65536 for port in ports):
            self.fail("ports go from 1 to 65535", param, ctx)
        return ports


class StopSignals:
    """Ctrl-C, SIGTERM and a closed terminal, turned into something that one can wait for."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._before: dict[int, object] = {}
        self._came = False

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._on_signal)
        signal.set_wakeup_fd(self._writer)
        return self

    def __exit__(self, *error: object) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type] # what signal() gave us
        os.close(self._reader)
        os.close(self._writer)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._came = True

    def wait(self, seconds: float) -> bool:
        """Wait at most so long; whether we should stop."""
        if not self._came:
            select.select([self._reader], [], [], seconds)
        return self._came


@click.command()
@click.option(
    "--base-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("data"),
    show_default=True,
    help="Where the nodes keep their data and logs; found again by the next start.",
)
@click.option(
    "--client-ports",
    type=PortsType(),
    default=CLIENT_PORTS,
    show_default=",".join(map(str, CLIENT_PORTS)),
    help="Ports for clients; there are as many nodes as ports.",
)
@click.option(
    "--peer-ports",
    type=PortsType(),
    default=PEER_PORTS,
    show_default=",".join(map(str, PEER_PORTS)),
    help="Ports for the other nodes.",
)
@click.argument("serve_options", nargs=-1)
def cluster(
    base_dir: Path,
    client_ports: tuple[int, ...],
    peer_ports: tuple[int, ...],
    serve_options: tuple[str, ...],
) -> int:
    """Run a cluster of nodes on 127.0.0.1 until Ctrl-C, and show who leads.

    What comes after -- goes to each node's `kvstore serve`, as in
    `kvstore cluster -- --log-level=debug`.
    """
    nodes = plan(base_dir, client_ports, peer_ports)
    check_ports(nodes)
    view = LiveView() if sys.stdout.isatty() else PlainView()
    with StopSignals() as stop:
        children = start(nodes, serve_options)
        try:
            with view:
                failure = _watch_over(nodes, children, view, stop, serve_options)
        finally:
            stubborn = stop_all(children)
    for child in stubborn:
        print(f"{child.name} did not stop in time and was killed", file=sys.stderr)
    if failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    print("stopped; the data is kept, the next start goes on with it", flush=True)
    return 0


def _watch_over(
    nodes: Sequence[Node],
    children: Sequence[Child],
    view: View,
    stop: StopSignals,
    serve_options: Sequence[str] = (),
) -> str:
    """Show how they are until we are to stop; returns why we cannot go on, or ""."""
    deadline = time.monotonic() + READY_SECONDS
    ready = False
    told: set[str] = set()
    while not stop.wait(ROUND_SECONDS if ready else STARTING_ROUND_SECONDS):
        states = [ask(node) for node in nodes]
        # One that was brought back by hand is no child of ours, but it answers.
        dead = [
            child
            for child, state in zip(children, states, strict=True)
            if state.error and not child.is_alive()
        ]
        failure = _failure(children, dead, ready=ready)
        if failure:
            return failure
        for child in dead:
            if child.name not in told:
                told.add(child.name)
                view.note(_obituary(child, nodes, serve_options))
        view.show(nodes, children, states)
        if not ready and all(state.leader_id for state in states):
            ready = True
            view.ready(nodes)
        if not ready and time.monotonic() > deadline:
            logs = ", ".join(str(node.log_path) for node in nodes)
            return f"no leader after {READY_SECONDS:.0f} s; the logs may say why: {logs}"
    return ""


def _failure(children: Sequence[Child], dead: Sequence[Child], *, ready: bool) -> str:
    """Why the cluster cannot go on: a node that never came up, or too few that are left."""
    if not dead or (ready and len(dead) <= (len(children) - 1) // 2):
        return ""
    child = dead[-1]
    return f"{child.name} {child.ended_how()}; the end of {child.log_path}:\n{child.last_words()}"


def _obituary(child: Child, nodes: Sequence[Node], serve_options: Sequence[str]) -> str:
    node = next(node for node in nodes if node.name == child.name)
    again = shlex.join([*serve_arguments(node, nodes), *serve_options])
    return f"{child.name} {child.ended_how()}; the others go on. To bring it back: {again}"
