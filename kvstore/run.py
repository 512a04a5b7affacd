"""A process: a node, its service and its front door, from the first log line to a clean end."""

import asyncio
import gc
import logging
import random
import secrets
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvstore.api.access import Access
from kvstore.api.front_door import FrontDoor
from kvstore.api.grpc.face import Face
from kvstore.api.limits import ApiLimits
from kvstore.errors import ConfigError, KvstoreError, RemovedError
from kvstore.metrics import Metrics
from kvstore.server import joining
from kvstore.server.identity import Identity
from kvstore.server.network.base import Network, NetworkError
from kvstore.server.network.http import HttpNetwork
from kvstore.server.node import Environment, Node
from kvstore.server.pacing import READING_SECONDS, ClockBudget
from kvstore.server.self_replacement import MemberOpening
from kvstore.service.service import Service
from kvstore.tls import ports
from raft.errors import RaftError
from wal.errors import WalError
from wal.files import OsDisk

if TYPE_CHECKING:
    from kvstore.config import ServerConfig

log = logging.getLogger("kvstore.server")

GRACE_SECONDS = 3.0
"""How long requests under way may take to end when the process is told to stop."""
SILENT_ELECTIONS = 5
"""A link to a peer that is silent for so many election timeouts is dialled anew."""
YOUNG_OBJECTS_MAX = 20_000
EXIT_REMOVED = 5
"""Apart from all others: whoever restarts processes need not start this one again."""


def real_environment(
    config: "ServerConfig", loop: asyncio.AbstractEventLoop, tls: ports.Port | None = None
) -> Environment:
    """The operating system's disk, HTTP to the peers, and chance."""
    rng = random.Random(secrets.randbits(64))

    def new_network(identity: Identity) -> Network:
        return HttpNetwork(
            identity.cluster_id,
            identity.member_id,
            config.listen_peer_urls,
            rng,
            silence_seconds_max=SILENT_ELECTIONS * config.election_timeout_ms / 1000,
            tls=tls,
        )

    return Environment(
        OsDisk(loop.call_soon_threadsafe, loop),
        new_network,
        rng,
        clock=time.monotonic,
        secret_rng=secrets.SystemRandom(),
        read_file=lambda path: Path(path).read_bytes(),
        # Clients count the end of a signed token on it.
        wall_clock=time.time,  # noqa: TID251
    )


async def run(
    config: "ServerConfig",
    *,
    stop: asyncio.Event | None = None,
    on_ready: Callable[[Node], None] | None = None,
) -> int:
    """Run one node until it is told to stop (SIGTERM, SIGINT, or ``stop``), or cannot go on.

    Returns:
        The exit code: 0 after a clean stop, 1 if it could not start or had to give up, 5 once it
        was removed from its cluster; the log says why.
    """
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        client_tls, peer_tls = ports.client_port(config), ports.peer_port(config)
    except ConfigError as error:
        log.critical("cannot start: %s", error)
        return 1
    environment = real_environment(config, loop, peer_tls)
    opening = MemberOpening(config, environment, joining.over_http(peer_tls))
    failure: BaseException | None = None
    while True:
        try:
            node = await _open(opening, failure, stop)
            if node is None:
                log.info("stopped")
                return 0
            _settle_collector()
            log.info(
                "member %x (%s) of cluster %x: %s data directory %s, log at index %d, term %d",
                node.member_id,
                config.name,
                node.cluster_id,
                "new" if node.peer_port.is_blank() else "recovered",
                config.data_dir,
                node.driver.raft.last_index,
                node.driver.raft.term,
            )
            await node.start()
        except RemovedError:
            return EXIT_REMOVED
        except (KvstoreError, RaftError, WalError, NetworkError, OSError) as error:
            log.critical("cannot start on data directory %s: %s", config.data_dir, error)
            return 1
        code = await _serve(node, client_tls, stop, on_ready)
        failure = node.failed.result() if node.failed.done() else None
        if failure is None or stop.is_set() or not opening.ends_in_replacement(failure):
            return code


async def _open(
    opening: MemberOpening, failure: BaseException | None, stop: asyncio.Event
) -> Node | None:
    """Open the member; None if the process is told to stop meanwhile."""
    opened = asyncio.ensure_future(opening.open(failure))
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({opened, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not opened.done():
        opened.cancel()
        await asyncio.wait({opened})
    return None if opened.cancelled() else opened.result()


def _settle_collector() -> None:
    """Take what was loaded out of the cyclic collector's sight.

    And let it look at young objects only, on uvloop.

    The store's records are invisible to it, and nothing long-lived is in a cycle; a full collection
    over a million keys would hold the loop for a quarter of a second and find nothing. On asyncio's
    own loop it finds the transport of every connection that lived a while: that is in a cycle with
    itself, a kilobyte each, which would stay for good.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    leaves_cycles = isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop)
    gc.set_threshold(YOUNG_OBJECTS_MAX, 20, 10 if leaves_cycles else 1_000_000)


def _api_limits(config: "ServerConfig") -> ApiLimits:
    return ApiLimits(
        max_request_bytes=config.max_request_bytes,
        max_txn_ops=config.max_txn_ops,
        max_connections=config.max_connections,
        watch_bytes_max=config.watch_bytes_max,
        max_streams=config.max_concurrent_streams,
        keepalive_min_seconds=config.grpc_keepalive_min_time_ms / 1000,
        keepalive_interval_seconds=config.grpc_keepalive_interval_ms / 1000,
        keepalive_timeout_seconds=config.grpc_keepalive_timeout_ms / 1000,
    )


async def _serve(
    node: Node, tls: ports.Port, stop: asyncio.Event, on_ready: Callable[[Node], None] | None
) -> int:
    config = node.config
    limits = _api_limits(config)
    metrics = Metrics(node)
    access = Access(config.host_whitelist, config.cors)
    service = Service(node)
    grpc = Face(service, limits.watch_bytes_max, node.read_budget, limits.fields_max)
    reading = ClockBudget(node.clock, READING_SECONDS)
    door = FrontDoor(service, limits, metrics.render, node.read_budget, access, tls, grpc, reading)
    metrics.add_door(door.counters)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await door.start(
            config.listen_client_urls,
            config.listen_metrics_urls,
            config.listen_client_http_urls,
        )
        readiness = asyncio.ensure_future(node.ready.wait())
        ends: set[asyncio.Future[Any]] = {stopping, node.failed}
        await asyncio.wait({readiness, *ends}, return_when=asyncio.FIRST_COMPLETED)
        if node.ready.is_set():
            log.info(
                "ready to serve client requests: member %x (%s) of cluster %x at %s",
                node.member_id,
                config.name,
                node.cluster_id,
                ", ".join(config.listen_client_urls),
            )
            if on_ready is not None:
                on_ready(node)
        readiness.cancel()
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        log.info("stopping")
    except OSError as error:
        log.critical("cannot start: %s", error)
        return 1
    finally:
        stopping.cancel()
        # Leadership first: clients of the others then wait for no election.
        await node.hand_over()
        # Whoever waits for a lock would else be waited for.
        await node.dismiss()
        removed = node.failed.done() and isinstance(node.failed.result(), RemovedError)
        await door.stop(0.0 if node.failed.done() and not removed else GRACE_SECONDS)
        await node.stop()
    if node.failed.done():
        return EXIT_REMOVED if removed else 1
    log.info("stopped")
    return 0
