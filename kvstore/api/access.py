"""Who may ask: under which names the server answers, and which pages' scripts may read answers.

As etcd's ``--host-whitelist`` and ``--cors``. Without TLS, a page that got its own name to point at
this machine (DNS rebinding, CVE-2018-5702) could otherwise speak to it in a browser's name.
"""

from typing import Final
from urllib.parse import urlsplit

from multidict import MultiMapping, istr

from kvstore.api.answer import Answer

EVERYBODY: Final = "*"

_HOST: Final = istr("Host")
_ORIGIN: Final = istr("Origin")
_ANY_ORIGIN: Final = b"Access-Control-Allow-Origin: *"
_ABOUT_ORIGINS: Final = b"Access-Control-"
_TEXT_HEAD: Final = b"Content-Type: text/plain; charset=utf-8\r\n"


def _names(text: str) -> frozenset[str] | None:
    """The names in a list separated by commas; None if it lets everybody in."""
    names = frozenset(name.strip() for name in text.split(",") if name.strip())
    return None if not names or EVERYBODY in names else names


class Access:
    """The rules of one server.

    Args:
        hosts: names and addresses under which it answers, separated by commas; ``*``: all.
        origins: pages whose scripts may read answers, separated by commas; ``*``: all.
    """

    __slots__ = ("_hosts", "_origins", "is_open")

    def __init__(self, hosts: str = EVERYBODY, origins: str = EVERYBODY) -> None:
        self._hosts = _names(hosts)
        self._origins = _names(origins)
        self.is_open = self._hosts is None and self._origins is None
        """Whether everybody may ask, so that nothing has to be looked at."""

    def refusal(self, headers: MultiMapping[str]) -> Answer | None:
        """The answer for a request under a name that is not ours; None if it is."""
        host = _host(headers.get(_HOST, ""))
        if self._hosts is None or host in self._hosts:
            return None
        text = (
            f"The server got the request, but does not answer under the name {host!r}.\n"
            "Add the name to --host-whitelist if it is one of this server's. The list guards\n"
            "against pages that point a name of theirs here (DNS rebinding, CVE-2018-5702).\n"
        )
        return Answer(text.encode("utf-8", "backslashreplace"), None, 421, _TEXT_HEAD)

    def head(self, head: bytes, headers: MultiMapping[str]) -> bytes:
        """The header lines of an answer, with what they say of origins fitted to the asking one."""
        if self._origins is None:
            return head
        origin = headers.get(_ORIGIN, "")
        if origin in self._origins:
            allowed = b"Access-Control-Allow-Origin: " + origin.encode()
            return head.replace(_ANY_ORIGIN, allowed)
        lines = head.split(b"\r\n")
        return b"\r\n".join([line for line in lines if not line.startswith(_ABOUT_ORIGINS)])


def _host(text: str) -> str:
    """The name or address in a Host header, without its port."""
    try:
        return urlsplit(f"//{text}").hostname or ""
    except ValueError:
        return ""
