"""``kvstore member`` and ``version``: who is there."""

from __future__ import annotations

import click

from kvstore.cli.options import client_command, output_option
from kvstore.cli.output import write_json
from kvstore.client import Client
from kvstore.version import KVSTORE_VERSION, VERSION


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
