"""``kvstore compaction``, ``defrag``, ``move-leader`` and ``downgrade``."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from kvstore.cli.options import asked, client_command, cluster_option, output_option
from kvstore.cli.output import took_text, write_json
from kvstore.client import Client
from kvstore.errors import KvError
from kvstore.types import DowngradeAction


class MemberIdType(click.ParamType[int]):
    """A member's id, in hexadecimal as ``member list`` prints it."""

    name = "member"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read hexadecimal."""
        if isinstance(value, int):
            return value
        try:
            return int(value, 16)
        except ValueError:
            self.fail(
                f"{value!r} is no member id: 'kvstore member list' shows them, in hexadecimal",
                param,
                ctx,
            )


@click.command()
@click.argument("revision", type=int)
@click.option("--physical", is_flag=True, help="Wait until the memory is free, too.")
@output_option
@client_command
def compaction(client: Client, revision: int, form: str, *, physical: bool) -> None:
    """Forget history below REVISION; what is current at it stays.

    'kvstore get "" --prefix --limit=1 -w json' shows the current revision.
    """
    response = client.compact(revision, physical=physical)
    if form == "json":
        write_json(response)
    else:
        print(f"compacted revision {revision}")


@click.command()
@cluster_option
@client_command
def defrag(client: Client, *, cluster: bool) -> int:
    """Let each endpoint give unused room back. All data is in memory here: there is none."""
    failed = 0
    with asked(client, cluster=cluster) as everyone:
        for place in everyone.transport.endpoints:
            begun = time.monotonic()
            try:
                everyone.defragment(place)
            except KvError as error:
                words = f"error: failed to defragment member[{place.url}]: {error.message}"
                print(words, file=sys.stderr)
                failed = 1
                continue
            took = took_text(time.monotonic() - begun)
            print(f"Finished defragmenting member[{place.url}]. took {took}")
    return failed


@click.command("move-leader")
@click.argument("target", type=MemberIdType())
@output_option
@client_command
def move_leader(client: Client, target: int, form: str) -> None:
    """Hand leadership to the member TARGET (hexadecimal, as 'kvstore member list' shows it)."""
    with asked(client, cluster=True) as everyone:
        leader = everyone.leader_endpoint()
        if leader is None:
            raise click.ClickException(
                "no leader answers under the members' client URLs: try again after the election"
            )
        before = everyone.status(leader).leader
        response = everyone.move_leader(target, leader)
    if form == "json":
        write_json(response)
    else:
        print(f"Leadership transferred from {before:x} to {target:x}")


@click.group()
def downgrade() -> None:
    """Prepare the cluster for a version one minor lower."""


@downgrade.command()
@click.argument("version")
@client_command
def validate(client: Client, version: str) -> None:
    """See whether a downgrade to VERSION (such as 3.6.0) is possible."""
    _downgrade(client, DowngradeAction.VALIDATE, version)


@downgrade.command()
@click.argument("version")
@client_command
def enable(client: Client, version: str) -> None:
    """Prepare a downgrade to VERSION (such as 3.6.0)."""
    _downgrade(client, DowngradeAction.ENABLE, version)


@downgrade.command()
@client_command
def cancel(client: Client) -> None:
    """Call a downgrade off."""
    _downgrade(client, DowngradeAction.CANCEL, "")


def _downgrade(client: Client, action: DowngradeAction, version: str) -> None:
    response = client.downgrade(action, version)
    print(f"Downgrade {action.name.lower()} success, cluster version {response.version}")
