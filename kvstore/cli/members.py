"""``kvstore status``, ``member list`` and ``version``: who is there, and how they are."""

from __future__ import annotations

import sys
from typing import Any

import click
import msgspec

from kvstore.cli.options import client_command, output_option
from kvstore.cli.output import write_json, write_line
from kvstore.client import Client, json_codec
from kvstore.errors import KvError
from kvstore.version import KVSTORE_VERSION, VERSION


@click.command()
@output_option
@client_command
def status(client: Client, form: str) -> int:
    """Print how each of the endpoints is; the exit code is 1 if one does not answer."""
    failed = 0
    answers: list[dict[str, Any]] = []
    for endpoint in client.transport.endpoints:
        try:
            answer = client.status(endpoint)
        except KvError as error:
            print(f"error: {endpoint.url}: {error.message}", file=sys.stderr)
            failed = 1
            continue
        answers.append({"Endpoint": endpoint.url, "Status": json_codec.to_object(answer)})
        if form == "simple":
            header = answer.header
            member = header.member_id if header is not None else 0
            print(
                f"{endpoint.url}, {member:x}, {answer.version}, {_size(answer.dbSize)}, "
                f"{'leader' if member == answer.leader else 'follower'}, "
                f"term {answer.raftTerm}, index {answer.raftIndex}, "
                f"applied {answer.raftAppliedIndex}"
                + (f", {'; '.join(answer.errors)}" if answer.errors else "")
            )
    if form == "json":
        write_line(msgspec.json.encode(answers))
    return failed


@click.group()
def member() -> None:
    """The members of the cluster."""


@member.command("list")
@output_option
@client_command
def list_(client: Client, form: str) -> None:
    """Print id, state, name, peer URLs, client URLs and whether it is a learner."""
    response = client.member_list()
    if form == "json":
        write_json(response)
        return
    for row in response.members:
        state = "started" if row.name else "unstarted"
        print(
            f"{row.ID:x}, {state}, {row.name}, {','.join(row.peerURLs)}, "
            f"{','.join(row.clientURLs)}, {str(row.isLearner).lower()}"
        )


@click.command()
def version() -> None:
    """Print the version of this program."""
    print(f"kvstore {KVSTORE_VERSION}, API of etcd {VERSION}")


def _size(size_bytes: int) -> str:
    size = float(size_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
