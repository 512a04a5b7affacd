"""A node that must not start says why, and leaves nothing behind."""

import asyncio
import logging
from pathlib import Path

import pytest

from kvstore.config import ServerConfig
from kvstore.run import run


async def test_an_empty_directory_is_no_member_of_an_existing_cluster(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stop = asyncio.Event()
    stop.set()
    data = tmp_path / "data"
    config = ServerConfig(data_dir=str(data), initial_cluster_state="existing")
    with caplog.at_level(logging.CRITICAL, "kvstore"):
        assert await run(config, stop=stop) == 1
    assert f"--initial-cluster-state is existing, but {data} is empty" in caplog.text
    assert not data.exists()
