"""Is this member well, and what is it? ``/health`` and ``/version``, as etcd has them."""

from functools import partial
from typing import Final
from urllib.parse import parse_qs

import msgspec

from kvstore.api.answer import CORS, JSON_HEAD, TEXT_HEAD, Answer, Outcome, Pending
from kvstore.api.backend import Service
from kvstore.types import AlarmType

ALLOW_GET: Final = b"Allow: GET\r\n"

_PARAMETERS_MAX: Final = 16


def health(service: Service, query: str) -> Pending:
    """``?exclude=NOSPACE`` (repeatable) ignores an alarm, ``?serializable=true`` the cluster."""
    try:
        parameters = parse_qs(query, max_num_fields=_PARAMETERS_MAX)
    except ValueError:
        parameters = {}
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
