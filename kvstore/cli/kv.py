"""``kvstore put``, ``get`` and ``del``."""

from __future__ import annotations

import sys

import click

from kvstore.cli.options import (
    LEASE_ID,
    client_command,
    encoded,
    key_range,
    output_option,
    range_options,
)
from kvstore.cli.output import write_json, write_line, write_pair
from kvstore.client import Client
from kvstore.types import SortOrder, SortTarget


@click.command()
@click.argument("key")
@click.argument("value", required=False)
@click.option("--lease", type=LEASE_ID, default=0, help="Lease to attach the key to (hexadecimal).")
@click.option("--prev-kv", is_flag=True, help="Print what the key held before.")
@click.option("--ignore-value", is_flag=True, help="Keep the value, change only the lease.")
@click.option("--ignore-lease", is_flag=True, help="Keep the lease, change only the value.")
@output_option
@client_command
def put(
    client: Client,
    key: str,
    value: str | None,
    lease: int,
    form: str,
    *,
    prev_kv: bool,
    ignore_value: bool,
    ignore_lease: bool,
) -> None:
    """Write VALUE under KEY. Without VALUE, or with -, it is read from standard input."""
    if ignore_value:
        if value is not None:
            raise click.UsageError("--ignore-value keeps the value: leave VALUE out")
        content = b""
    elif value is None or value == "-":
        content = sys.stdin.buffer.read()
    else:
        content = encoded(value)
    response = client.put(
        encoded(key),
        content,
        lease=lease,
        prev_kv=prev_kv,
        ignore_value=ignore_value,
        ignore_lease=ignore_lease,
    )
    if form == "json":
        write_json(response)
        return
    write_line(b"OK")
    if response.prev_kv is not None:
        write_pair(response.prev_kv)


@click.command()
@click.argument("key")
@click.argument("range_end", required=False)
@range_options
@click.option("--rev", "revision", type=int, default=0, help="Read as of this revision.")
@click.option("--limit", type=int, default=0, help="Most keys to print; 0: all.")
@click.option(
    "--order",
    type=click.Choice(["ascend", "descend"], case_sensitive=False),
    help="Order of the keys.",
)
@click.option(
    "--sort-by",
    type=click.Choice(["key", "version", "create", "modify", "value"], case_sensitive=False),
    help="What to order by.",
)
@click.option(
    "--consistency",
    type=click.Choice(["l", "s"]),
    default="l",
    show_default=True,
    help="l: what a quorum has (linearizable); s: what the member has (serializable).",
)
@click.option("--keys-only", is_flag=True, help="Print keys, not values.")
@click.option("--count-only", is_flag=True, help="Print how many there are.")
@click.option("--print-value-only", is_flag=True, help="Print values, not keys.")
@output_option
@client_command
def get(
    client: Client,
    key: str,
    range_end: str | None,
    revision: int,
    limit: int,
    order: str | None,
    sort_by: str | None,
    consistency: str,
    form: str,
    *,
    prefix: bool,
    from_key: bool,
    keys_only: bool,
    count_only: bool,
    print_value_only: bool,
) -> None:
    """Print KEY and its value, or all from KEY up to RANGE_END."""
    if keys_only and print_value_only:
        raise click.UsageError("--keys-only and --print-value-only exclude each other")
    start, end = key_range(key, range_end, prefix=prefix, from_key=from_key)
    sort_order, sort_target = sorting(order, sort_by)
    response = client.get(
        start,
        end,
        revision=revision,
        limit=limit,
        sort_order=sort_order,
        sort_target=sort_target,
        serializable=consistency == "s",
        keys_only=keys_only,
        count_only=count_only,
    )
    if form == "json":
        write_json(response)
    elif count_only:
        write_line(str(response.count).encode())
    else:
        for pair in response.kvs:
            write_pair(pair, keys=not print_value_only, values=not keys_only)


def sorting(order: str | None, sort_by: str | None) -> tuple[SortOrder, SortTarget]:
    """What ``--order`` and ``--sort-by`` mean."""
    target = {"modify": "MOD"}.get(sort_by or "key", (sort_by or "key").upper())
    return SortOrder[order.upper()] if order else SortOrder.NONE, SortTarget[target]


@click.command("del")
@click.argument("key")
@click.argument("range_end", required=False)
@range_options
@click.option("--prev-kv", is_flag=True, help="Print what was deleted.")
@output_option
@client_command
def delete(
    client: Client,
    key: str,
    range_end: str | None,
    form: str,
    *,
    prefix: bool,
    from_key: bool,
    prev_kv: bool,
) -> None:
    """Delete KEY, or all from KEY up to RANGE_END; print how many there were."""
    start, end = key_range(key, range_end, prefix=prefix, from_key=from_key)
    response = client.delete(start, end, prev_kv=prev_kv)
    if form == "json":
        write_json(response)
        return
    write_line(str(response.deleted).encode())
    for pair in response.prev_kvs:
        write_pair(pair)
