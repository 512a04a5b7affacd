"""Is this member well, and what is it? Health, liveness, readiness and version, as in etcd."""

from functools import partial
from typing import Final
from urllib.parse import parse_qs

import msgspec

from kvstore.api.answer import CORS, JSON_HEAD, TEXT_HEAD, Answer, Outcome, Pending
from kvstore.api.backend import Service
from kvstore.types import AlarmType

ALLOW_GET: Final = b"Allow: GET\r\n"

_PARAMETERS_MAX: Final = 16


CHECKS: Final[dict[str, tuple[str, ...]]] = {
    "/livez": ("serializable_read",),
    "/readyz": ("data_corruption", "serializable_read", "linearizable_read", "non_learner"),
}
"""What is checked, by path, in the order in which it is shown."""

_CHECKED_HEAD: Final = (
    b"Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n" + CORS
)


def checks(service: Service, path: str, query: str) -> Pending | None:
    """``/livez`` and ``/readyz``, or one of their checks below them; None if there is no such.

    ``?verbose`` shows each check on success too, ``?exclude=name`` (repeatable) leaves one out.
    """
    root, slash, name = path[1:].partition("/")
    names = CHECKS.get("/" + root)
    if names is None or (slash and name not in names):
        return None
    parameters = _parameters(query)
    if slash:
        names = (name,)
    else:
        excluded = parameters.get("exclude", ())
        names = tuple(name for name in names if name not in excluded)
    return Pending(partial(service.checks, names), partial(_checked, "verbose" in parameters))


def _checked(verbose: bool, outcome: Outcome) -> Answer:
    reasons: dict[str, str] = outcome
    lines = "".join(
        f"[-]{name} failed: {reason}\n" if reason else f"[+]{name} ok\n"
        for name, reason in reasons.items()
    )
    if any(reasons.values()):
        # etcd's own line break comes behind that of the last check.
        return Answer(f"{lines}\n".encode(), None, 503, _CHECKED_HEAD)
    return Answer(f"{lines if verbose else ''}ok\n".encode(), None, 200, _CHECKED_HEAD)


def _parameters(query: str) -> dict[str, list[str]]:
    """The parameters of a query; none of them if they are too many."""
    try:
        return parse_qs(query, keep_blank_values=True, max_num_fields=_PARAMETERS_MAX)
    except ValueError:
        return {}


def health(service: Service, query: str) -> Pending:
    """``?exclude=NOSPACE`` (repeatable) ignores an alarm, ``?serializable=true`` the cluster."""
    parameters = _parameters(query)
    known = AlarmType.__members__
    excluded = frozenset(known[name] for name in parameters.get("exclude", ()) if name in known)
    serializable = parameters.get("serializable") == ["true"]
    return Pending(partial(service.health, serializable, excluded), _health_answer)


def _health_answer(outcome: Outcome) -> Answer:
    reason: str = outcome
    body = msgspec.json.encode({"health": "false" if reason else "true", "reason": reason})
    return Answer(body, None, 503 if reason else 200, TEXT_HEAD)


def version(service: Service) -> Answer:
    """What this member runs, and what the cluster has agreed on."""
    agreed = service.cluster_version
    fields = {
        "etcdserver": service.version,
        "etcdcluster": agreed or "not_decided",
        "storage": agreed or "unknown",
    }
    return Answer(msgspec.json.encode(fields), None, 200, JSON_HEAD)


def wrong_method() -> Answer:
    """These paths are read, and nothing else."""
    head = b"Content-Type: text/plain; charset=utf-8\r\n" + CORS + ALLOW_GET
    return Answer(b"Method Not Allowed\n", None, 405, head)


def unknown_path() -> Answer:
    """The answer for every path that nobody serves."""
    return Answer(b"404 page not found\n", None, 404, TEXT_HEAD)
