"""The paths beside the API, for the OpenAPI document: they are read, and answer in text or JSON."""

from typing import Any, Final, TypeAlias

from kvstore.api.health import CHECKS

Json: TypeAlias = dict[str, Any]

_OBJECT: Final[Json] = {"type": "object"}


def _texts(*names: str) -> Json:
    """An object of texts, all of them there."""
    return {
        "type": "object",
        "properties": {name: {"type": "string"} for name in names},
        "required": list(names),
        "additionalProperties": False,
    }


def _content(media: str, schema: Json | None) -> Json:
    return {media: {"schema": schema or {"type": "string"}}}


def _read(
    summary: str,
    media: str,
    schema: Json | None = None,
    *,
    fails: bool = False,
    parameters: tuple[Json, ...] = (),
) -> Json:
    content = _content(media, schema)
    responses: Json = {"200": {"description": "It is.", "content": content}}
    if fails:
        responses["503"] = {"description": "It is not.", "content": content}
    name = summary.split(":")[0].replace(" ", "_").lower()
    operation: Json = {
        "operationId": name,
        "tags": ["Server"],
        "summary": f"{summary}.",
        "responses": responses,
    }
    if parameters:
        operation["parameters"] = list(parameters)
    return {"get": operation}


def _query(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _list_of(*names: str) -> Json:
    return {"type": "array", "items": {"type": "string", "enum": list(names)}}


_VERBOSE: Final = _query("verbose", "Show every check.", {"type": "string"})


def _checked() -> Json:
    paths: Json = {}
    for path, names in CHECKS.items():
        exclude = _query("exclude", "Checks to leave out.", _list_of(*names))
        paths[path] = _read(
            f"All checks of {path[1:]}", "text/plain", fails=True, parameters=(_VERBOSE, exclude)
        )
        for name in names:
            summary = f"Check {name} of {path[1:]}"
            paths[f"{path}/{name}"] = _read(
                summary, "text/plain", fails=True, parameters=(_VERBOSE,)
            )
    return paths


PLAIN_PATHS: Final[Json] = {
    "/health": _read(
        "Health: no alarm, a leader, and a read that works",
        "text/plain",
        # A text that holds JSON: its type is etcd's.
        fails=True,
        parameters=(
            _query("exclude", "Alarms that do not count.", _list_of("NOSPACE", "CORRUPT")),
            _query("serializable", "Leave out the leader.", {"type": "string", "enum": ["true"]}),
        ),
    ),
    **_checked(),
    "/version": _read(
        "Version of the member and of the cluster",
        "application/json",
        _texts("etcdserver", "etcdcluster", "storage"),
    ),
    "/metrics": _read("Metrics: Prometheus text", "text/plain"),
    "/debug/vars": _read("Variables: the metrics as JSON", "application/json", _OBJECT),
    "/openapi.json": _read("Openapi: this document", "application/json", _OBJECT),
}
"""Path -> path item."""
