"""What the commands that ask share: where the cluster is, how keys and leases are written."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

import click

from kvstore.cli import passwords
from kvstore.client import Client, Tls, TlsError, prefix_end
from kvstore.types import OPEN_END

P = ParamSpec("P")
T = TypeVar("T")

ENDPOINTS_DEFAULT = "127.0.0.1:2379"


class LeaseIdType(click.ParamType[int]):
    """A lease id, in hexadecimal as ``lease grant`` prints it."""

    name = "lease"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read hexadecimal."""
        if isinstance(value, int):
            return value
        try:
            return int(value, 16)
        except ValueError:
            self.fail(f"{value!r} is no lease id: they are hexadecimal numbers", param, ctx)


LEASE_ID = LeaseIdType()


def client_command(function: Callable[Concatenate[Client, P], T]) -> Callable[..., T]:
    """Give a command a client as its first argument, and the options that say where to connect."""

    @click.option(
        "--endpoints",
        default=ENDPOINTS_DEFAULT,
        show_default=True,
        envvar="KVSTORE_ENDPOINTS",
        show_envvar=True,
        help="Members to ask, host:port, separated by commas; the first that works is kept.",
    )
    @click.option(
        "--timeout",
        type=click.FloatRange(min=0.1),
        default=10.0,
        show_default=True,
        envvar="KVSTORE_TIMEOUT",
        show_envvar=True,
        help="Seconds that a call may take.",
    )
    @click.option(
        "--user",
        metavar="NAME[:PASSWORD]",
        envvar="KVSTORE_USER",
        show_envvar=True,
        help="Who asks, where authentication is on; without a password it is asked for.",
    )
    @click.option(
        "--password",
        envvar="KVSTORE_PASSWORD",
        show_envvar=True,
        help="Their password. The variable is better: arguments are for all processes to see.",
    )
    @_tls_options
    @functools.wraps(function)
    def command(
        endpoints: str,
        timeout: float,
        user: str | None,
        password: str | None,
        tls: Tls | None,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        more: dict[str, Any] = {}
        if user:
            more["user"], more["password"] = passwords.of_login(user, password)
        if tls is not None:
            more["tls"] = tls
        with _client(endpoints, timeout, more) as client:
            return function(client, *args, **kwargs)

    return command


def _client(endpoints: str, timeout: float, more: dict[str, Any]) -> Client:
    """Raises click.UsageError: an endpoint is no URL, or a file cannot be used."""
    urls = [url for url in (part.strip() for part in endpoints.split(",")) if url]
    try:
        return Client(urls, timeout, **more)
    except TlsError as error:
        raise click.UsageError(f"{error} (--cacert, --cert, --key)") from error
    except ValueError as error:
        raise click.UsageError(f"--endpoints: {error}") from error


def _of_variable(name: str) -> dict[str, Any]:
    return {"envvar": f"KVSTORE_{name}", "show_envvar": True}


def _tls_options(function: Callable[..., T]) -> Callable[..., T]:
    """etcdctl's options about TLS, as one argument ``tls``: None if none was given."""

    @click.option(
        "--cacert",
        "tls_ca",
        metavar="FILE",
        help="CAs whose servers are trusted, PEM; else the system's.",
        **_of_variable("CACERT"),
    )
    @click.option(
        "--cert",
        "tls_cert",
        metavar="FILE",
        help="Certificate to show, PEM.",
        **_of_variable("CERT"),
    )
    @click.option(
        "--key", "tls_key", metavar="FILE", help="Key of --cert, PEM.", **_of_variable("KEY")
    )
    @click.option(
        "--insecure-skip-tls-verify",
        is_flag=False,
        flag_value=True,
        default=False,
        type=bool,
        help="Take any server for the right one.",
        **_of_variable("INSECURE_SKIP_TLS_VERIFY"),
    )
    @click.option(
        "--insecure-transport",
        is_flag=False,
        flag_value=True,
        default=True,
        type=bool,
        show_default=True,
        help="Without http:// or https:// an endpoint is http, unless there is a word of TLS.",
        **_of_variable("INSECURE_TRANSPORT"),
    )
    @functools.wraps(function)
    def command(
        *args: Any,
        tls_ca: str | None,
        tls_cert: str | None,
        tls_key: str | None,
        insecure_skip_tls_verify: bool,
        insecure_transport: bool,
        **kwargs: Any,
    ) -> T:
        tls = Tls(
            ca_file=tls_ca or "",
            cert_file=tls_cert or "",
            key_file=tls_key or "",
            skip_verification=insecure_skip_tls_verify,
        )
        asked_for = tls != Tls() or not insecure_transport
        return function(*args, tls=tls if asked_for else None, **kwargs)

    return command


def output_option(function: Callable[P, T]) -> Callable[P, T]:
    """The ``-w`` option."""
    return click.option(
        "-w",
        "--write-out",
        "form",
        type=click.Choice(["simple", "json"]),
        default="simple",
        help="How to print: for people, or the whole answer in JSON (keys and values in base64).",
    )(function)


def table_option(function: Callable[P, T]) -> Callable[P, T]:
    """The ``-w`` option of what has rows."""
    return click.option(
        "-w",
        "--write-out",
        "form",
        type=click.Choice(["simple", "table", "json"]),
        default="simple",
        help="How to print: a line each, a table, or the whole answers in JSON.",
    )(function)


def cluster_option(function: Callable[P, T]) -> Callable[P, T]:
    """``--cluster``: not the endpoints that were given, but those of all members."""
    return click.option(
        "--cluster", is_flag=True, help="Ask every member of the cluster, as the members list it."
    )(function)


@contextlib.contextmanager
def asked(client: Client, *, cluster: bool) -> Iterator[Client]:
    """A client whose endpoints are those to ask: the given ones, or those of all members.

    Raises:
        click.ClickException: No member has a client URL.
    """
    if not cluster:
        yield client
        return
    urls = [url for member in client.member_list().members for url in member.clientURLs]
    if not urls:
        raise click.ClickException("no member has said yet where clients reach it")
    with client.another(urls) as everyone:
        yield everyone


def range_options(function: Callable[P, T]) -> Callable[P, T]:
    """``--prefix`` and ``--from-key``."""
    function = click.option("--prefix", is_flag=True, help="All keys that begin with KEY.")(
        function
    )
    return click.option("--from-key", is_flag=True, help="All keys from KEY on.")(function)


def key_range(
    key: str, range_end: str | None, *, prefix: bool, from_key: bool
) -> tuple[bytes, bytes]:
    """The ``key`` and ``range_end`` of a request.

    Raises:
        click.UsageError: More than one way to say where the range ends.
    """
    if (range_end is not None) + prefix + from_key > 1:
        raise click.UsageError("RANGE_END, --prefix and --from-key exclude each other")
    start = encoded(key)
    if prefix:
        return start or b"\0", prefix_end(start)
    if from_key:
        return start or b"\0", OPEN_END
    return start, encoded(range_end or "")


def encoded(text: str) -> bytes:
    """The bytes of an argument, as the shell gave them, UTF-8 or not."""
    return text.encode("utf-8", "surrogateescape")
