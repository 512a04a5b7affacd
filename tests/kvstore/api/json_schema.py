"""A checker of JSON against the part of JSON Schema that the OpenAPI document uses, and no more."""

import re

TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
    "null": type(None),
}
KNOWN = {
    "$ref", "additionalProperties", "anyOf", "contentEncoding", "description", "enum", "format",
    "items", "maxProperties", "maximum", "minimum", "pattern", "properties", "required", "type",
}  # fmt: skip


def faults(value, schema, document, where="$"):
    """Everything that is wrong with a value; an unknown word in a schema is a fault as well."""
    if set(schema) - KNOWN:
        return [f"{where}: the schema says {sorted(set(schema) - KNOWN)}"]
    if "$ref" in schema:
        found = document
        for name in schema["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        return faults(value, found, document, where)
    if "anyOf" in schema:
        tries = [faults(value, choice, document, where) for choice in schema["anyOf"]]
        return [] if [] in tries else min(tries, key=len)
    expected = TYPES[schema["type"]]
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        return [f"{where}: {value!r} is no {schema['type']}"]
    return [*_scalar(value, schema, where), *_parts(value, schema, document, where)]


def _scalar(value, schema, where):
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} is none of {schema['enum']}"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{where}: {value!r} is not {schema['pattern']}"
    if "minimum" in schema and not schema["minimum"] <= value <= schema["maximum"]:
        yield f"{where}: {value} is out of range"


def _parts(value, schema, document, where):
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from faults(item, schema["items"], document, f"{where}[{number}]")
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        for name in schema.get("required", ()):
            if name not in value:
                yield f"{where}: {name} is missing"
        if len(value) > schema.get("maxProperties", len(value)):
            yield f"{where}: too much of it"
        for name, item in value.items():
            if name in properties:
                yield from faults(item, properties[name], document, f"{where}.{name}")
            elif schema.get("additionalProperties") is False:
                yield f"{where}: {name} is unknown"
