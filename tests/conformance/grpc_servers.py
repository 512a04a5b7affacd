"""The same servers asked over gRPC: whatever a call says in JSON that a message can say, too.

What no message can say (a body that is no JSON, a path that is none) goes over HTTP to both.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Final

import grpc
from google.protobuf import json_format

from kvstore.api.error_map import http_status
from kvstore.api.grpc.table import RPCS
from kvstore.api.v3_json.table import PREFIXES, STREAMS, UNARY, Row, Shape
from kvstore.errors import Code
from tests.conformance.answers import Answer
from tests.conformance.calls import Call, headers, payload
from tests.conformance.servers import CALL_SECONDS, STREAM_SECONDS, Server, Stream
from tests.e2e.cluster import HOST
from tests.kvstore.api.grpc.oracle import class_of

_PATHS: Final = {row.method: path for path, row in RPCS.items()}
_ROWS: Final = {prefix + row.path: row for row in (*UNARY, *STREAMS) for prefix in PREFIXES}
_ENDLESS: Final = frozenset({"observe"})

Metadata = tuple[tuple[str, str], ...]


def _requests(row: Row, body: bytes) -> list[bytes] | None:
    """The messages that a body asks with; None if it is not made of such."""
    made = class_of(row.request)
    lines = body.split(b"\n") if row.shape is Shape.BOTH_WAYS else [body]
    messages = []
    for line in lines:
        try:
            messages.append(json_format.ParseDict(json.loads(line), made()).SerializeToString())
        except (ValueError, TypeError, AttributeError, json_format.ParseError):
            return None
    return messages


def _tree(row: Row, data: bytes) -> dict[str, Any]:
    message = class_of(row.response).FromString(data)
    tree: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return tree


def _error(error: grpc.RpcError) -> tuple[Code, str]:
    return Code(error.code().value[0]), error.details() or ""


class GrpcStream(Stream):
    """One watch stream: what it says in the form of the JSON lines that say the same."""

    def __init__(self, server: GrpcServer, requests: Sequence[bytes], metadata: Metadata) -> None:
        self.lines = []
        self.ended = False
        self._queue = queue.SimpleQueue()
        self._row = _ROWS["/v3/watch"]
        self._closed = threading.Event()
        ask = server.channel.stream_stream(_PATHS[self._row.method])
        self._call = ask(self._ask(requests), metadata=metadata)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _ask(self, requests: Sequence[bytes]) -> Iterator[bytes]:
        yield from requests
        # The stream stays open in this direction, as a body that has not ended.
        self._closed.wait()

    def _read(self) -> None:
        try:
            for data in self._call:
                line = {"result": _tree(self._row, data)}
                self._queue.put(json.dumps(line).encode())
        except grpc.RpcError as error:
            code, words = _error(error)
            if not self._closed.is_set():
                line = {"error": {"grpc_code": int(code), "message": words}}
                self._queue.put(json.dumps(line).encode())
        self._queue.put(None)

    def close(self) -> None:
        """Hang up."""
        self._closed.set()
        self._call.cancel()
        self._thread.join(STREAM_SECONDS)


class GrpcServer(Server):
    """One server, asked over gRPC on the same port."""

    def __init__(self, title: str, port: int, urls: Sequence[str]) -> None:
        super().__init__(title, port, urls)
        self.channel = grpc.insecure_channel(f"{HOST}:{port}")
        self._asked: tuple[Row, Any] | None = None

    def send(self, call: Call) -> None:
        """Send a call; ``receive`` its answer before the next one."""
        row = _ROWS.get(call.path)
        requests = None
        if row is not None and call.method == "POST" and row.method not in _ENDLESS:
            requests = _requests(row, payload(call, self.state))
        if row is None or not requests:
            self._asked = None
            super().send(call)
            return
        path, metadata = _PATHS[row.method], self._metadata(call)
        if row.shape is Shape.BOTH_WAYS:
            waiting: Any = self.channel.stream_stream(path)(
                iter(requests), metadata=metadata, timeout=CALL_SECONDS
            )
        elif row.shape is Shape.SERVER_STREAM:
            waiting = self.channel.unary_stream(path)(
                requests[0], metadata=metadata, timeout=CALL_SECONDS
            )
        else:
            waiting = self.channel.unary_unary(path).future(
                requests[0], metadata=metadata, timeout=CALL_SECONDS
            )
        self._asked = row, waiting

    def _metadata(self, call: Call) -> Metadata:
        token = headers(call, self.state).get("Authorization")
        return (("token", token),) if token else ()

    def receive(self) -> Answer:
        """The answer to the call that was sent."""
        if self._asked is None:
            return super().receive()
        row, waiting = self._asked
        trees: list[Any] = []
        try:
            if row.shape in (Shape.BOTH_WAYS, Shape.SERVER_STREAM):
                trees.extend({"result": _tree(row, data)} for data in waiting)
            else:
                trees.append(_tree(row, waiting.result()))
        except grpc.RpcError as error:
            code, words = _error(error)
            if trees:
                trees.append({"error": {"grpc_code": int(code), "message": words}})
            else:
                body = {"error": words, "message": words, "code": int(code)}
                return Answer(http_status(code), body, "application/json")
        return Answer(200, trees[0] if len(trees) == 1 else trees, "application/json")

    def open(self, call: Call) -> Stream:
        """A new watch stream; over HTTP if what it asks is no message."""
        row = _ROWS.get(call.path)
        requests = None if row is None else _requests(row, payload(call, self.state))
        if requests is None:
            return super().open(call)
        stream = GrpcStream(self, requests, self._metadata(call))
        self.streams.append(stream)
        return stream

    def close(self) -> None:
        """Close every connection."""
        super().close()
        self.channel.close()
