"""Run a sequence of calls against both servers and find the first answer that differs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from tests.conformance.answers import Answer, comparable
from tests.conformance.calls import FENCE_KEY, KEEP_ALIVE, V3, WATCH, Call, Revision
from tests.conformance.differences import TABLE, Exchange, explain, explain_story
from tests.conformance.generate_auth import ROOT_PASSWORD
from tests.conformance.servers import Server, Stream, new_etcd, new_kvstore
from tests.conformance.streams import (
    fenced,
    has_seen_fence,
    has_settled,
    is_opened,
    knows_fence,
    results,
    story,
    watcher_id,
)

OK: Final = 200
OPEN_SECONDS: Final = 5.0
STORY_SECONDS: Final = 4.0
LINE_SECONDS: Final = 0.05
GRACE_SECONDS: Final = 0.12
TTL_TOLERANCE_SECONDS: Final = 3
EVERYTHING: Final = {"key": b"\0", "range_end": b"\0"}

# Whatever a sequence did shows in what it leaves behind.
CLOSING: Final = (
    Call(V3 + "/kv/range", EVERYTHING, user="root"),
    Call(V3 + "/lease/leases", user="root"),
)

_SETS_PASSWORD: Final = ("/auth/user/add", "/auth/user/changepw")

Tamper = Callable[[Call, Answer], Answer]


class Failure(msgspec.Struct):
    """The first call whose answers differ; ``index`` counts from the start of the sequence."""

    index: int
    call: Call
    etcd: Any
    kvstore: Any

    @property
    def kind(self) -> str:
        """What to hold on to while the sequence is made shorter: the same call failing."""
        return self.call.path


class Pair:
    """etcd and ours, side by side.

    Args:
        etcd: the measure.
        kvstore: what is measured.
        tamper: changes our answers before they are compared: what the bench must then find.

    Attributes:
        before_call: told each call before it is made.
        explained: how often each row of the table of differences was needed.
        calls: how many were made.
    """

    def __init__(self, etcd: Server, kvstore: Server, tamper: Tamper | None = None) -> None:
        self.etcd = etcd
        self.kvstore = kvstore
        self.tamper = tamper
        self.auth_on = False
        self.root_password = ROOT_PASSWORD
        self.compacted = 0
        self.explained: dict[str, int] = dict.fromkeys((row.name for row in TABLE), 0)
        self.calls = 0
        self.before_call: Callable[[Call], None] | None = None
        self._fresh = True
        self._had_auth = False
        self._watches: list[Call] = []

    @property
    def servers(self) -> tuple[Server, Server]:
        """Both, etcd first."""
        return self.etcd, self.kvstore

    def run(self, calls: Sequence[Call]) -> Failure | None:
        """Run one sequence from an empty store on; None if all answers agree."""
        self.reset()
        try:
            failure: Failure | None = None
            for index, call in enumerate((*calls, *CLOSING)):
                self.calls += 1
                if self.before_call is not None:
                    self.before_call(call)
                failure = self._step(index, call)
                if failure is not None:
                    return failure
            return self._compare_stories(len(calls))
        finally:
            self._hang_up()

    def _hang_up(self) -> None:
        for server in self.servers:
            server.hang_up()
        self._watches.clear()

    def both(self, call: Call) -> tuple[Answer, Answer]:
        """The same call to both at the same time."""
        for server in self.servers:
            server.send(call)
        etcd, kvstore = self.etcd.receive(), self.kvstore.receive()
        return etcd, kvstore

    # --- One call -----------------------------------------------------------------------------

    def _step(self, index: int, call: Call) -> Failure | None:
        if call.path == WATCH:
            return self._open(index, call)
        if call.path.endswith("/kv/compaction"):
            # Whether a watcher still saw what is compacted must not depend on who was faster.
            failure = self._compare_stories(index)
            if failure is not None:
                return failure
        if call.path.endswith("/auth/enable"):
            # Of the watchers that are there ours asks who they are from now on (divergence.md).
            failure = self._compare_stories(index)
            self._hang_up()
            if failure is not None:
                return failure
        etcd, kvstore = self.both(call)
        if self.tamper is not None:
            kvstore = self.tamper(call, kvstore)
        self._learn(call, etcd, kvstore)
        return self._judge(index, call, etcd, kvstore)

    def _judge(self, index: int, call: Call, etcd: Answer, kvstore: Answer) -> Failure | None:
        exchange = Exchange(
            call=call,
            etcd=_comparable(call, etcd, self.etcd),
            kvstore=_comparable(call, kvstore, self.kvstore),
            auth_on=self.auth_on,
            compacted=self.compacted,
        )
        if exchange.agrees():
            return None
        for name in explain(exchange):
            self.explained[name] += 1
        if exchange.agrees():
            return None
        return Failure(index, call, exchange.etcd, exchange.kvstore)

    def _learn(self, call: Call, etcd: Answer, kvstore: Answer) -> None:
        for server, answer in ((self.etcd, etcd), (self.kvstore, kvstore)):
            body = answer.body
            if answer.status != OK or not isinstance(body, dict):
                continue
            header = body.get("header") or {}
            server.state.revision = max(server.state.revision, int(header.get("revision", 0)))
            if call.path.endswith("/lease/grant") and not int(call.body.get("ID", 0) or 0):
                server.state.leases.append(int(body["ID"]))
            elif call.path.endswith("/auth/authenticate"):
                server.state.tokens[call.body["name"]] = body.get("token", "")
            elif call.path.endswith("/election/campaign"):
                server.state.leaders[call.body["name"]] = body.get("leader")
            elif call.path.endswith("/auth/disable"):
                server.state.tokens.clear()
        if kvstore.status == OK:
            self._learn_mode(call, kvstore)

    def _learn_mode(self, call: Call, answer: Answer) -> None:
        if "/auth/" in call.path:
            self._had_auth = True
            self._learn_of_root(call)
        elif call.path.endswith("/kv/compaction") and isinstance(call.body, dict):
            revision = call.body.get("revision")
            if isinstance(revision, Revision):
                state = self.kvstore.state
                self.compacted = revision.of(state) - state.base

    def _learn_of_root(self, call: Call) -> None:
        """Root's token stays good: what only he may do is asked as root, for 3.4 lets anybody."""
        if call.path.endswith("/auth/enable"):
            self.auth_on = True
        elif call.path.endswith("/auth/disable"):
            self.auth_on = False
        elif call.body.get("name") == "root" and call.path.endswith(_SETS_PASSWORD):
            self.root_password = call.body["password"]
        else:
            return
        if self.auth_on:
            body = {"name": "root", "password": self.root_password}
            login = Call(V3 + "/auth/authenticate", body)
            if self.before_call is not None:
                self.before_call(login)
            self._learn(login, *self.both(login))

    # --- Watches ------------------------------------------------------------------------------

    def _open(self, index: int, call: Call) -> Failure | None:
        streams = [server.open(fenced(call, server.state)) for server in self.servers]
        self._watches.append(call)
        for server, stream in zip(self.servers, streams, strict=True):
            _wait(stream, OPEN_SECONDS, partial(is_opened, stream))
            for watcher in _from_the_past(call, stream, server):
                _wait(
                    stream,
                    OPEN_SECONDS,
                    partial(has_settled, stream, watcher),
                )
        return None

    def _compare_stories(self, index: int) -> Failure | None:
        """Let all watchers come to the present, and compare what they were told."""
        if not self._watches:
            return None
        self._raise_fence()
        deadline = time.monotonic() + STORY_SECONDS
        for number, call in enumerate(self._watches):
            ours, theirs = self.kvstore.streams[number], self.etcd.streams[number]
            while True:
                exchange = Exchange(
                    call=call,
                    etcd=Answer(OK, story(theirs, self.etcd)),
                    kvstore=Answer(OK, story(ours, self.kvstore)),
                    auth_on=self.auth_on,
                    compacted=self.compacted,
                )
                names = [] if exchange.agrees() else explain_story(exchange)
                if exchange.agrees():
                    break
                if time.monotonic() > deadline:
                    return Failure(index, call, exchange.etcd, exchange.kvstore)
                for stream in (ours, theirs):
                    stream.wait(LINE_SECONDS)
            for name in names:
                self.explained[name] += 1
        return None

    def _raise_fence(self) -> None:
        put = Call(V3 + "/kv/put", {"key": FENCE_KEY})
        if self.auth_on:
            put = self._as_root(put)
        answers = self.both(put)
        revisions = []
        for server, answer in zip(self.servers, answers, strict=True):
            if answer.status != OK:
                # Nobody may put it: then only patience tells that nothing more will come.
                for stream in server.streams:
                    stream.wait(GRACE_SECONDS)
                return
            server.state.revision = int(answer.body["header"]["revision"])
            revisions.append(server.state.revision)
        for server, revision in zip(self.servers, revisions, strict=True):
            for stream in server.streams:
                if knows_fence(stream):
                    _wait(
                        stream,
                        STORY_SECONDS,
                        partial(has_seen_fence, stream, revision),
                    )
                else:
                    stream.wait(GRACE_SECONDS)

    # --- Between sequences --------------------------------------------------------------------

    def _as_root(self, call: Call) -> Call:
        """The call with a token of root, whatever the sequence did to his others."""
        for server in self.servers:
            server.send(
                Call(V3 + "/auth/authenticate", {"name": "root", "password": self.root_password})
            )
            answer = server.receive()
            if answer.status == OK:
                server.state.tokens["the bench"] = answer.body["token"]
        return msgspec.structs.replace(call, user="the bench")

    def reset(self) -> None:
        """Take both back to an empty store; a fresh one is left as it is.

        Raises:
            AssertionError: A server does not let itself be taken back.
        """
        if not self._fresh:
            self._undo_auth()
            for server in self.servers:
                for lease in server.ask(V3 + "/lease/leases").get("leases", []):
                    server.ask(V3 + "/lease/revoke", {"ID": lease["ID"]})
                body = server.ask(V3 + "/kv/deleterange", EVERYTHING)
                revision = body["header"]["revision"]
                server.send(Call(V3 + "/kv/compaction", {"revision": revision, "physical": True}))
                server.receive()
        for server in self.servers:
            server.forget()
            server.learn()
        self.compacted = 0 if not self._fresh else -self.kvstore.state.base
        self._fresh = False

    def _undo_auth(self) -> None:
        if not self._had_auth:
            return
        disable = Call(V3 + "/auth/disable")
        for server in self.servers:
            server.state.tokens.clear()
        self.both(self._as_root(disable) if self.auth_on else disable)
        for server in self.servers:
            server.state.tokens.clear()
            for user in server.ask(V3 + "/auth/user/list").get("users", []):
                server.ask(V3 + "/auth/user/delete", {"name": user})
            for role in server.ask(V3 + "/auth/role/list").get("roles", []):
                server.ask(V3 + "/auth/role/delete", {"role": role})
        self.auth_on = self._had_auth = False
        self.root_password = ROOT_PASSWORD


