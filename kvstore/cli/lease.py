"""``kvstore lease``: grant, revoke, keep-alive, timetolive, list."""

from __future__ import annotations

import time

import click

from kvstore.cli.options import LEASE_ID, client_command, output_option
from kvstore.cli.output import write_json
from kvstore.client import Client


@click.group()
def lease() -> None:
    """Keys that vanish when nobody keeps them alive."""


@lease.command()
@click.argument("ttl", type=int)
@click.option("--id", "lease_id", type=LEASE_ID, default=0, help="Id to use (hexadecimal).")
@output_option
@client_command
def grant(client: Client, ttl: int, lease_id: int, form: str) -> None:
    """Make a lease of TTL seconds."""
    response = client.lease_grant(ttl, lease_id)
    if form == "json":
        write_json(response)
    else:
        print(f"lease {response.ID:016x} granted with TTL({response.TTL}s)")


@lease.command()
@click.argument("lease_id", type=LEASE_ID)
@output_option
@client_command
def revoke(client: Client, lease_id: int, form: str) -> None:
    """End a lease; its keys are deleted."""
    response = client.lease_revoke(lease_id)
    if form == "json":
        write_json(response)
    else:
        print(f"lease {lease_id:016x} revoked")


@lease.command("keep-alive")
@click.argument("lease_id", type=LEASE_ID)
@click.option("--once", is_flag=True, help="Once, instead of until Ctrl-C.")
@output_option
@client_command
def keep_alive(client: Client, lease_id: int, form: str, *, once: bool) -> None:
    """Keep a lease from running out."""
    while True:
        response = client.lease_keep_alive(lease_id)
        if form == "json":
            write_json(response)
        else:
            print(f"lease {response.ID:016x} keepalived with TTL({response.TTL})", flush=True)
        if once:
            return
        # A third of the time is left for two more attempts.
        time.sleep(max(response.TTL / 3, 0.5))


@lease.command()
@click.argument("lease_id", type=LEASE_ID)
@click.option("--keys", is_flag=True, help="Print the keys that are attached.")
@output_option
@client_command
def timetolive(client: Client, lease_id: int, form: str, *, keys: bool) -> None:
    """Print how long a lease has left."""
    response = client.lease_time_to_live(lease_id, keys=keys)
    if form == "json":
        write_json(response)
        return
    if response.TTL < 0:
        print(f"lease {lease_id:016x} already expired")
        return
    line = (
        f"lease {response.ID:016x} granted with TTL({response.grantedTTL}s), "
        f"remaining({response.TTL}s)"
    )
    if keys:
        names = " ".join(key.decode(errors="replace") for key in sorted(response.keys))
        line += f", attached keys([{names}])"
    print(line)


@lease.command("list")
@output_option
@client_command
def list_(client: Client, form: str) -> None:
    """Print all leases, the soonest to run out first."""
    response = client.lease_list()
    if form == "json":
        write_json(response)
        return
    print(f"found {len(response.leases)} leases")
    for row in response.leases:
        print(f"{row.ID:016x}")
