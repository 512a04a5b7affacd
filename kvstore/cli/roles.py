"""``kvstore role``: what may be done with which keys."""

from __future__ import annotations

import click

from kvstore.cli.options import client_command, encoded, key_range, output_option, range_options
from kvstore.cli.output import write_json, write_line
from kvstore.client import Client, prefix_end
from kvstore.types import OPEN_END, AuthRoleGetResponse, Permission, PermissionType


@click.group()
def role() -> None:
    """Roles: permissions on ranges of keys, given to users. The role root may do everything."""


@role.command("add")
@click.argument("name")
@output_option
@client_command
def role_add(client: Client, name: str, form: str) -> None:
    """Make a role without permissions."""
    response = client.role_add(name)
    if form == "json":
        write_json(response)
    else:
        print(f"Role {name} created")


@role.command("delete")
@click.argument("name")
@output_option
@client_command
def role_delete(client: Client, name: str, form: str) -> None:
    """Forget a role, and take it from all users."""
    response = client.role_delete(name)
    if form == "json":
        write_json(response)
    else:
        print(f"Role {name} deleted")


@role.command("get")
@click.argument("name")
@output_option
@client_command
def role_get(client: Client, name: str, form: str) -> None:
    """Print a role's permissions."""
    response = client.role_get(name)
    if form == "json":
        write_json(response)
    else:
        show_role(name, response)


@role.command("list")
@output_option
@client_command
def role_list(client: Client, form: str) -> None:
    """Print the names of all roles."""
    response = client.role_list()
    if form == "json":
        write_json(response)
        return
    for name in response.roles:
        print(name)


@role.command("grant-permission")
@click.argument("name")
@click.argument("kind", type=click.Choice(["read", "write", "readwrite"], case_sensitive=False))
@click.argument("key")
@click.argument("range_end", required=False)
@range_options
@output_option
@client_command
def grant_permission(
    client: Client,
    name: str,
    kind: str,
    key: str,
    range_end: str | None,
    form: str,
    *,
    prefix: bool,
    from_key: bool,
) -> None:
    """Let role NAME read or write KEY, or all from KEY up to RANGE_END."""
    start, end = key_range(key, range_end, prefix=prefix, from_key=from_key)
    response = client.role_grant_permission(name, PermissionType[kind.upper()], start, end)
    if form == "json":
        write_json(response)
    else:
        print(f"Role {name} updated")


@role.command("revoke-permission")
@click.argument("name")
@click.argument("key")
@click.argument("range_end", required=False)
@range_options
@output_option
@client_command
def revoke_permission(
    client: Client,
    name: str,
    key: str,
    range_end: str | None,
    form: str,
    *,
    prefix: bool,
    from_key: bool,
) -> None:
    """Take the permission on KEY from role NAME, given exactly as it was granted."""
    start, end = key_range(key, range_end, prefix=prefix, from_key=from_key)
    response = client.role_revoke_permission(name, start, end)
    if form == "json":
        write_json(response)
        return
    what = b"range " + _range_text(start, end) if end else b"key " + start
    write_line(b"Permission of ", what, b" is revoked from role ", encoded(name))


def show_role(name: str, response: AuthRoleGetResponse) -> None:
    """Print what a role may read, and what it may write."""
    write_line(b"Role ", encoded(name))
    for title, kind in ((b"KV Read:", PermissionType.READ), (b"KV Write:", PermissionType.WRITE)):
        write_line(title)
        for permission in response.perm:
            if permission.permType in (kind, PermissionType.READWRITE):
                write_line(b"\t", _permission_text(permission))


def _permission_text(permission: Permission) -> bytes:
    key, end = permission.key, permission.range_end
    if not end:
        return key
    is_prefix = bool(key) and end != OPEN_END and prefix_end(key) == end
    return _range_text(key, end) + (b" (prefix " + key + b")" if is_prefix else b"")


def _range_text(key: bytes, end: bytes) -> bytes:
    return b"[" + key + b", " + (b"<open ended>" if end == OPEN_END else end + b")")
