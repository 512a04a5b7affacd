"""``kvstore member`` and ``version``: who is there, and how that changes."""

from __future__ import annotations

import click

from kvstore.cli.options import client_command, output_option, table_option
from kvstore.cli.output import write_json, write_table
from kvstore.cli.replace import DEFAULT_WAIT_SECONDS, Replacement, start_words
from kvstore.cli.upkeep import MemberIdType
from kvstore.client import Client
from kvstore.types import ResponseHeader
from kvstore.version import KVSTORE_VERSION, VERSION

_MEMBER = MemberIdType()


@click.group()
def member() -> None:
    """The members of the cluster."""


@member.command("list")
@table_option
@client_command
def list_(client: Client, form: str) -> None:
    """Print id, state, name, peer URLs, client URLs and whether it is a learner."""
    response = client.member_list()
    if form == "json":
        write_json(response)
        return
    rows = [
        (
            f"{row.ID:x}",
            "started" if row.name else "unstarted",
            row.name,
            ",".join(row.peerURLs),
            ",".join(row.clientURLs),
            str(row.isLearner).lower(),
        )
        for row in response.members
    ]
    if form == "table":
        heads = ("ID", "status", "name", "peer addrs", "client addrs", "is learner")
        write_table(heads, rows)
        return
    for row in rows:
        print(", ".join(row))


def _peer_urls(text: str) -> list[str]:
    return [url for url in (part.strip() for part in text.split(",")) if url]


def _cluster(header: ResponseHeader | None) -> str:
    return f"{header.cluster_id:x}" if header is not None else "?"


@member.command()
@click.argument("name")
@click.option("--peer-urls", required=True, help="Where it will listen to its peers.")
@click.option("--learner", is_flag=True, help="Without a vote, until it is promoted.")
@output_option
@client_command
def add(client: Client, name: str, peer_urls: str, form: str, *, learner: bool) -> None:
    """Let a new member NAME in, and print how it is to be started."""
    response = client.member_add(_peer_urls(peer_urls), learner=learner)
    if form == "json":
        write_json(response)
        return
    assert response.member is not None, "an addition names whom it added"
    print(f"Member {response.member.ID:x} added to cluster {_cluster(response.header)}\n")
    print(start_words(name, response.member, response.members))


@member.command()
@click.argument("member_id", metavar="MEMBER_ID", type=_MEMBER)
@output_option
@client_command
def remove(client: Client, member_id: int, form: str) -> None:
    """Take a member out for good. Its process stops by itself; its id never comes back."""
    response = client.member_remove(member_id)
    if form == "json":
        write_json(response)
    else:
        print(f"Member {member_id:x} removed from cluster {_cluster(response.header)}")


@member.command()
@click.argument("member_id", metavar="MEMBER_ID", type=_MEMBER)
@click.option("--peer-urls", required=True, help="Where it listens to its peers from now on.")
@output_option
@client_command
def update(client: Client, member_id: int, peer_urls: str, form: str) -> None:
    """Tell the cluster that a member listens to its peers elsewhere."""
    response = client.member_update(member_id, _peer_urls(peer_urls))
    if form == "json":
        write_json(response)
    else:
        print(f"Member {member_id:x} updated in cluster {_cluster(response.header)}")


@member.command()
@click.argument("member_id", metavar="MEMBER_ID", type=_MEMBER)
@output_option
@client_command
def promote(client: Client, member_id: int, form: str) -> None:
    """Let a learner vote. It must have caught up with the leader."""
    response = client.member_promote(member_id)
    if form == "json":
        write_json(response)
    else:
        print(f"Member {member_id:x} promoted in cluster {_cluster(response.header)}")


@member.command()
@click.argument("who", metavar="NAME|MEMBER_ID")
@click.option("--peer-urls", help="Where the new one listens to its peers. [default: as the old]")
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(min=0),
    default=DEFAULT_WAIT_SECONDS,
    show_default=True,
    help="Seconds to wait until the new one is started and has caught up.",
)
@client_command
def replace(client: Client, who: str, peer_urls: str | None, wait_seconds: float) -> None:
    """Put a new member in the place of one that lost its data, or its machine.

    Takes the lost one out, lets a learner in with the same peer URLs (or those given), says how to
    start it, waits until it has caught up, and gives it its vote. Was it interrupted, run it again:
    it goes on where it stopped; once the lost one is out, --peer-urls says which one is meant.
    """
    urls = _peer_urls(peer_urls) if peer_urls else []
    Replacement(client, who, urls, wait_seconds).run()


@click.command()
def version() -> None:
    """Print the version of this program."""
    print(f"kvstore {KVSTORE_VERSION}, API of etcd {VERSION}")
