"""Where settings come from: flags, environment variables and a YAML file become a ``ServerConfig``.

A setting is looked for in this order: flag, ``KVSTORE_<FLAG>`` variable, ``ETCD_<FLAG>`` variable,
the YAML file of ``--config-file``, default. (In etcd a file silences all flags; here a flag still
wins, so that one file can serve all members and each sets its own name.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, get_origin

from kvstore.config import MIB, ServerConfig, rows
from kvstore.config_absent import ABSENT, EXPERIMENTAL, judge
from kvstore.config_tls import SECTIONS, tls_warnings
from kvstore.config_values import Setting, check_range, checked_url, duration_ms
from kvstore.errors import ConfigError

PREFIXES: Final = ("KVSTORE_", "ETCD_")
"""Prefixes of environment variables, the stronger first."""

CLIENT_VARIABLES: Final = frozenset(
    f"KVSTORE_{name}"
    for name in (
        "ENDPOINTS",
        "TIMEOUT",
        "USER",
        "PASSWORD",
        "CACERT",
        "CERT",
        "KEY",
        "INSECURE_SKIP_TLS_VERIFY",
        "INSECURE_TRANSPORT",
    )
)
"""Variables of the command line client: known, though no setting of a node."""

ONCE_EXPERIMENTAL: Final = frozenset({"snapshot-catchup-entries", "watch-progress-notify-interval"})
"""Settings of ours that older etcd files spell with ``experimental-`` before them."""

CONFIG_FILE_BYTES_MAX: Final = MIB


class Loaded(NamedTuple):
    """A configuration, and what its sources hold that means nothing here."""

    config: ServerConfig
    warnings: list[str]


def spellings(flag: str) -> tuple[str, ...]:
    """The names under which a setting may be given, the usual one first."""
    if flag in ABSENT or flag in ONCE_EXPERIMENTAL:
        return (flag, EXPERIMENTAL + flag)
    return (flag,)


def variables(flag: str) -> tuple[str, ...]:
    """The environment variables that set a flag, the stronger first."""
    return tuple(
        prefix + name.upper().replace("-", "_") for prefix in PREFIXES for name in spellings(flag)
    )


def load(
    flags: Mapping[str, str], environ: Mapping[str, str], read_file: Callable[[str], bytes]
) -> Loaded:
    """Put a configuration together from all its sources.

    Args:
        flags: What was given on the command line, by flag; ``config-file`` may be among them.
        environ: The environment.
        read_file: Reads the file of ``--config-file``.

    Raises:
        ConfigError: A value cannot be read or used; the message names where it came from.
    """
    warnings = _unknown_variables(environ)
    from_environ = _from_environ(environ)
    path_from_environ = from_environ.pop("config-file", ("", ""))[1]
    path = flags.get("config-file") or path_from_environ
    found: dict[str, tuple[str, object]] = {}
    if path:
        found.update(_from_file(path, read_file))
    found.update(from_environ)
    found.update(
        {flag: (f"--{flag}", text) for flag, text in flags.items() if flag != "config-file"}
    )
    values = {}
    for flag, (source, given) in found.items():
        if flag in ABSENT:
            warning = judge(flag, given, source)
            warnings += [warning] if warning else []
            continue
        field, setting, plain = rows()[flag]
        value = _parse(setting, plain, given, source)
        check_range(setting, value, source)
        values[field] = value
    config = ServerConfig(**values)
    return Loaded(config, warnings + tls_warnings(config))


def _from_environ(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for flag in ("config-file", *rows(), *ABSENT):
        for variable in variables(flag):
            # As in etcd, an empty variable is no setting: compose files pass through what is unset.
            if environ.get(variable):
                found[flag] = (variable, environ[variable])
                break
    return found


def _unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Only a warning: Kubernetes sets KVSTORE_PORT and the like for a service called kvstore."""
    known = set(CLIENT_VARIABLES)
    for flag in ("config-file", *rows(), *ABSENT):
        known.update(variables(flag))
    return [
        f"the environment variable {name} is no setting and is ignored"
        for name in sorted(environ)
        if name.startswith(PREFIXES) and name not in known
    ]