def _wait(stream: Stream, seconds: float, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not done() and not stream.ended and time.monotonic() < deadline:
        stream.wait(LINE_SECONDS)


def _from_the_past(call: Call, stream: Stream, server: Server) -> list[int]:
    """The watchers of a new stream that begin at or before the present."""
    creations = [item["create_request"] for item in call.body if "create_request" in item]
    answers = [message for message in results(stream) if message.get("created")]
    past = []
    for creation, answer in zip(creations, answers, strict=False):
        start = creation.get("start_revision")
        if not isinstance(start, Revision) or answer.get("canceled"):
            continue
        if start.of(server.state) <= server.state.revision:
            past.append(watcher_id(answer))
    return past


def _comparable(call: Call, answer: Answer, server: Server) -> Answer:
    """An answer with names for the server's own things, and lists without order put in order."""
    body = comparable(answer.body, server)
    if isinstance(body, dict):
        if call.path.endswith("/maintenance/status"):
            # An empty store of ours has size 0, which JSON leaves out; an empty file has some.
            body.pop("dbSize", None)
            body.pop("dbSizeInUse", None)
        if call.path.endswith("/lease/leases"):
            body["leases"] = sorted(body.get("leases", []), key=str)
        if call.path.endswith("/lease/timetolive"):
            body["keys"] = sorted(body.get("keys", []))
            remaining, granted = int(body.get("TTL", 0)), int(body.get("grantedTTL", 0))
            if 0 <= granted - remaining <= TTL_TOLERANCE_SECONDS:
                body["TTL"] = "<about all of it>"
    if call.path == KEEP_ALIVE and isinstance(body, dict):
        body = [body]
    return Answer(answer.status, body, answer.content_type)


@contextlib.contextmanager
def new_pair(
    directory: Path, tamper: Tamper | None = None, make: type[Server] = Server
) -> Iterator[Pair]:
    """Both servers, fresh; ``make`` says how they are asked."""
    directory.mkdir(parents=True, exist_ok=True)
    with new_etcd(directory, make) as etcd, new_kvstore(directory / "kvstore", make) as kvstore:
        yield Pair(etcd, kvstore, tamper)
