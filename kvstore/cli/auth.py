"""``kvstore auth`` and ``user``: who may come in."""

from __future__ import annotations

import click
import msgspec

from kvstore.cli.options import client_command, output_option
from kvstore.cli.output import write_json
from kvstore.cli.passwords import new_password
from kvstore.cli.roles import show_role
from kvstore.client import Client


def answer(message: msgspec.Struct, form: str, *lines: str) -> None:
    """Print an answer whole, or what it comes to."""
    if form == "json":
        write_json(message)
        return
    for line in lines:
        print(line)


@click.group()
def auth() -> None:
    """Whether callers must say who they are."""


@auth.command()
@output_option
@client_command
def enable(client: Client, form: str) -> None:
    """Switch authentication on.

    First make a user root and give it the role root: 'kvstore user add root',
    'kvstore role add root', 'kvstore user grant-role root root'.
    """
    answer(client.auth_enable(), form, "Authentication Enabled")


@auth.command()
@output_option
@client_command
def disable(client: Client, form: str) -> None:
    """Switch authentication off; users and roles are kept."""
    answer(client.auth_disable(), form, "Authentication Disabled")


@auth.command("status")
@output_option
@client_command
def auth_status(client: Client, form: str) -> None:
    """Print whether it is on, and how often users, roles or permissions have changed."""
    found = client.auth_status()
    shown = str(found.enabled).lower()
    answer(found, form, f"Authentication Status: {shown}", f"AuthRevision: {found.authRevision}")


# --- Users ----------------------------------------------------------------------------------------


@click.group()
def user() -> None:
    """Users: who they are, and which roles they have."""


_from_stdin = click.option(
    "--password-stdin", is_flag=True, help="Read the password from the first line of stdin."
)
_interactive = click.option(
    "--interactive",
    type=bool,
    default=True,
    is_flag=False,
    flag_value="true",
    hidden=True,
    help="As in etcdctl: --interactive=false is --password-stdin.",
)


@user.command("add")
@click.argument("name")
@_from_stdin
@_interactive
@click.option(
    "--new-user-password",
    metavar="PASSWORD",
    help="The password. Arguments are for all processes to see: rather use --password-stdin.",
)
@click.option("--no-password", is_flag=True, help="Nobody can log in as this user by password.")
@output_option
@client_command
def user_add(
    client: Client,
    name: str,
    new_user_password: str | None,
    form: str,
    *,
    password_stdin: bool,
    interactive: bool,
    no_password: bool,
) -> None:
    """Make a user. The password is asked for; NAME:PASSWORD gives it, for all to see."""
    secret = ""
    if not no_password:
        if new_user_password is not None:
            secret = new_user_password
        elif ":" in name:
            name, _, secret = name.partition(":")
        else:
            secret = new_password(name, from_stdin=password_stdin or not interactive)
    if not name:
        raise click.UsageError("a user's name must not be empty")
    answer(client.user_add(name, secret, no_password=no_password), form, f"User {name} created")


@user.command("delete")
@click.argument("name")
@output_option
@client_command
def user_delete(client: Client, name: str, form: str) -> None:
    """Forget a user."""
    answer(client.user_delete(name), form, f"User {name} deleted")


@user.command("get")
@click.argument("name")
@click.option("--detail", is_flag=True, help="Print the permissions of each role, too.")
@output_option
@client_command
def user_get(client: Client, name: str, form: str, *, detail: bool) -> None:
    """Print a user's roles."""
    found = client.user_get(name)
    if not detail or form == "json":
        answer(found, form, f"User: {name}", " ".join(["Roles:", *found.roles]))
        return
    print(f"User: {name}")
    for role in found.roles:
        print()
        show_role(role, client.role_get(role))


@user.command("list")
@output_option
@client_command
def user_list(client: Client, form: str) -> None:
    """Print the names of all users."""
    found = client.user_list()
    answer(found, form, *found.users)


@user.command("passwd")
@click.argument("name")
@_from_stdin
@_interactive
@output_option
@client_command
def user_passwd(
    client: Client, name: str, form: str, *, password_stdin: bool, interactive: bool
) -> None:
    """Give a user another password; it is asked for."""
    secret = new_password(name, from_stdin=password_stdin or not interactive)
    answer(client.user_change_password(name, secret), form, "Password updated")


@user.command("grant-role")
@click.argument("name")
@click.argument("role")
@output_option
@client_command
def user_grant_role(client: Client, name: str, role: str, form: str) -> None:
    """Give a user a role."""
    answer(client.user_grant_role(name, role), form, f"Role {role} is granted to user {name}")


@user.command("revoke-role")
@click.argument("name")
@click.argument("role")
@output_option
@client_command
def user_revoke_role(client: Client, name: str, role: str, form: str) -> None:
    """Take a role from a user."""
    answer(client.user_revoke_role(name, role), form, f"Role {role} is revoked from user {name}")
