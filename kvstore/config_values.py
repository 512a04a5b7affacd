"""What one setting of a node may be: its row in the table, and the checks of a single value."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

import msgspec

from kvstore.errors import ConfigError

_DURATION_UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)", re.ASCII)
_REVISIONS_MAX: Final = 2**63 - 1
_SCHEMES: Final = ("http", "https")
_HOURS_MAX: Final = 2_562_047
"""What Go's durations hold: 292 years."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What the table says about one field of ``ServerConfig``.

    ``minimum`` and ``maximum`` bound numbers, ``choices`` texts; a ``duration`` is written as in Go
    ("1m30s", "100ms") and held in milliseconds. ``shown_default`` is for help texts, where the
    default is computed. A list of URLs may be empty only if it is ``optional``. A text that is
    ``listed`` has commas in it, and may be a list in YAML.
    """

    flag: str
    help: str
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()
    duration: bool = False
    shown_default: str = ""
    optional: bool = False
    listed: bool = False


def check_range(setting: Setting, value: object, source: str) -> None:
    """Check one value by itself; ``source`` is what the message calls it.

    Raises:
        ConfigError: Out of range, or not one of the choices.
    """
    if setting.choices and value not in setting.choices:
        raise ConfigError(f"{source}: must be {' or '.join(setting.choices)}, not {value!r}")
    if not isinstance(value, int):
        return
    unit = " ms" if setting.duration else ""
    if setting.minimum is not None and value < setting.minimum:
        raise ConfigError(f"{source}: must be at least {setting.minimum}{unit}, not {value}")
    if setting.maximum is not None and value > setting.maximum:
        raise ConfigError(f"{source}: must be at most {setting.maximum}{unit}, not {value}")


# --- URLs -----------------------------------------------------------------------------------------


def checked_url(text: str, source: str) -> str:
    """Check one URL; its normal form has no slash at the end.

    Raises:
        ConfigError: Neither http://host:port nor https://host:port.
    """
    text = text.strip().rstrip("/")
    if text.startswith(("unix://", "unixs://")):
        raise ConfigError(f"{source}: {text}: only http:// and https:// are served")
    try:
        parts = urlsplit(text)
        usable = parts.scheme in _SCHEMES and parts.hostname is not None and parts.port is not None
    except ValueError:
        usable = False
        parts = urlsplit("")
    if not usable or parts.path or parts.query or parts.fragment or parts.username:
        raise ConfigError(f"{source}: must be http://host:port or https://…, not {text!r}")
    return text


def host_and_port(url: str) -> tuple[str, int]:
    """Where a URL points.

    Raises:
        ValueError: It is none, or lacks one of the two; one that was checked does not.
    """
    parts = urlsplit(url)
    if parts.hostname is None or parts.port is None:
        raise ValueError(f"{url} names no host or no port")
    return parts.hostname, parts.port


# --- Durations ------------------------------------------------------------------------------------


def duration_ms(text: str, source: str) -> int:
    """Read a duration as Go writes it, into milliseconds.

    Raises:
        ConfigError: It is none.
    """
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ConfigError(f"{source}: must be a duration such as 10m, 30s or 500ms, not {text!r}")
    return round(sum(float(number) * _DURATION_UNITS_MS[unit] for number, unit in parts))


class Retention(msgspec.Struct, frozen=True):
    """How much history compaction leaves: so many revisions, or so many seconds; 0 and 0: all."""

    revisions: int = 0
    seconds: float = 0.0


def parse_retention(mode: str, text: str) -> Retention:
    """What ``--auto-compaction-retention`` means under ``--auto-compaction-mode``.

    Raises:
        ConfigError: Neither a number nor, in mode periodic, a duration.
    """
    source = "--auto-compaction-retention"
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None
    if mode == "revision":
        if number is None or number > _REVISIONS_MAX:
            raise ConfigError(f"{source}: must be a number of revisions, not {text!r}")
        return Retention(revisions=number)
    seconds = duration_ms(text, source) / 1000 if number is None else number * 3600.0
    if seconds > _HOURS_MAX * 3600:
        raise ConfigError(f"{source}: must be at most {_HOURS_MAX}h, not {text!r}")
    return Retention(seconds=seconds)
