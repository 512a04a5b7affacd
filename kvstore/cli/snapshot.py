"""``kvstore snapshot``: a copy of the whole state, for the day when all else is lost.

``save`` asks a member; ``status`` and ``restore`` ask nobody, and work on files of this machine.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from kvstore.cli.alarm import alarm_name
from kvstore.cli.options import client_command, table_option
from kvstore.cli.output import size_text, write_line, write_table
from kvstore.client import Client
from kvstore.config_sources import load

if TYPE_CHECKING:
    from kvstore.config import ServerConfig
    from kvstore.server.restoring import Restored


@click.group()
def snapshot() -> None:
    """Backups."""


@snapshot.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@client_command
def save(client: Client, file: Path) -> None:
    """Fetch a member's whole state into FILE.

    FILE appears once all of it has come, has been compared with its SHA-256, and is on the disk.
    Only you can read it: it holds every key, and what is kept of every password.
    """
    part = file.with_name(f"{file.name}.part")
    try:
        with open(part, "wb", opener=_open_private) as sink:
            saved = client.save_snapshot(sink.write, progress=_Progress())
            sink.flush()
            os.fsync(sink.fileno())
        part.replace(file)
        _sync_directory(file.parent)
    except OSError as error:
        raise click.ClickException(f"{error.filename or file}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    print(f"Snapshot saved at {file}")
    print(f"{size_text(saved.size_bytes)}, SHA-256 {saved.sha256}", file=sys.stderr)
    if saved.version:
        print(f"Server version {saved.version}", file=sys.stderr)


STATUS_HEADS = ("hash", "revision", "total keys", "total size", "version")


@snapshot.command()
@click.argument("file", type=click.Path(path_type=Path))
@table_option
def status(file: Path, form: str) -> None:
    """Check every byte of FILE, and print what it holds.

    Hash of the state, revision, keys, size of the file, version of the cluster. A damaged file is
    refused, with the byte at which it is damaged.
    """
    # Here and not above: `kvstore snapshot save` needs nothing of the server.
    from kvstore.server.backup import read_backup
    from wal.files import OsDisk

    with _told_plainly(file):
        backup = read_backup(OsDisk(_no_loop), str(file))
    store = backup.machine.store
    version = backup.machine.cluster_version
    if form == "json":
        fields = {
            "hash": backup.state_hash,
            "revision": store.revision,
            "totalKey": store.key_count,
            "totalSize": backup.size_bytes,
            "version": version,
        }
        write_line(msgspec.json.encode(fields))
        return
    row = (
        f"{backup.state_hash:x}",
        str(store.revision),
        str(store.key_count),
        size_text(backup.size_bytes),
        version,
    )
    if form == "table":
        write_table(STATUS_HEADS, [row])
    else:
        print(", ".join(row))


@snapshot.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--data-dir", metavar="DIR", help="Where to; it must be empty or not be there.")
@click.option("--name", help="Name of the member, as --initial-cluster spells it.")
@click.option("--initial-cluster", metavar="NAME=URL,…", help="All members of the new cluster.")
@click.option("--initial-cluster-token", metavar="TEXT", help="Tells it from other clusters.")
@click.option(
    "--initial-advertise-peer-urls",
    metavar="URL,…",
    help="Where the others reach this member. [default: as --initial-cluster says]",
)
@click.option("--skip-hash-check", is_flag=True, help="Pass over the SHA-256 of etcdctl.")
@click.option(
    "--bump-revision",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    help="Raise the revision by so much, beyond all that clients have seen of the old cluster.",
)
@click.option(
    "--mark-compacted",
    is_flag=True,
    help="With --bump-revision, and only then: everything below the new revision is compacted.",
)
def restore(
    file: Path,
    *,
    skip_hash_check: bool,
    bump_revision: int,
    mark_compacted: bool,
    **given: str | None,
) -> None:
    """Make the data directory of a member of a new cluster out of FILE.

    Do so for each member of the new cluster, from the same file and with the same flags but for
    name, directory and URLs. Then start them all.
    """
    from kvstore.server.restoring import restore as restore_into
    from wal.files import OsDisk

    if bool(bump_revision) != mark_compacted:
        raise click.UsageError("--bump-revision and --mark-compacted are given together, or not")
    flags = {name.replace("_", "-"): text for name, text in given.items() if text is not None}
    config = load(flags, {}, lambda path: Path(path).read_bytes()).config
    with _told_plainly(file):
        restored = restore_into(
            OsDisk(_no_loop),
            str(file),
            config,
            random.Random(secrets.randbits(64)),
            bump_revision=bump_revision,
            check_hash=not skip_hash_check,
        )
    _say_restored(file, config, restored)


def _say_restored(file: Path, config: ServerConfig, restored: Restored) -> None:
    identity = restored.identity
    print(
        f"Restored {file}, revision {restored.revision} with {restored.key_count} keys, as member "
        f"{identity.member_id:x} of cluster {identity.cluster_id:x} in {config.data_dir}"
    )
    for alarm in restored.alarms:
        who = f"{alarm_name(alarm)} of member {alarm.memberID:x}"
        print(f"the alarm {who} has gone with the old cluster", file=sys.stderr)
    cluster = ",".join(
        f"{name}={url}" for name, urls in config.initial_cluster.items() for url in urls
    )
    start = [
        "kvstore",
        "serve",
        f"--name={config.name}",
        f"--data-dir={config.data_dir}",
        f"--initial-cluster={cluster}",
    ]
    print(f"start it: {shlex.join(start)} …", file=sys.stderr)


@contextlib.contextmanager
def _told_plainly(file: Path) -> Iterator[None]:
    """What the disk and the file's checks say, as the command's error."""
    from wal.errors import WalError

    try:
        yield
    except WalError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        where = error.filename or file
        raise click.ClickException(f"{where}: {error.strerror or error}") from error


def _no_loop(*_: object) -> None:
    """Nothing here runs in a lane."""
    raise AssertionError("there is no loop")


class _Progress:
    """Shows on a terminal how much has come, each time that it is a percent more."""

    def __init__(self) -> None:
        self._shown = -1
        self._terminal = sys.stderr.isatty()

    def __call__(self, total_bytes: int, remaining_bytes: int) -> None:
        percent = 100 * (total_bytes - remaining_bytes) // max(total_bytes, 1)
        if not self._terminal or percent == self._shown:
            return
        self._shown = percent
        end = "" if remaining_bytes else "\n"
        print(f"\r{percent:3d} % of {size_text(total_bytes)}", end=end, file=sys.stderr, flush=True)


def _open_private(path: str, flags: int) -> int:
    """Open a file that nobody else can read, whatever the umask, and whoever left it there."""
    opened = os.open(path, flags, 0o600)
    os.fchmod(opened, 0o600)
    return opened


def _sync_directory(directory: Path) -> None:
    """Put the file's name on the disk, too."""
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
