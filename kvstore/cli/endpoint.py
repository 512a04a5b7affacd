"""``kvstore status`` and ``endpoint``: how each member is, asked one by one."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import click
import msgspec

from kvstore.cli.alarm import alarm_name
from kvstore.cli.options import (
    asked,
    client_command,
    cluster_option,
    output_option,
    table_option,
)
from kvstore.cli.output import size_text, took_text, write_line, write_table
from kvstore.client import Client, json_codec
from kvstore.client.transport import Endpoint
from kvstore.errors import KvError
from kvstore.types import StatusResponse


@click.command()
@output_option
@client_command
def status(client: Client, form: str) -> int:
    """Print how each of the endpoints is; the exit code is 1 if one does not answer."""
    return _each(client, "Status", form, client.status, _summary)


@click.group()
def endpoint() -> None:
    """Members, asked one by one: are they well, how far are they, are they equal?"""


@endpoint.command()
@cluster_option
@table_option
@client_command
def health(client: Client, form: str, *, cluster: bool) -> int:
    """Print whether each endpoint can read by way of a quorum, and has no alarm.

    The exit code is 1 if one cannot.
    """
    found: list[dict[str, Any]] = []
    with asked(client, cluster=cluster) as everyone:
        for place in everyone.transport.endpoints:
            begun = time.monotonic()
            trouble = _trouble(everyone, place)
            took = took_text(time.monotonic() - begun)
            row = {"endpoint": place.url, "health": not trouble, "took": took}
            found.append(row | ({"error": trouble} if trouble else {}))
            if form == "simple":
                _say_health(place.url, took, trouble)
    if form == "json":
        write_line(msgspec.json.encode(found))
    elif form == "table":
        rows = [
            (row["endpoint"], str(row["health"]).lower(), row["took"], row.get("error", ""))
            for row in found
        ]
        write_table(("endpoint", "health", "took", "error"), rows)
    if all(row["health"] for row in found):
        return 0
    print("error: unhealthy cluster; 'kvstore endpoint status' shows how each is", file=sys.stderr)
    return 1


def _say_health(url: str, took: str, trouble: str) -> None:
    if trouble:
        print(f"{url} is unhealthy: failed to commit proposal: {trouble}", file=sys.stderr)
    else:
        print(f"{url} is healthy: successfully committed proposal: took = {took}")


def _trouble(client: Client, place: Endpoint) -> str:
    try:
        client.check_health(place)
        raised = client.alarm_list(place).alarms
    except KvError as error:
        return error.message
    names = sorted({alarm_name(alarm) for alarm in raised})
    return f"Active Alarm(s): {' '.join(names)}" if names else ""


STATUS_HEADS: Final = (
    "endpoint", "ID", "version", "storage version", "db size", "in use", "percentage not in use",
    "quota", "is leader", "is learner", "raft term", "raft index", "raft applied index", "errors",
    "downgrade target version", "downgrade enabled",
)  # fmt: skip


@endpoint.command("status")
@cluster_option
@table_option
@client_command
def endpoint_status(client: Client, form: str, *, cluster: bool) -> int:
    """Print how each endpoint is, separated by commas.

    Endpoint, ID, version, storage version, size, size in use, share that is not in use, quota,
    whether it leads, whether it is a learner, term, index, applied index, errors, version of a
    downgrade, whether one is prepared.
    """
    with asked(client, cluster=cluster) as everyone:
        return _each(everyone, "Status", form, everyone.status, _row, STATUS_HEADS)


@endpoint.command()
@click.option("--rev", "revision", type=int, default=0, help="Up to this revision; 0: to the last.")
@cluster_option
@table_option
@client_command
def hashkv(client: Client, form: str, revision: int, *, cluster: bool) -> int:
    """Print the hash of each endpoint's keys, and the revision it was taken at.

    Members that agree have the same hash at the same revision.
    """
    with asked(client, cluster=cluster) as everyone:
        return _each(
            everyone,
            "HashKV",
            form,
            lambda place: everyone.hash_kv(revision, place),
            lambda url, answer: (url, str(answer.hash), str(answer.hash_revision)),
            ("endpoint", "hash", "hash_revision"),
        )


def _each(
    client: Client,
    title: str,
    form: str,
    ask: Callable[[Endpoint], Any],
    show: Callable[[str, Any], Sequence[str]],
    heads: Sequence[str] = (),
) -> int:
    """Ask each endpoint, print what it says; 1 if one says nothing."""
    failed = 0
    answers: list[dict[str, Any]] = []
    rows: list[Sequence[str]] = []
    for place in client.transport.endpoints:
        try:
            answer = ask(place)
        except KvError as error:
            print(f"error: {place.url}: {error.message}", file=sys.stderr)
            failed = 1
            continue
        answers.append({"Endpoint": place.url, title: json_codec.to_object(answer)})
        rows.append(show(place.url, answer))
        if form == "simple":
            print(", ".join(rows[-1]))
    if form == "json":
        write_line(msgspec.json.encode(answers))
    elif form == "table":
        write_table(heads, rows)
    return failed


def _summary(url: str, answer: StatusResponse) -> Sequence[str]:
    member = answer.header.member_id if answer.header is not None else 0
    role = "leader" if member == answer.leader else "learner" if answer.isLearner else "follower"
    columns = (
        url,
        f"{member:x}",
        answer.version,
        size_text(answer.dbSize),
        role,
        f"term {answer.raftTerm}",
        f"index {answer.raftIndex}",
        f"applied {answer.raftAppliedIndex}",
    )
    return (*columns, "; ".join(answer.errors)) if answer.errors else columns


def _row(url: str, answer: StatusResponse) -> Sequence[str]:
    member = answer.header.member_id if answer.header is not None else 0
    unused = 1 - answer.dbSizeInUse / answer.dbSize if answer.dbSize else 0.0
    downgrade = answer.downgradeInfo
    return (
        url,
        f"{member:x}",
        answer.version,
        answer.storageVersion,
        size_text(answer.dbSize),
        size_text(answer.dbSizeInUse),
        f"{unused:.0%}",
        size_text(answer.dbSizeQuota),
        str(member == answer.leader).lower(),
        str(answer.isLearner).lower(),
        str(answer.raftTerm),
        str(answer.raftIndex),
        str(answer.raftAppliedIndex),
        ", ".join(answer.errors),
        downgrade.targetVersion if downgrade is not None else "",
        str(downgrade is not None and downgrade.enabled).lower(),
    )
