"""Whom a certificate names.

Certificates are as ``ssl.SSLObject.getpeercert`` gives them: empty, or None, if nothing was shown
or nothing was verified.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any, Final

SHOWN_CHARACTERS_MAX: Final = 64
"""How much of a Common Name is told; longer ones break RFC 5280, and OpenSSL takes them."""


def common_name(certificate: Mapping[str, Any] | None) -> str | None:
    """The subject's Common Name; None if it has none, or an empty one.

    Of several the last one counts, as in Go.
    """
    found = None
    for part in (certificate or {}).get("subject", ()):
        for name, value in part:
            if name == "commonName":
                found = value
    return found or None


def is_for_host(certificate: Mapping[str, Any] | None, host: str) -> bool:
    """Whether a certificate is valid for a host, by its alternative names (RFC 9525 §6).

    The Common Name is no host, and a wildcard stands for exactly the first label.
    """
    names = (certificate or {}).get("subjectAltName", ())
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return any(_matches(name, host) for kind, name in names if kind == "DNS")
    return any(_is_address(name, address) for kind, name in names if kind == "IP Address")


def _is_address(name: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    # OpenSSL writes addresses of version 6 in a way of its own.
    try:
        return ipaddress.ip_address(name.strip()) == address
    except ValueError:
        return False


def _matches(pattern: str, host: str) -> bool:
    pattern, host = pattern.lower().rstrip("."), host.lower().rstrip(".")
    if not pattern.startswith("*."):
        return pattern == host
    first, _, rest = host.partition(".")
    return bool(first) and "*" not in rest and rest == pattern[2:]


def refusal(
    certificate: Mapping[str, Any] | None,
    allowed_names: Iterable[str],
    allowed_hosts: Iterable[str],
) -> str:
    """Why a verified certificate is not one of those that may come in; "" if it is.

    Args:
        certificate: The other side's.
        allowed_names: Common Names; none: all.
        allowed_hosts: Hosts; none: all.
    """
    names, hosts = tuple(allowed_names), tuple(allowed_hosts)
    own = common_name(certificate)
    shown = repr((own or "")[:SHOWN_CHARACTERS_MAX])
    if names and own not in names:
        return f"its certificate's Common Name {shown} is not allowed"
    if hosts and not any(is_for_host(certificate, host) for host in hosts):
        return f"its certificate (Common Name {shown}) is for none of {', '.join(hosts)}"
    return ""
