"""The network between the members, in user space: a process that carries their bytes, or does not.

``python -m tests.chaos.relay SEED`` listens on one port for each member; that port is what the
member advertises to its peers, while it listens on another one that only the relay knows. Whom a
connection leads to is told by its port, and who dialled by the head that each of them begins with
(``Kvstore-From``). So each direction between two members has a ``Path`` of its own::

    node1 ──▶ port of node2 ──▶ node2        bytes node1 ▶ node2 go by Path(node1, node2),
          ◀──               ◀──              the answers by Path(node2, node1)

What travels is TCP, so nothing is lost for good: a blocked path holds its bytes back until it is
open again (as the kernel would send them again), and a lost packet comes late, and with it all
that is behind it. A connection may be cut as well.

Orders come as lines of JSON on standard input, each answered by a line. The end of the input ends
the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import sys
from typing import Any, Final

import msgspec

HEAD_BYTES_MAX: Final = 16 * 1024
HEAD_SECONDS: Final = 10.0
CHUNK_BYTES: Final = 16 * 1024
CHUNKS_WAITING_MAX: Final = 64
"""What is under way on one path of one connection; behind it the sender's own kernel waits."""
RESEND_SECONDS: Final = (0.2, 0.6)
"""What a lost packet costs: TCP sends it again after at least 200 ms (Linux, RFC 6298)."""
DIAL_SECONDS: Final = 5.0

_FROM = re.compile(rb"\r\nkvstore-from: *([0-9a-f]+)", re.IGNORECASE)


class Weather(msgspec.Struct, frozen=True):
    """How one direction between two members is.

    Attributes:
        blocked: Nothing gets through.
        delay_seconds: Each chunk takes so long.
        jitter_seconds: And up to so much more; order is kept, as TCP keeps it.
        loss: The share of chunks that have to be sent again.
        bytes_per_second: 0: no limit.
    """

    blocked: bool = False
    delay_seconds: float = 0.0
    jitter_seconds: float = 0.0
    loss: float = 0.0
    bytes_per_second: float = 0.0


FAIR: Final = Weather()


class Path:
    """One direction between two members, and what all connections on it have to go through."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._open = asyncio.Event()
        self._open.set()
        self._weather = FAIR
        self.writers: dict[int, asyncio.StreamWriter] = {}
        """By number: the connections on it, so that they can be cut."""
        self.felt = 0
        """What was held back, lost or slowed since the weather turned bad: who breaks things asks
        for it, as bad weather where nobody travels breaks nothing."""

    def set(self, weather: Weather) -> None:
        """From now on it is like this."""
        if weather != FAIR:
            self.felt = 0
        self._weather = weather
        if weather.blocked:
            self._open.clear()
        else:
            self._open.set()

    async def wait_open(self) -> None:
        """Wait until something gets through."""
        if not self._open.is_set():
            self.felt += 1
        await self._open.wait()

    def due(self, now: float, before: float, size_bytes: int) -> float:
        """When a chunk arrives that leaves now, behind one that arrives at ``before``."""
        weather = self._weather
        arrival = now + weather.delay_seconds + self._rng.uniform(0.0, weather.jitter_seconds)
        if self._rng.random() < weather.loss:
            arrival += self._rng.uniform(*RESEND_SECONDS)
            self.felt += 1
        elif not weather.loss and (weather.delay_seconds or weather.bytes_per_second):
            self.felt += 1
        arrival = max(arrival, before)
        if weather.bytes_per_second:
            arrival += size_bytes / weather.bytes_per_second
        return arrival

    def cut(self) -> int:
        """Break every connection on it; returns how many there were."""
        writers = list(self.writers.values())
        for writer in writers:
            writer.transport.abort()
        return len(writers)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: Path) -> None:
    """Carry everything from one side to the other, as the path allows; then close."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_WAITING_MAX)

    async def deliver() -> None:
        while True:
            due, chunk = await waiting.get()
            await asyncio.sleep(max(due - loop.time(), 0.0))
            await path.wait_open()
            if not chunk:
                return
            writer.write(chunk)
            await writer.drain()

    delivery = asyncio.create_task(deliver())
    before = 0.0
    try:
        while True:
            with contextlib.suppress(OSError):
                chunk = b""
                chunk = await reader.read(CHUNK_BYTES)
            before = path.due(loop.time(), before, len(chunk))
            putting = asyncio.ensure_future(waiting.put((before, chunk)))
            await asyncio.wait({putting, delivery}, return_when=asyncio.FIRST_COMPLETED)
            if delivery.done() or not chunk:
                break
        with contextlib.suppress(OSError):
            await delivery
    finally:
        delivery.cancel()
        writer.close()


class Relay:
    """All paths and all ports."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._paths: dict[tuple[str, str], Path] = {}
        self._names: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._connections = 0

    def path(self, source: str, target: str) -> Path:
        """The direction from one member to another; a source nobody knows is ""."""
        if (source, target) not in self._paths:
            self._paths[source, target] = Path(random.Random(self._rng.getrandbits(64)))
        return self._paths[source, target]

    async def open(self, name: str, listen: tuple[str, int], target: tuple[str, int]) -> None:
        """Listen for whoever wants to speak to a member."""

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None, "a connection without a task"
            self._tasks.add(task)
            try:
                await self._serve(name, target, reader, writer)
            except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
                pass  # Either side went away, which is theirs to notice.
            finally:
                writer.close()
                self._tasks.discard(task)

        self._servers.append(await asyncio.start_server(accept, *listen, limit=HEAD_BYTES_MAX))

    async def _serve(
        self,
        name: str,
        target: tuple[str, int],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        async with asyncio.timeout(HEAD_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        found = _FROM.search(head)
        source = self._names.get(found.group(1).decode(), "") if found else ""
        there, back = self.path(source, name), self.path(name, source)
        await there.wait_open()
        async with asyncio.timeout(DIAL_SECONDS):
            answers, requests = await asyncio.open_connection(*target)
        requests.write(head)
        self._connections += 1
        number = self._connections
        there.writers[number], back.writers[number] = requests, writer
        try:
            await asyncio.gather(_carry(reader, requests, there), _carry(answers, writer, back))
        finally:
            del there.writers[number], back.writers[number]
            requests.close()

    async def close(self) -> None:
        """Stop listening, and end what is under way."""
        for server in self._servers:
            server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one order."""
        what = order["do"]
        if what == "open":
            host, port = order["listen"]
            await self.open(order["name"], (host, port), tuple(order["target"]))
        elif what == "names":
            self._names = dict(order["names"])
        elif what == "weather":
            weather = msgspec.convert(order["weather"], Weather)
            for source, target in order["paths"]:
                self.path(source, target).set(weather)
        elif what == "cut":
            return {"cut": sum(self.path(*pair).cut() for pair in order["paths"])}
        elif what == "felt":
            return {"felt": sum(self.path(*pair).felt for pair in order["paths"])}
        else:
            raise ValueError(f"no order: {what}")
        return {}


async def _main(seed: int) -> None:
    relay = Relay(seed)
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        try:
            answer = await relay.obey(msgspec.json.decode(line))
        except Exception as error:  # noqa: BLE001 - whoever gave the order is told
            answer = {"error": repr(error)}
        sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(int(sys.argv[1])))
