"""The v3 API as an OpenAPI 3.1 document, made of the same tables and messages that serve it.

What goes in is described as it is taken, numbers for strings and nulls among it; what comes out
exactly as it is written, with nothing else beside it. So a message that both come and go by has two
schemas, and whoever holds answers against the document finds what is not in it.
"""

from collections.abc import Iterable
from typing import Any, Final, TypeAlias

from msgspec import Struct

from kvstore.api.error_map import HTTP_STATUS, reason
from kvstore.api.v3_json.openapi_plain import PLAIN_PATHS
from kvstore.api.v3_json.schema import Field, Kind, fields_of
from kvstore.api.v3_json.table import PREFIXES, STREAMS, UNARY, Row, Shape

Json: TypeAlias = dict[str, Any]

_INTEGERS: Final = {
    Kind.INT64: ("int64", -(1 << 63), (1 << 63) - 1),
    Kind.UINT64: ("uint64", 0, (1 << 64) - 1),
    Kind.UINT32: ("uint32", 0, (1 << 32) - 1),
}
_DECIMAL: Final = "^-?(0|[1-9][0-9]*)$"
_BASE64: Final = "^[A-Za-z0-9+/]*={0,2}$"

_DESCRIPTION: Final = """\
etcd's v3 API as JSON over HTTP. Every call is a POST; `/v3beta` serves the same paths.

Keys and values are base64. Integers of 64 bits are strings in answers, and strings or numbers in
requests. What has its default value (0, false, "", an empty list, the first of an enum) is left out
of answers, and may be left out of requests. Names may be given as here or in camelCase
(`range_end`, `rangeEnd`); unknown ones are ignored. An empty body is an empty request.

Streams answer with one JSON object a line, `{"result": …}`, and end with `{"error": …}` if
something went wrong. Any path may be asked over a websocket as well: a message is a request, and
each line of the answer is a message.
"""

_STREAM_NOTES: Final = {
    Shape.SERVER_STREAM: "One request; the answer is one JSON object a line, as described here.",
    Shape.BOTH_WAYS: (
        "The body is a sequence of requests, the answer one JSON object a line, as described here."
    ),
    Shape.PATIENT: "The answer may be long in coming; hanging up takes the request back.",
}

_SERVICES: Final = {
    "kv": "KV",
    "watch": "Watch",
    "lease": "Lease",
    "cluster": "Cluster",
    "maintenance": "Maintenance",
    "auth": "Auth",
    "lock": "Lock",
    "election": "Election",
}

_ERROR: Final[Json] = {
    "type": "object",
    "description": "`error` and `message` are the same; old clients read one, new ones the other.",
    "properties": {
        "error": {"type": "string"},
        "message": {"type": "string"},
        "code": {"type": "integer", "description": "gRPC's code.", "minimum": 1, "maximum": 16},
    },
    "required": ["error", "message", "code"],
    "additionalProperties": False,
}

_STREAM_ERROR: Final[Json] = {
    "type": "object",
    "description": "What ends a stream. `code` is `grpc_code`, for clients of either age.",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "grpc_code": {"type": "integer", "minimum": 1, "maximum": 16},
                "http_code": {"type": "integer", "minimum": 400, "maximum": 599},
                "message": {"type": "string"},
                "http_status": {"type": "string"},
                "code": {"type": "integer", "minimum": 1, "maximum": 16},
            },
            "required": ["grpc_code", "http_code", "message", "http_status", "code"],
            "additionalProperties": False,
        }
    },
    "required": ["error"],
    "additionalProperties": False,
}

_PARAMETERS: Final[Json] = {
    "timeout": {
        "name": "Grpc-Timeout",
        "in": "header",
        "description": "How long the call may take: a number and one of H, M, S, m, u, n.",
        "schema": {"type": "string", "pattern": "^[0-9]{1,8}[HMSmun]$"},
    },
    "hasLeader": {
        "name": "Grpc-Metadata-Hasleader",
        "in": "header",
        "description": "`true`: an error at once, rather than patience, without a leader.",
        "schema": {"type": "string", "enum": ["true", "false"]},
    },
}

_TOKEN: Final[Json] = {
    "type": "apiKey",
    "in": "header",
    "name": "Authorization",
    "description": "The token of `/v3/auth/authenticate`, with or without `Bearer ` before it.",
}

_STATUSES: Final = sorted({*HTTP_STATUS.values(), 408, 421} - {200})


def document(version: str) -> Json:
    """The whole document, for a server of this version."""
    schemas = _Schemas()
    paths: Json = {}
    for row in (*UNARY, *STREAMS):
        paths[PREFIXES[0] + row.path] = {"post": _operation(row, schemas)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "kvstore", "description": _DESCRIPTION, "version": version},
        "tags": [{"name": name} for name in (*_SERVICES.values(), "Server")],
        "paths": paths | PLAIN_PATHS,
        "components": {
            "schemas": {"Error": _ERROR, "StreamError": _STREAM_ERROR} | schemas.found,
            "parameters": _PARAMETERS,
            "securitySchemes": {"token": _TOKEN},
        },
    }


