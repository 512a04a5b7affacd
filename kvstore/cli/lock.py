"""``kvstore lock`` and ``elect``: hold something until a command has run, or until Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

import click

from kvstore.cli.options import client_command, encoded
from kvstore.cli.output import write_pair
from kvstore.cli.session import Session
from kvstore.client import Client
from kvstore.types import KeyValue

LOOK_SECONDS: Final = 0.2
"""How often a command that runs is looked at."""
GRACE_SECONDS: Final = 5.0


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which unlike Ctrl-C reaches only this process."""


EXPIRED: Final = (
    "the lease ran out, and what was held may be somebody else's by now: is the cluster reachable?"
)

_ttl = click.option(
    "--ttl",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Seconds until others may have it, if this process dies.",
)


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@_ttl
@client_command
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def lock(client: Client, name: str, command: tuple[str, ...], ttl: int) -> int:
    """Hold the lock NAME while COMMAND runs; without COMMAND, until Ctrl-C.

    Waits for its turn. COMMAND finds the lock's key in KVSTORE_LOCK_KEY and its revision, which
    grows from owner to owner, in KVSTORE_LOCK_REV (and in ETCD_LOCK_KEY, ETCD_LOCK_REV); its exit
    code is this one's. It is ended if the lease is lost. Without COMMAND the key is printed.
    """
    if command and command[0].startswith("-"):
        raise click.UsageError(f"{command[0]}: options go before NAME, COMMAND's own after it")
    with _terminable(), Session(client, ttl) as session:
        key = client.lock(encoded(name), session.lease).key
        pair = _still_there(client, key)
        if command:
            return _run(command, pair, session)
        write_pair(pair)
        _hold(session)
        client.unlock(key)
    return 0


@click.command()
@_ttl
@click.option("--listen", "-l", is_flag=True, help="Only print who leads, and each change.")
@click.argument("name")
@click.argument("value", required=False)
@client_command
def elect(client: Client, name: str, value: str | None, ttl: int, *, listen: bool) -> int:
    """Stand for election NAME, and say VALUE while leading, until Ctrl-C."""
    if listen:
        if value is not None:
            raise click.UsageError("--listen proposes nothing: leave VALUE out")
        for response in client.observe(encoded(name)):
            assert response.kv is not None, "observe passes over what holds no key"
            write_pair(response.kv)
            sys.stdout.flush()
        return 0
    if value is None:
        raise click.UsageError("a candidate needs a VALUE; --listen only looks on")
    with _terminable(), Session(client, ttl) as session:
        leader = client.campaign(encoded(name), encoded(value), session.lease).leader
        if leader is None:
            raise click.ClickException("the answer names no leader; is this a v3 API?")
        write_pair(_still_there(client, leader.key))
        _hold(session)
        client.resign(leader)
    return 0


def _still_there(client: Client, key: bytes) -> KeyValue:
    found = client.get(key).kvs
    if not found:
        raise click.ClickException(EXPIRED)
    return found[0]


def _hold(session: Session) -> None:
    """Wait for Ctrl-C or SIGTERM.

    Raises:
        click.ClickException: The lease was lost first.
    """
    sys.stdout.flush()
    try:
        session.lost.wait()
    except KeyboardInterrupt:
        return
    raise click.ClickException(EXPIRED)


def _run(command: tuple[str, ...], pair: KeyValue, session: Session) -> int:
    key, revision = os.fsdecode(pair.key), str(pair.create_revision)
    told = {
        f"{prefix}_LOCK_{what}": value
        for prefix in ("KVSTORE", "ETCD")
        for what, value in (("KEY", key), ("REV", revision))
    }
    try:
        process = subprocess.Popen(command, env=os.environ | told)
    except OSError as error:
        raise click.ClickException(f"{command[0]}: {error.strerror}") from error
    while True:
        try:
            code = process.wait(LOOK_SECONDS)
            # As a shell has it: a command that was killed by signal n ends with 128 + n.
            return code if code >= 0 else 128 - code
        except subprocess.TimeoutExpired:
            if session.lost.is_set():
                _end(process)
                raise click.ClickException(f"{EXPIRED} The command was ended.") from None
        except _Terminated:
            process.terminate()
        except KeyboardInterrupt:
            # Ctrl-C has reached the command too: it decides whether that is its end.
            continue


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end a wait as Ctrl-C does, so that what is held is given back."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
