"""What these tests share."""

import asyncio

import pytest


@pytest.fixture
def settle():
    """Let everything that can happen now happen."""

    async def settled(turns=60):
        for _ in range(turns):
            await asyncio.sleep(0)

    return settled
