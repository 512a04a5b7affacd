"""How does the replica serve front workers? A whole node, with one more listener for them.

``python -m bench.scaling.replica SOCKET_DIR --name=… --data-dir=…``: what follows are flags of
``kvstore serve``. The node is the product's own, with its ports for clients and peers as always;
workers find it at ``SOCKET_DIR/NAME``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import uvloop

from bench.figures import BenchError
from bench.scaling.wire import (
    Answer,
    Frames,
    Hello,
    PutAnswer,
    RangeAnswer,
    RangeCall,
    decode_calls,
    failure,
    frame,
)
from kvstore.cli import logs
from kvstore.config_sources import load
from kvstore.errors import KvError
from kvstore.run import run
from kvstore.service.caller import ANYBODY
from kvstore.service.service import Service
from kvstore.types import RangeResponse

if TYPE_CHECKING:
    from kvstore.server.node import Node

log = logging.getLogger("bench.replica")

_UNREADABLE: Final = (BenchError, msgspec.DecodeError)


class Front:
    """What all workers of this node share: the service, and what was counted."""

    def __init__(self, node: Node) -> None:
        self.service = Service(node)
        self.calls = 0
        self.batches = 0
        self.links: set[Link] = set()
        self.call_soon: Callable[..., object] = node.loop.call_soon
        self._server: asyncio.Server | None = None
        node.before_stop.append(self.close)

    async def open(self, path: Path) -> None:
        """Listen for workers."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: Link(self), path)
        log.info("front workers are served at %s", path)

    async def close(self) -> None:
        """Let go of all workers; they end."""
        if self._server is not None:
            self._server.close()
        for link in list(self.links):
            link.close()


class Link(asyncio.Protocol):
    """One worker: batches of calls come in, and each turn's answers leave as one batch."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._service = front.service
        self._frames = Frames()
        self._answers: list[Answer] = []
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The event loop promises a stream here, and uvloop's is no subclass that could be checked.
        stream: asyncio.Transport = transport  # type: ignore[assignment]
        self._transport = stream
        front = self._front
        front.links.add(self)
        service = front.service
        stream.write(
            frame(Hello(service.cluster_id, service.member_id, front.calls, front.batches))
        )

    def data_received(self, data: bytes) -> None:
        """Ask the service for each call of each batch."""
        front, service = self._front, self._service
        try:
            for payload in self._frames.take(data):
                calls = decode_calls(payload)
                front.batches += 1
                front.calls += len(calls)
                for call in calls:
                    reply = partial(self._reply, call.number)
                    caller = call.caller or ANYBODY
                    if isinstance(call, RangeCall):
                        service.range(call.request, caller, reply)
                    else:
                        service.put(call.request, caller, reply)
        except _UNREADABLE:
            log.exception("a worker sent what is no batch")
            self.close()

    def _reply(self, number: int, outcome: Any) -> None:
        answers = self._answers
        if not answers:
            self._front.call_soon(self._flush)
        if isinstance(outcome, RangeResponse):
            answers.append(RangeAnswer(number, outcome))
        elif isinstance(outcome, KvError):
            answers.append(failure(number, outcome))
        else:
            answers.append(PutAnswer(number, outcome))

    def _flush(self) -> None:
        answers, self._answers = self._answers, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame(answers))

    def pause_writing(self) -> None:
        """The worker does not keep up with its answers: it is asked nothing more meanwhile."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._transport = None
        self._front.links.discard(self)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def main(arguments: Sequence[str]) -> int:
    """Run the node until it is told to stop."""
    socket_dir = Path(arguments[0])
    flags = dict(_flag(argument) for argument in arguments[1:])
    config = load(flags, os.environ, lambda path: Path(path).read_bytes()).config
    logs.set_up(config.log_level, config.log_format, sys.stderr)
    opening: list[asyncio.Task[None]] = []

    def open_front(node: Node) -> None:
        task = node.loop.create_task(Front(node).open(socket_dir / config.name))
        # A listener that cannot open is the end of the measurement, and its log says why.
        opening.append(task)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run(config, on_ready=open_front))


def _flag(argument: str) -> tuple[str, str]:
    name, _, value = argument.removeprefix("--").partition("=")
    return name, value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
