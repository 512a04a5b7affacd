"""What takes long ends with its client, and leaves nothing behind."""

import asyncio
import gc

import pytest

from kvstore.api.limits import Counters
from kvstore.api.running import Running


@pytest.mark.parametrize("ends_first", ["conversation", "connection"])
async def test_a_stream_whose_client_left_in_the_middle_is_no_mistake_of_the_servers(ends_first):
    """Its next message fails, and the connection ends it: in the same turn of the loop."""
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
    client_left = asyncio.Event()

    async def conversation():
        await client_left.wait()
        raise ConnectionResetError

    async def stubborn():
        try:
            await asyncio.Event().wait()
        finally:
            raise ConnectionResetError

    counters = Counters()
    talk = conversation() if ends_first == "conversation" else stubborn()
    stream = asyncio.ensure_future(Running(counters).stream(talk, None))
    for _ in range(5):
        await asyncio.sleep(0)
    client_left.set()
    await asyncio.sleep(0)
    stream.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stream
    del talk, stream
    gc.collect()
    assert complaints == []
    assert counters.streams_open == 0
