"""A failure as people can look into it: lines for a shell, and both answers."""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Iterable, Sequence

from tests.conformance.answers import Answer
from tests.conformance.bench import CLOSING, Failure
from tests.conformance.calls import WATCH, Call, State, headers, payload
from tests.conformance.servers import Server
from tests.conformance.streams import fenced


class Transcript:
    """The calls of one run as lines for a shell, in the numbers of the server that was asked.

    What a server chooses (leases, tokens) becomes a variable of the shell, filled by the call that
    is answered with it.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._leases = 0

    def add(self, call: Call, server: Server) -> None:
        """A call, before it is made."""
        names = _names(server.state)
        asked = fenced(call, names) if call.path == WATCH else call
        body = payload(asked, names).decode(errors="surrogateescape")
        words = ["curl", "-sS"]
        if call.path == WATCH:
            words.append("-N")
        if call.method != "POST":
            words += ["-X", call.method]
        token = headers(call, names).get("Authorization")
        line = " ".join(words)
        if token:
            line += f' -H "Authorization: {token}"'
        line += f' "$URL{call.path}" --data-binary {_quoted(body)}'
        self.lines.append(self._kept(call, line) + (" &" if call.path == WATCH else ""))

    def _kept(self, call: Call, line: str) -> str:
        if call.path.endswith("/auth/authenticate"):
            return f"TOKEN_{call.body['name']}=$({line} | {_picked('token')})"
        if call.path.endswith("/lease/grant") and not int(call.body.get("ID", 0) or 0):
            self._leases += 1
            return f"LEASE_{self._leases - 1}=$({line} | {_picked('ID')})"
        return line


def _names(state: State) -> State:
    """A server's revisions, and variables of the shell in place of what it chose."""
    names = State(state.base, state.revision)
    names.leases = _Variables()
    names.tokens = {user: f"$TOKEN_{user}" for user in state.tokens}
    names.leaders = state.leaders
    return names


class _Variables:
    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, number: int) -> str:
        return f"$LEASE_{number}"


def _picked(field: str) -> str:
    return f"""sed -E 's/.*"{field}":"?([^",}}]*).*/\\1/'"""


def _quoted(body: str) -> str:
    """For the shell: variables of ours are filled in, nothing else is."""
    if "$LEASE_" in body:
        return '"' + body.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return shlex.quote(body)


def describe(calls: Sequence[Call], failure: Failure, lines: Iterable[str], seed: int) -> str:
    """What failed: the shell's lines, and how the answers differ."""
    last = failure.call
    where = "what is left behind" if last in CLOSING else last.path
    head = [
        f"seed {seed}: etcd and kvstore differ at {where} after {len(calls)} calls.",
        "For a fresh server at $URL (before a compaction of the store's own, if there is any):",
        "",
        *lines,
        "",
    ]
    return "\n".join(head + differing(failure))


def differing(failure: Failure) -> list[str]:
    """Both answers, revisions counted from the start, line against line."""
    etcd, kvstore = (_laid_out(answer) for answer in (failure.etcd, failure.kvstore))
    return list(difflib.unified_diff(etcd, kvstore, "etcd", "kvstore", lineterm="", n=30))


def _laid_out(answer: Answer) -> list[str]:
    body = json.dumps(answer.body, indent=1, sort_keys=True).splitlines()
    return [f"status {answer.status} {answer.content_type}".rstrip(), *body]
