"""``kvstore txn``: conditions and two lists of requests, read from standard input line by line.

The form is etcdctl's: three parts, each ended by an empty line::

    mod("key1") > "0"

    put key1 "overwritten"

    put key1 "created"
"""

from __future__ import annotations

import re
import shlex
import sys
from typing import Any, Final

import click

from kvstore.cli import kv
from kvstore.cli.options import client_command, encoded, key_range, output_option
from kvstore.cli.output import write_json, write_line, write_pair
from kvstore.client import Client
from kvstore.types import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    ResponseOp,
    TxnResponse,
)

_COMPARE: Final = re.compile(
    r'(\w+)\s*\(\s*("(?:[^"\\]|\\.)*")\s*\)\s*(=|!=|<|>)\s*("(?:[^"\\]|\\.)*"|\S+)'
)
_RESULTS: Final = {
    "=": CompareResult.EQUAL,
    "!=": CompareResult.NOT_EQUAL,
    "<": CompareResult.LESS,
    ">": CompareResult.GREATER,
}
# Name of a target: the target, the field of a comparison that holds its operand.
_TARGETS: Final = {
    "ver": (CompareTarget.VERSION, "version"),
    "version": (CompareTarget.VERSION, "version"),
    "c": (CompareTarget.CREATE, "create_revision"),
    "create": (CompareTarget.CREATE, "create_revision"),
    "m": (CompareTarget.MOD, "mod_revision"),
    "mod": (CompareTarget.MOD, "mod_revision"),
    "val": (CompareTarget.VALUE, "value"),
    "value": (CompareTarget.VALUE, "value"),
    "lease": (CompareTarget.LEASE, "lease"),
}
_ESCAPE: Final = re.compile(rb"\\(x[0-9a-fA-F]{2}|[0-7]{3}|.)", re.DOTALL)
_ESCAPED: Final = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t",
                   b"v": b"\v"}  # fmt: skip


EXAMPLE: Final = """\b
Three parts are read from standard input, each ended by an empty line: comparisons,
requests (get, put, del) if all of them hold, requests if not. For example

\b
  create("lock") = "0"
  (empty line)
  put lock mine
  (empty line)
  get lock

\b
Compared are version (ver), create (c), mod (m), value (val) and lease, by = != < >."""


@click.command(epilog=EXAMPLE)
@click.option("-i", "--interactive", is_flag=True, help="Say which part is to be typed.")
@output_option
@client_command
def txn(client: Client, form: str, *, interactive: bool) -> None:
    """Compare, then do one of two lists of requests, as one step."""
    asked = {
        "compares": "compares:",
        "success": "success requests (get, put, del):",
        "failure": "failure requests (get, put, del):",
    }
    parts = {}
    for part, words in asked.items():
        if interactive:
            print(words, flush=True)
        parts[part] = _read_part()
    response = client.txn(
        [compare_of(line) for line in parts["compares"]],
        [request_of(line) for line in parts["success"]],
        [request_of(line) for line in parts["failure"]],
    )
    if form == "json":
        write_json(response)
    else:
        _show(response)


def _read_part() -> list[str]:
    lines: list[str] = []
    for line in sys.stdin:
        if not line.strip():
            break
        lines.append(line.strip())
    return lines


def compare_of(line: str) -> Compare:
    """Read one comparison.

    Raises:
        click.UsageError: It is none.
    """
    match = _COMPARE.fullmatch(line)
    if match is None:
        raise click.UsageError(f'not a comparison, such as mod("key") > "0": {line}')
    name, key, sign, operand = match.groups()
    if name not in _TARGETS:
        raise click.UsageError(f"{name} cannot be compared, only {', '.join(_TARGETS)}: {line}")
    target, field = _TARGETS[name]
    compare = Compare(_RESULTS[sign], target, _unquoted(key))
    value = _unquoted(operand)
    if target == CompareTarget.VALUE:
        compare.value = value
        return compare
    try:
        setattr(compare, field, int(value, 16 if target == CompareTarget.LEASE else 10))
    except ValueError as error:
        raise click.UsageError(f"{operand} is no number: {line}") from error
    return compare


def _unquoted(text: str) -> bytes:
    data = encoded(text)
    if not data.startswith(b'"'):
        return data
    return _ESCAPE.sub(_unescaped, data[1:-1])


def _unescaped(match: re.Match[bytes]) -> bytes:
    escape: bytes = match[1]
    if escape.startswith(b"x") and len(escape) == 3:
        return bytes([int(escape[1:], 16)])
    if len(escape) == 3:
        return bytes([int(escape, 8) & 0xFF])
    return _ESCAPED.get(escape, escape)


def request_of(line: str) -> RequestOp:
    """Read one request, spelled as the command of its name.

    Raises:
        click.UsageError: It is none.
    """
    try:
        name, *arguments = shlex.split(line)
        command = {"get": kv.get, "put": kv.put, "del": kv.delete}[name]
        found = command.make_context(name, arguments).params
    except (KeyError, ValueError) as error:
        raise click.UsageError(f"not a get, put or del: {line}") from error
    except click.ClickException as error:
        raise click.UsageError(f"{line}: {error.format_message()}") from error
    if name == "put":
        return RequestOp(request_put=_put(found, line))
    start, end = key_range(
        found["key"], found["range_end"], prefix=found["prefix"], from_key=found["from_key"]
    )
    if name == "del":
        request = DeleteRangeRequest(start, end, found["prev_kv"])
        return RequestOp(request_delete_range=request)
    return RequestOp(request_range=_range(found, start, end))


def _put(found: dict[str, Any], line: str) -> PutRequest:
    if found["value"] is None and not found["ignore_value"]:
        raise click.UsageError(f"a put in a transaction needs its value: {line}")
    return PutRequest(
        encoded(found["key"]),
        encoded(found["value"] or ""),
        found["lease"],
        found["prev_kv"],
        found["ignore_value"],
        found["ignore_lease"],
    )


def _range(found: dict[str, Any], start: bytes, end: bytes) -> RangeRequest:
    order, target = kv.sorting(found["order"], found["sort_by"])
    return RangeRequest(
        start,
        end,
        found["limit"],
        found["revision"],
        order,
        target,
        found["consistency"] == "s",
        found["keys_only"],
        found["count_only"],
    )


def _show(response: TxnResponse) -> None:
    write_line(b"SUCCESS" if response.succeeded else b"FAILURE")
    for one in response.responses:
        write_line()
        _show_one(one)


def _show_one(one: ResponseOp) -> None:
    if one.response_put is not None:
        write_line(b"OK")
        if one.response_put.prev_kv is not None:
            write_pair(one.response_put.prev_kv)
    elif one.response_delete_range is not None:
        write_line(b"%d" % one.response_delete_range.deleted)
        for pair in one.response_delete_range.prev_kvs:
            write_pair(pair)
    elif one.response_range is not None:
        for pair in one.response_range.kvs:
            write_pair(pair)
