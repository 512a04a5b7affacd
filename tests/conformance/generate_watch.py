"""Watch streams: all requests at once, as HTTP/1.1 has it with 3.4."""

from __future__ import annotations

import json
from typing import Any, Final

from tests.conformance.calls import WATCH, Call, Revision, State, resolve
from tests.conformance.material import Material

_FILTERS: Final = (["NOPUT"], ["NODELETE"], ["NOPUT", "NODELETE"], [0], [1])

SIZE_MAX: Final = 300
"""Bytes of creations; cancels and the fence come on top."""

_ANYTHING: Final = State(base=10**6, revision=10**6)


def _size(requests: list[Any]) -> int:
    return len(json.dumps(resolve(requests, _ANYTHING), separators=(",", ":")))


def watch(material: Material) -> Call:
    requests: list[Any] = []
    for _ in range(material.rng.randint(1, 4)):
        creation = {"create_request": _creation(material)}
        if requests and _size([*requests, creation]) > SIZE_MAX:
            break
        requests.append(creation)
        # Whether a watcher of the past has caught up before it is cancelled, is a race.
        if material.chance(0.1) and not _reads_history(requests):
            watcher = material.rng.choice((0, 1, 2, 5, -3, 77))
            requests.append({"cancel_request": {"watch_id": watcher}})
        if material.chance(0.05):
            requests.append({"progress_request": {}})
    raw = (
        material.rng.choice((b'{"create_request":7}', b"}", b"7"))
        if material.chance(0.05)
        else None
    )
    return Call(WATCH, requests, user="root" if material.auth else "", raw=raw)


def _reads_history(requests: list[Any]) -> bool:
    return any("progress_notify" in item.get("create_request", {}) for item in requests)


def _creation(material: Material) -> dict[str, Any]:
    body: dict[str, Any] = {"key": b"", "range_end": b"\0"}
    if material.chance(0.9):
        body = material.range_of_keys(0.35)
    roll = material.rng.random()
    if roll < 0.15:
        body["start_revision"] = Revision(-material.rng.randint(0, 6), least=1)
        # It then says when it has caught up.
        body["progress_notify"] = True
    elif roll < 0.25:
        body["start_revision"] = Revision(material.rng.randint(1, 5))
    if material.chance(0.2):
        body["watch_id"] = material.rng.choice((1, 2, "5", -3))
    if material.chance(0.25):
        body["filters"] = material.rng.choice(_FILTERS)
    return body | material.flags(0.3, "prev_kv") | material.flags(0.1, "fragment")