def _from_file(path: str, read_file: Callable[[str], bytes]) -> dict[str, tuple[str, object]]:
    import yaml  # Takes 15 ms, which only those with a file should pay.

    try:
        data = read_file(path)
    except OSError as error:
        raise ConfigError(f"--config-file {path}: {error.strerror or error}") from error
    if len(data) > CONFIG_FILE_BYTES_MAX:
        raise ConfigError(f"--config-file {path}: larger than {CONFIG_FILE_BYTES_MAX} bytes")
    try:
        content = yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise ConfigError(f"--config-file {path}: not YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"--config-file {path}: must hold 'setting: value' lines")
    flag_of = {name: flag for flag in (*rows(), *ABSENT) for name in spellings(flag)}
    sections = _sections(content, path)
    unknown = sorted(str(key) for key in content if key not in flag_of and key not in SECTIONS)
    if unknown:
        raise ConfigError(
            f"--config-file {path}: unknown settings {', '.join(unknown)}; "
            "the names are those of the flags, see 'kvstore serve --help'"
        )
    return {
        flag_of[key]: (f"{key} in {path}", value)
        for key, value in content.items()
        if value is not None and key not in SECTIONS
    } | sections


def _sections(content: dict[Any, Any], path: str) -> dict[str, tuple[str, object]]:
    """What the sections of a file set, by flag."""
    found: dict[str, tuple[str, object]] = {}
    for section, flags in SECTIONS.items():
        entries = content.get(section) or {}
        source = f"{section} in {path}"
        if not isinstance(entries, dict):
            raise ConfigError(f"{source}: must hold 'setting: value' lines")
        unknown = sorted(str(key) for key in entries if key not in flags)
        if unknown:
            raise ConfigError(
                f"{source}: unknown settings {', '.join(unknown)}; there are {', '.join(flags)}"
            )
        for key, value in entries.items():
            if value is not None:
                found[flags[key]] = (f"{section}: {key} in {path}", value)
    return found


def _parse(setting: Setting, plain: Any, given: object, source: str) -> Any:
    """Turn what was written, on a command line or in YAML, into the field's type."""
    if isinstance(given, list) and (setting.listed or get_origin(plain) is not None):
        given = ",".join(str(item) for item in given)
    if isinstance(given, bool) != (plain is bool) and not isinstance(given, str):
        raise ConfigError(f"{source}: {given!r} cannot be its value")
    if not isinstance(given, str | int):
        raise ConfigError(f"{source}: {given!r} cannot be its value")
    text = str(given).strip()
    if plain is bool:
        return _switch(text, source)
    if plain is str:
        # As etcd's own documents spell versions of TLS, in either way.
        return text.upper() if setting.choices and text.lower().startswith("tls") else text
    if plain is int:
        return duration_ms(text, source) if setting.duration else _integer(text, source)
    if get_origin(plain) is tuple:
        return tuple(checked_url(part, source) for part in text.split(",") if part.strip())
    return _cluster(text, source)


def _switch(text: str, source: str) -> bool:
    known = {"true": True, "false": False}.get(text.lower())
    if known is None:
        raise ConfigError(f"{source}: must be true or false, not {text!r}")
    return known


def _integer(text: str, source: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{source}: must be a whole number, not {text!r}") from None


def _cluster(text: str, source: str) -> dict[str, tuple[str, ...]]:
    members: dict[str, tuple[str, ...]] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, url = part.partition("=")
        if not name or not equals:
            raise ConfigError(f"{source}: must be name=url,name=url,…; {part!r} is not name=url")
        members[name] = (*members.get(name, ()), checked_url(url, source))
    return members