def _operation(row: Row, schemas: "_Schemas") -> Json:
    is_stream = row.shape in (Shape.SERVER_STREAM, Shape.BOTH_WAYS)
    answer = schemas.reference(row.response, incoming=False)
    failure: Json = _schema_reference("Error")
    if is_stream:
        # An error before the first message has a status of its own, and the form of a stream's.
        failure = {"anyOf": [failure, _schema_reference("StreamError")]}
        line: Json = {
            "type": "object",
            "properties": {"result": answer},
            "required": ["result"],
            "additionalProperties": False,
        }
        answer = {"anyOf": [line, _schema_reference("StreamError")]}
    responses = {"200": _response("Done." if not is_stream else "Lines of JSON.", answer)}
    for status in _STATUSES:
        responses[str(status)] = _response(reason(status), failure)
    # Refused before any face is asked, as text.
    responses["421"] = {
        "description": "Not one of --host-whitelist.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
    operation: Json = {
        "operationId": row.path[1:].replace("/", "_").replace("-", "_"),
        "tags": [_SERVICES[row.path.split("/")[1]]],
        "summary": _first_line(row.request),
        "parameters": [
            {"$ref": f"#/components/parameters/{name}"} for name in ("timeout", "hasLeader")
        ],
        "requestBody": {
            "content": {"application/json": {"schema": schemas.reference(row.request)}}
        },
        "responses": responses,
        "security": [{}, {"token": []}],
    }
    note = _STREAM_NOTES.get(row.shape)
    if note is not None:
        operation["description"] = note
        operation["x-shape"] = row.shape.value
    return operation


def _response(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _schema_reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _first_line(message: type[Struct]) -> str:
    return (message.__doc__ or message.__name__).strip().splitlines()[0]


class _Schemas:
    """The schemas of all messages met so far."""

    def __init__(self) -> None:
        self.found: dict[str, Json] = {}

    def reference(self, message: type[Struct], *, incoming: bool = True) -> Json:
        """A reference to a message's schema, which is made if it is not there yet."""
        name = message.__name__ if not incoming else f"{message.__name__}In"
        if message.__name__.endswith("Request"):
            name = message.__name__
        if name not in self.found:
            # Reserved before its fields are looked at: a transaction may hold transactions.
            schema = self.found[name] = {}
            schema |= self._message(message, incoming)
        return _schema_reference(name)

    def _message(self, message: type[Struct], incoming: bool) -> Json:
        fields = fields_of(message)
        schema: Json = {
            "type": "object",
            "description": " ".join((message.__doc__ or "").split()),
            "properties": {field.name: self._field(field, incoming) for field in fields},
        }
        oneof = [field.name for field in fields if field.oneof is not None]
        if oneof:
            schema["description"] += f" At most one of {', '.join(oneof)}."
        if oneof and len(oneof) == len(fields):
            schema["maxProperties"] = 1
        if not incoming:
            schema["additionalProperties"] = False
        return schema

    def _field(self, field: Field, incoming: bool) -> Json:
        schema = self._single(field, incoming)
        if field.repeated is not None:
            schema = {"type": "array", "items": schema}
        return {"anyOf": [schema, {"type": "null"}]} if incoming else schema

    def _single(self, field: Field, incoming: bool) -> Json:
        kind = field.kind
        if kind is Kind.MESSAGE:
            assert field.message is not None, "a message has a type"
            return self.reference(field.message, incoming=incoming)
        if kind is Kind.ENUM:
            assert field.enum_type is not None, "an enum has a type"
            return _enum(field.enum_type.__members__, incoming)
        if kind is Kind.BYTES:
            return {"type": "string", "contentEncoding": "base64", "pattern": _BASE64}
        if kind is Kind.STRING:
            return {"type": "string"}
        if kind is Kind.BOOL:
            return {"type": "boolean"}
        return _integer(kind, incoming)


def _enum(names: Iterable[str], incoming: bool) -> Json:
    """A name; or a number, in requests and where an answer repeats one that has no name."""
    known = {"type": "string", "enum": list(names)}
    low = 0 if incoming else -(1 << 31)
    return {"anyOf": [known, {"type": "integer", "minimum": low, "maximum": (1 << 31) - 1}]}


def _integer(kind: Kind, incoming: bool) -> Json:
    form, low, high = _INTEGERS[kind]
    number = {"type": "integer", "format": form, "minimum": low, "maximum": high}
    text = {"type": "string", "format": form, "pattern": _DECIMAL}
    if incoming:
        return {"anyOf": [text, number]}
    return number if kind is Kind.UINT32 else text
