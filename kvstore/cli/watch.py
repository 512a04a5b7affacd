"""``kvstore watch``."""

from __future__ import annotations

import sys

import click

from kvstore.cli.options import client_command, key_range, output_option, range_options
from kvstore.cli.output import write_json, write_line, write_pair
from kvstore.client import Client
from kvstore.types import Event, EventType


@click.command()
@click.argument("key")
@click.argument("range_end", required=False)
@range_options
@click.option("--rev", "revision", type=int, default=0, help="Begin with this revision.")
@click.option("--prev-kv", is_flag=True, help="Print what the key held before, too.")
@click.option("--progress-notify", is_flag=True, help="Print now and then how far the watch is.")
@output_option
@client_command
def watch(
    client: Client,
    key: str,
    range_end: str | None,
    revision: int,
    form: str,
    *,
    prefix: bool,
    from_key: bool,
    prev_kv: bool,
    progress_notify: bool,
) -> None:
    """Print each change of KEY, or of all from KEY up to RANGE_END, until Ctrl-C."""
    start, end = key_range(key, range_end, prefix=prefix, from_key=from_key)
    with client.watch(
        start,
        end,
        start_revision=revision,
        prev_kv=prev_kv,
        progress_notify=progress_notify,
    ) as stream:
        for response in stream:
            if form == "json":
                write_json(response)
            elif response.events:
                for event in response.events:
                    _write_event(event)
            elif progress_notify and response.header is not None:
                write_line(b"progress notify: %d" % response.header.revision)
            sys.stdout.flush()


def _write_event(event: Event) -> None:
    write_line(event.type.name.encode())
    if event.prev_kv is not None:
        write_pair(event.prev_kv)
    if event.kv is not None:
        write_pair(event.kv, values=event.type is EventType.PUT or event.prev_kv is not None)
