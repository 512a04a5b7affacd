"""What ``--auth-token`` may say: ``simple``, or ``jwt`` with its options."""

import re
from typing import Final

import msgspec

from kvstore.errors import ConfigError

FLAG: Final = "--auth-token"
METHODS: Final = (
    *("RS256", "RS384", "RS512"),
    *("PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512"),
    *("HS256", "HS384", "HS512"),
    "EdDSA",
)
TTL_SECONDS: Final = 300.0

_OPTIONS: Final = ("sign-method", "pub-key", "priv-key", "ttl")
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:h|ms|m|s))+")
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s)")
_UNIT_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


class JwtSetting(msgspec.Struct, frozen=True):
    """How tokens are signed: a method of ``METHODS``, files with keys, and how long one lasts."""

    method: str
    public_key_file: str = ""
    private_key_file: str = ""
    ttl_seconds: float = TTL_SECONDS


def parse(text: str) -> JwtSetting | None:
    """Read the setting; None stands for simple tokens.

    Raises:
        ConfigError: It says what may stand there.
    """
    kind, *rest = text.split(",")
    if kind == "simple":
        # As in etcd, options of simple tokens mean nothing.
        return None
    if kind != "jwt":
        raise ConfigError(f"{FLAG}: must be 'simple' or 'jwt,…', not {text!r}")
    options: dict[str, str] = {}
    for part in rest:
        name, equals, value = part.partition("=")
        if name not in _OPTIONS or not equals or not value:
            raise ConfigError(
                f"{FLAG}: {part!r}: after 'jwt' may stand {', '.join(f'{x}=…' for x in _OPTIONS)}"
            )
        if name in options:
            raise ConfigError(f"{FLAG}: {name} is given twice")
        options[name] = value
    method = options.get("sign-method", "")
    if method not in METHODS:
        given = f"not {method!r}" if method else "and is missing"
        raise ConfigError(f"{FLAG}: sign-method must be one of {', '.join(METHODS)}, {given}")
    setting = JwtSetting(
        method,
        options.get("pub-key", ""),
        options.get("priv-key", ""),
        _seconds(options["ttl"]) if "ttl" in options else TTL_SECONDS,
    )
    if method.startswith("HS") and not setting.private_key_file:
        raise ConfigError(f"{FLAG}: {method} needs priv-key=FILE, which holds the shared secret")
    if not setting.private_key_file and not setting.public_key_file:
        raise ConfigError(
            f"{FLAG}: {method} needs priv-key=FILE to sign tokens, or pub-key=FILE to verify them"
        )
    return setting


def _seconds(text: str) -> float:
    if _DURATION.fullmatch(text):
        parts = _DURATION_PART.findall(text)
        seconds = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
        if seconds > 0:
            return seconds
    raise ConfigError(
        f"{FLAG}: ttl must be a duration above zero such as 5m or 1h30m, not {text!r}"
    )
