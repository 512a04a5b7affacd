"""The relay carries what it is given, in order and whole, however bad the weather is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import pytest

from tests.chaos.relay import FAIR, Path, Relay, Weather
from tests.e2e.cluster import HOST, free_ports

pytestmark = pytest.mark.e2e

HEAD: Final = b"GET /raft HTTP/1.1\r\nKvstore-From: a1\r\nKvstore-To: b2\r\n\r\n"
BULK: Final = random.Random(3).randbytes(300_000)
SECONDS: Final = 20.0


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[Relay, asyncio.StreamReader, asyncio.StreamWriter]]:
    """``one`` has dialled ``two``, which answers with whatever it is told."""
    echoing: list[asyncio.StreamWriter] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        echoing.append(writer)
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    front, back = free_ports(2)
    relay = Relay(1)
    server = await asyncio.start_server(echo, HOST, back)
    await relay.obey({"do": "names", "names": {"a1": "one", "b2": "two"}})
    await relay.obey({"do": "open", "name": "two", "listen": [HOST, front], "target": [HOST, back]})
    reader, writer = await asyncio.open_connection(HOST, front)
    try:
        yield relay, reader, writer
    finally:
        writer.close()
        for one in echoing:
            one.close()
        server.close()
        await relay.close()


async def _weather(relay: Relay, source: str, target: str, weather: Weather) -> None:
    order = {
        "blocked": weather.blocked,
        "loss": weather.loss,
        "delay_seconds": weather.delay_seconds,
    }
    await relay.obey({"do": "weather", "paths": [[source, target]], "weather": order})


@pytest.mark.parametrize(
    "weather", [FAIR, Weather(loss=0.2), Weather(delay_seconds=0.01), Weather(bytes_per_second=3e6)]
)
async def test_what_is_sent_arrives_whole_and_in_order(weather: Weather) -> None:
    async with linked() as (relay, reader, writer):
        relay.path("one", "two").set(weather)
        writer.write(HEAD + BULK)
        answered = await asyncio.wait_for(reader.readexactly(len(HEAD + BULK)), SECONDS)
        assert answered == HEAD + BULK


@pytest.mark.parametrize(("source", "target"), [("one", "two"), ("two", "one")])
async def test_a_direction_that_is_blocked_holds_back_until_it_is_open(
    source: str, target: str
) -> None:
    async with linked() as (relay, reader, writer):
        writer.write(HEAD)
        await asyncio.wait_for(reader.readexactly(len(HEAD)), SECONDS)
        await _weather(relay, source, target, Weather(blocked=True))
        writer.write(b"late")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(4), 0.1)
        await _weather(relay, source, target, FAIR)
        assert await asyncio.wait_for(reader.readexactly(4), SECONDS) == b"late"


async def test_a_direction_that_is_blocked_lets_nobody_dial() -> None:
    async with linked() as (relay, reader, writer):
        await _weather(relay, "one", "two", Weather(blocked=True))
        writer.write(HEAD)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(1), 0.1)
        await _weather(relay, "one", "two", FAIR)
        assert await asyncio.wait_for(reader.readexactly(len(HEAD)), SECONDS) == HEAD


async def test_a_connection_that_is_cut_ends_on_both_sides() -> None:
    async with linked() as (relay, reader, writer):
        writer.write(HEAD)
        await asyncio.wait_for(reader.readexactly(len(HEAD)), SECONDS)
        assert (await relay.obey({"do": "cut", "paths": [["two", "one"]]})) == {"cut": 1}
        with suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), SECONDS) == b""


def test_packets_that_are_lost_come_late_and_none_overtakes_another() -> None:
    path = Path(random.Random(7))
    path.set(Weather(loss=0.5, jitter_seconds=0.1))
    arrivals = [0.0]
    for number in range(200):
        arrivals.append(path.due(number / 100, arrivals[-1], 100))
    assert arrivals == sorted(arrivals)
    assert max(at - number / 100 for number, at in enumerate(arrivals[1:])) > 0.2


async def _felt(relay: Relay, source: str, target: str) -> int:
    answer = await relay.obey({"do": "felt", "paths": [[source, target]]})
    return int(answer["felt"])


async def test_what_bad_weather_did_is_counted() -> None:
    async with linked() as (relay, reader, writer):
        writer.write(HEAD)
        await asyncio.wait_for(reader.readexactly(len(HEAD)), SECONDS)
        await _weather(relay, "one", "two", Weather(blocked=True))
        # Nobody travels: nothing is broken yet.
        assert await _felt(relay, "one", "two") == 0
        writer.write(b"late")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(4), 0.1)
        assert await _felt(relay, "one", "two") == 1
        assert await _felt(relay, "two", "one") == 0
        await _weather(relay, "one", "two", FAIR)
        await asyncio.wait_for(reader.readexactly(4), SECONDS)
        # It is asked for after the weather has changed as well; the next time counts anew.
        assert await _felt(relay, "one", "two") == 1
        await _weather(relay, "one", "two", Weather(delay_seconds=0.001))
        assert await _felt(relay, "one", "two") == 0


@pytest.mark.parametrize(
    ("weather", "counted"),
    [
        (FAIR, False),
        (Weather(loss=1.0), True),
        # What is lost counts, not that all is a little slower.
        (Weather(loss=1e-12, delay_seconds=0.002), False),
        (Weather(delay_seconds=0.01), True),
        (Weather(bytes_per_second=1e6), True),
    ],
)
def test_weather_is_felt_by_what_it_does(weather: Weather, *, counted: bool) -> None:
    path = Path(random.Random(1))
    path.set(weather)
    path.due(1.0, 0.0, 1000)
    assert bool(path.felt) == counted
