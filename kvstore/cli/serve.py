"""``kvstore serve``: one node of a cluster. Its options are the table of settings."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from kvstore.cli import logs
from kvstore.config import ServerConfig, default_text, rows
from kvstore.config_absent import ABSENT
from kvstore.config_sources import load, spellings, variables
from kvstore.errors import ConfigError

_log = logging.getLogger("kvstore.serve")


def _with_settings(function: Callable[..., int]) -> Callable[..., int]:
    """One option a setting. All are texts here: what they may be is checked in one place."""
    for flag, (_, setting, plain) in reversed(rows().items()):
        metavar = "|".join(setting.choices) if setting.choices else "TEXT"
        words = f"{setting.help} [env: {variables(flag)[0]}; default: {default_text(flag)}]"
        function = click.option(
            *_names(flag),
            flag.replace("-", "_"),
            default=None,
            metavar=metavar,
            help=words,
            is_flag=False,
            # As in Go: a switch may stand without a value.
            flag_value="true" if plain is bool else None,
        )(function)
    return function


def _with_absent(function: Callable[..., int]) -> Callable[..., int]:
    """What etcd has beyond that: taken, not shown, and judged where files and variables are."""
    for flag, absent in ABSENT.items():
        function = click.option(
            *_names(flag),
            flag.replace("-", "_"),
            default=None,
            hidden=True,
            is_flag=False,
            flag_value="true" if absent.boolean else None,
        )(function)
    return function


def _names(flag: str) -> list[str]:
    return [f"--{name}" for name in spellings(flag)]


@click.command(
    epilog="Each setting is looked for as flag, KVSTORE_… variable, ETCD_… variable, entry of the "
    "configuration file; the first that is there counts."
)
@_with_settings
@_with_absent
@click.option(
    "--config-file",
    default=None,
    metavar="FILE",
    help="YAML file with these settings, named as the flags. [env: KVSTORE_CONFIG_FILE]",
)
def serve(**given: str | None) -> int:
    """Run one node: alone with no option, or a member of a cluster."""
    flags = {name.replace("_", "-"): text for name, text in given.items() if text is not None}
    loaded = load(flags, os.environ, _read_file)
    if sys.flags.optimize:
        raise ConfigError(
            "python -O (PYTHONOPTIMIZE) takes out the checks that keep data safe: start without it"
        )
    logs.set_up(loaded.config.log_level, loaded.config.log_format, sys.stderr)
    for warning in loaded.warnings:
        _log.warning(warning)
    return _run(loaded.config)


def _read_file(path: str) -> bytes:
    return Path(path).read_bytes()


def _run(config: ServerConfig) -> int:
    # Here and not above: `kvstore serve --help` should not wait for the server's libraries.
    from kvstore.run import run

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(run(config))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
