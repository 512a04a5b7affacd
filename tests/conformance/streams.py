"""What a watch stream said, watcher by watcher: batches differ between servers, order does not."""

from __future__ import annotations

import json
from typing import Any, Final

from tests.conformance.answers import Known, comparable
from tests.conformance.calls import FENCE_ID, FENCE_KEY, WATCH, Call, State, resolve
from tests.conformance.servers import Stream

_FENCE: Final = {"create_request": {"key": FENCE_KEY, "watch_id": FENCE_ID}}

GATEWAY_READS_BYTES: Final = 512


def fenced(call: Call, state: State) -> Call:
    """A watch call whose last watcher tells that all before it have been answered.

    What a sequence puts behind its requests as raw text stays behind the fence.

    All of it stays below 512 bytes: that much the gateway of 3.4 reads at once. What it has not
    read when it first answers, it may never read (Go's HTTP/1.1 server then drops the body).
    """
    requests = [resolve(item, state) for item in (*call.body, _FENCE)]
    text = "\n".join(json.dumps(item, separators=(",", ":")) for item in requests).encode()
    raw = text + (call.raw or b"")
    assert len(raw) < GATEWAY_READS_BYTES, raw
    return Call(WATCH, user=call.user, token=call.token, raw=raw)


def results(stream: Stream) -> list[dict[str, Any]]:
    """All messages so far."""
    return [line["result"] for line in stream.lines if "result" in line]


def watcher_id(message: dict[str, Any]) -> int:
    """Which watcher a message is for."""
    return int(message.get("watch_id", 0))


def is_opened(stream: Stream) -> bool:
    """Whether the fence has been answered, well or not."""
    creations = [message for message in results(stream) if message.get("created")]
    return stream.ended or any(
        watcher_id(message) == FENCE_ID or "error" in message for message in creations
    )


def knows_fence(stream: Stream) -> bool:
    """Whether its fence watches: nobody may watch what he may not read."""
    return any(watcher_id(m) == FENCE_ID and not m.get("canceled") for m in results(stream))


def has_seen_fence(stream: Stream, revision: int) -> bool:
    """Whether its fence has seen an event of this revision."""
    return any(
        int(event["kv"]["mod_revision"]) >= revision
        for message in results(stream)
        if watcher_id(message) == FENCE_ID
        for event in message.get("events", [])
    )


def has_settled(stream: Stream, watcher: int) -> bool:
    """Whether a watcher is gone, or has told that it has caught up."""
    for message in results(stream):
        if watcher_id(message) == watcher:
            if message.get("canceled"):
                return True
            if not message.get("created") and not message.get("events"):
                return True
    return stream.ended


def story(stream: Stream, known: Known) -> dict[str, list[Any]]:
    """What each watcher was told: creation, events one by one, its end. Progress is left out."""
    told: dict[str, list[Any]] = {}
    last_revision: dict[int, str] = {}
    for line in stream.lines:
        if "result" not in line:
            told.setdefault("stream", []).append(comparable(line, known))
            continue
        message = line["result"]
        watcher = watcher_id(message)
        events = message.get("events", [])
        if message.get("created") or message.get("canceled"):
            told.setdefault(str(watcher), []).append(comparable(message, known))
            continue
        entries = told.setdefault(str(watcher), []) if events else []
        if events and events[0]["kv"]["mod_revision"] == last_revision.get(watcher):
            entries.append("one revision came in two responses")
        for event in events:
            last_revision[watcher] = event["kv"]["mod_revision"]
            entries.append(comparable(event, known))
    return told
