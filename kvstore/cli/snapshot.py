"""``kvstore snapshot``: a copy of the whole state, for the day when all else is lost."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import click

from kvstore.cli.options import client_command
from kvstore.cli.output import size_text
from kvstore.client import Client


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
