"""``kvstore status`` and ``endpoint``: how each member is, asked one by one."""

from __future__ import annotations

import sys
import time
from typing import Any

import click
import msgspec

from kvstore.cli.alarm import alarm_name
from kvstore.cli.options import asked, client_command, cluster_option, output_option
from kvstore.cli.output import size_text, took_text, write_line
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
@output_option
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
            if form == "json":
                continue
            if trouble:
                words = f"{place.url} is unhealthy: failed to commit proposal: {trouble}"
                print(words, file=sys.stderr)
            else:
                print(f"{place.url} is healthy: successfully committed proposal: took = {took}")
    if form == "json":
        write_line(msgspec.json.encode(found))
    if all(row["health"] for row in found):
        return 0
    print("error: unhealthy cluster; 'kvstore endpoint status' shows how each is", file=sys.stderr)
    return 1


def _trouble(client: Client, place: Endpoint) -> str:
    try:
        client.check_health(place)
        raised = client.alarm_list(place).alarms
    except KvError as error:
        return error.message
    names = sorted({alarm_name(alarm) for alarm in raised})
    return f"Active Alarm(s): {' '.join(names)}" if names else ""


@endpoint.command("status")
@cluster_option
@output_option
@client_command
def endpoint_status(client: Client, form: str, *, cluster: bool) -> int:
    """Print how each endpoint is, separated by commas.

    Endpoint, ID, version, storage version, size, size in use, share that is not in use, quota,
    whether it leads, whether it is a learner, term, index, applied index, errors, version of a
    downgrade, whether one is prepared.
    """
    with asked(client, cluster=cluster) as everyone:
        return _each(everyone, "Status", form, everyone.status, _row)


@endpoint.command()
@click.option("--rev", "revision", type=int, default=0, help="Up to this revision; 0: to the last.")
@cluster_option
@output_option
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
            lambda url, answer: f"{url}, {answer.hash}, {answer.hash_revision}",
        )


def _each(client: Client, title: str, form: str, ask: Any, show: Any) -> int:
    """Ask each endpoint, print what it says; 1 if one says nothing."""
    failed = 0
    answers: list[dict[str, Any]] = []
    for place in client.transport.endpoints:
        try:
            answer = ask(place)
        except KvError as error:
            print(f"error: {place.url}: {error.message}", file=sys.stderr)
            failed = 1
            continue
        answers.append({"Endpoint": place.url, title: json_codec.to_object(answer)})
        if form == "simple":
            print(show(place.url, answer))
    if form == "json":
        write_line(msgspec.json.encode(answers))
    return failed


def _summary(url: str, answer: StatusResponse) -> str:
    member = answer.header.member_id if answer.header is not None else 0
    role = "leader" if member == answer.leader else "learner" if answer.isLearner else "follower"
    line = (
        f"{url}, {member:x}, {answer.version}, {size_text(answer.dbSize)}, {role}, "
        f"term {answer.raftTerm}, index {answer.raftIndex}, applied {answer.raftAppliedIndex}"
    )
    return line + (f", {'; '.join(answer.errors)}" if answer.errors else "")


def _row(url: str, answer: StatusResponse) -> str:
    member = answer.header.member_id if answer.header is not None else 0
    unused = 1 - answer.dbSizeInUse / answer.dbSize if answer.dbSize else 0.0
    downgrade = answer.downgradeInfo
    columns = (
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
    return ", ".join(columns)
