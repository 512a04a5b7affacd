"""A node that must not start says why, and leaves nothing behind."""

import asyncio
import gc
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from kvstore.config import ServerConfig
from kvstore.run import _settle_collector, run


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


async def test_a_key_that_is_not_there_is_named_before_anything_is_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    cert = str(tmp_path / "c.pem")
    config = ServerConfig(
        data_dir=str(data),
        listen_client_urls=("https://127.0.0.1:1",),
        cert_file=cert,
        key_file=str(tmp_path / "k.pem"),
    )
    with caplog.at_level(logging.CRITICAL, "kvstore"):
        assert await run(config) == 1
    assert f"cannot start: --cert-file {cert}: cannot be read: No such file" in caplog.text
    assert not data.exists()


@pytest.mark.parametrize(
    ("new_loop", "looks_for_old_ones"),
    [(asyncio.SelectorEventLoop, True), (uvloop.new_event_loop, False)],
    ids=["asyncio", "uvloop"],
)
def test_old_cycles_are_looked_for_where_the_event_loop_leaves_some(
    new_loop: Callable[[], asyncio.AbstractEventLoop], looks_for_old_ones: bool
) -> None:
    async def settle() -> None:
        _settle_collector()

    before = gc.get_threshold()
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(settle())
        assert (gc.get_threshold()[2] <= 10) is looks_for_old_ones
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
