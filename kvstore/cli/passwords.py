"""Where passwords come from: a terminal that does not echo, a pipe, or the environment."""

from __future__ import annotations

import sys

import click


def of_login(user: str, password: str | None) -> tuple[str, str]:
    """Split ``--user name[:password]``, and ask for a password that is not given.

    Raises:
        click.UsageError: There is no terminal to ask at.
    """
    if password is not None:
        return user, password
    name, separator, given = user.partition(":")
    if separator:
        return name, given
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"no password for user {name}: put it into KVSTORE_PASSWORD, or log in at a terminal"
        )
    return name, _ask(f"Password of {name}")


def new_password(name: str, *, from_stdin: bool) -> str:
    """A password to set: the first line of standard input, or typed twice at a terminal.

    Raises:
        click.UsageError: It is empty, or there is no terminal to ask at.
    """
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = _ask(f"Password of {name}", again=f"Type password of {name} again")
    else:
        raise click.UsageError("there is no terminal to ask at: pipe it in with --password-stdin")
    if not password:
        raise click.UsageError("a password must not be empty")
    return password


def _ask(words: str, *, again: str | None = None) -> str:
    answer: str = click.prompt(
        words, hide_input=True, err=True, confirmation_prompt=again if again is not None else False
    )
    return answer
