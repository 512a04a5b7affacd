"""The ``kvstore`` command: finds the subcommand, and turns errors into exit codes.

Subcommands are imported when they are used: ``kvstore get`` must not wait for what ``serve`` needs.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Final

import click

from kvstore.errors import ConfigError, ErrorKind, KvError, KvstoreError, UnknownOutcomeError

EXIT_ERROR: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNKNOWN_OUTCOME: Final = 3
EXIT_UNREACHABLE: Final = 4
EXIT_INTERRUPTED: Final = 130

# Name: the attribute that is the command.
COMMANDS: Final = {
    "serve": "kvstore.cli.serve:serve",
    "cluster": "kvstore.cli.cluster:cluster",
    "put": "kvstore.cli.kv:put",
    "get": "kvstore.cli.kv:get",
    "del": "kvstore.cli.kv:delete",
    "txn": "kvstore.cli.txn:txn",
    "watch": "kvstore.cli.watch:watch",
    "lease": "kvstore.cli.lease:lease",
    "lock": "kvstore.cli.lock:lock",
    "elect": "kvstore.cli.lock:elect",
    "auth": "kvstore.cli.auth:auth",
    "user": "kvstore.cli.auth:user",
    "role": "kvstore.cli.roles:role",
    "status": "kvstore.cli.endpoint:status",
    "endpoint": "kvstore.cli.endpoint:endpoint",
    "member": "kvstore.cli.members:member",
    "move-leader": "kvstore.cli.upkeep:move_leader",
    "alarm": "kvstore.cli.alarm:alarm",
    "compaction": "kvstore.cli.upkeep:compaction",
    "defrag": "kvstore.cli.upkeep:defrag",
    "snapshot": "kvstore.cli.snapshot:snapshot",
    "downgrade": "kvstore.cli.upkeep:downgrade",
    "version": "kvstore.cli.members:version",
}

HINTS: Final = {
    kind.message: hint
    for kind, hint in (
        (
            ErrorKind.USER_EMPTY,
            "authentication is on: say who you are with --user or KVSTORE_USER",
        ),
        (ErrorKind.AUTH_FAILED, "look at --user, KVSTORE_USER and KVSTORE_PASSWORD"),
        (
            ErrorKind.PERMISSION_DENIED,
            "'kvstore user get NAME --detail' shows root what a user may do",
        ),
        (
            ErrorKind.ROOT_USER_NOT_EXIST,
            "first 'kvstore user add root', 'role add root', 'user grant-role root root'",
        ),
        (
            ErrorKind.ROOT_ROLE_NOT_EXIST,
            "first 'kvstore role add root', 'kvstore user grant-role root root'",
        ),
        (
            ErrorKind.NO_SPACE,
            "'kvstore alarm list' shows whose; delete or compact, or raise --quota-backend-bytes",
        ),
        (ErrorKind.CORRUPT, "'kvstore endpoint hashkv --cluster' shows which member differs"),
        (ErrorKind.COMPACTED, "older revisions are gone: ask for a newer one, or for none"),
        (ErrorKind.TOO_MANY_LEARNERS, "promote or remove a learner, or raise --max-learners"),
        (
            ErrorKind.LEARNER_NOT_READY,
            "try again: 'kvstore endpoint status --cluster' shows how far it is",
        ),
        (
            ErrorKind.MEMBER_NOT_ENOUGH_STARTED,
            "start the members that 'kvstore member list' shows as unstarted, or remove those",
        ),
        (
            ErrorKind.UNHEALTHY,
            "'kvstore endpoint health --cluster' shows who is missing: bring it back, or remove it",
        ),
        (ErrorKind.MEMBER_NOT_FOUND, "'kvstore member list' shows the members"),
    )
}
"""What to do next, where the words of the API do not say it."""

EPILOG: Final = (
    "Exit codes: 0 done, 1 refused, 2 wrong usage, 3 the outcome of a write is unknown, "
    "4 no endpoint could be reached, 5 (serve) the node was removed from its cluster."
)


class LazyGroup(click.Group):
    """A group that imports a subcommand when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the table."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one."""
        del ctx
        target = COMMANDS.get(cmd_name)
        if target is None:
            return None
        module, _, attribute = target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command), f"{target} is no command"
        return command


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """A strongly consistent key-value store that speaks etcd's v3 API."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        result = cli.main(arguments, prog_name="kvstore", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.Abort:
        return EXIT_INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ConfigError as error:
        return _fail(str(error), EXIT_USAGE)
    except UnknownOutcomeError as error:
        return _fail(f"outcome unknown: {error.message}", EXIT_UNKNOWN_OUTCOME)
    except KvError as error:
        return _fail(error.message, _exit_code(error), HINTS.get(error.message, ""))
    except KvstoreError as error:
        return _fail(str(error), EXIT_ERROR)
    except BrokenPipeError:
        # The reader of our output has gone, as `kvstore get | head` does; there is nobody to tell.
        # Without the swap the interpreter would complain when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR


def _exit_code(error: KvError) -> int:
    from kvstore.client import UnreachableError

    return EXIT_UNREACHABLE if isinstance(error, UnreachableError) else EXIT_ERROR


def _fail(message: str, code: int, hint: str = "") -> int:
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
    return code
