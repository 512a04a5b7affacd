"""What one setting of a node may be: its row in the table, and the checks of a single value."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from kvstore.errors import ConfigError


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What the table says about one field of ``ServerConfig``.

    ``minimum`` and ``maximum`` bound numbers, ``choices`` texts; a ``duration`` is written as in Go
    ("1m30s", "100ms") and held in milliseconds. ``shown_default`` is for help texts, where the
    default is computed. A list of URLs may be empty only if it is ``optional``.
    """

    flag: str
    help: str
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()
    duration: bool = False
    shown_default: str = ""
    optional: bool = False


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
        ConfigError: Not http://host:port.
    """
    text = text.strip().rstrip("/")
    if text.startswith(("https://", "unix://", "unixs://")):
        raise ConfigError(f"{source}: {text}: only http:// is served so far, TLS is not")
    try:
        parts = urlsplit(text)
        usable = parts.scheme == "http" and parts.hostname is not None and parts.port is not None
    except ValueError:
        usable = False
        parts = urlsplit("")
    if not usable or parts.path or parts.query or parts.fragment or parts.username:
        raise ConfigError(f"{source}: must be http://host:port, not {text!r}")
    return text


def host_and_port(url: str) -> tuple[str, int]:
    """Where a checked URL points to."""
    parts = urlsplit(url)
    assert parts.hostname is not None, f"{url} was not checked"
    assert parts.port is not None, f"{url} was not checked"
    return parts.hostname, parts.port
