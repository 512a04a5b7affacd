"""``kvstore alarm``: what is wrong with the cluster as a whole, and saying that it is mended."""

from __future__ import annotations

import click

from kvstore.cli.options import client_command, output_option
from kvstore.cli.output import write_json
from kvstore.client import Client
from kvstore.types import AlarmMember, AlarmResponse, AlarmType


@click.group()
def alarm() -> None:
    """Alarms: while NOSPACE is raised, writes that grow the store are refused."""


@alarm.command("list")
@output_option
@client_command
def list_(client: Client, form: str) -> None:
    """Print the alarms that are raised, one a line; nothing if there are none."""
    _write(client.alarm_list(), form)


@alarm.command()
@output_option
@client_command
def disarm(client: Client, form: str) -> None:
    """Clear every alarm that is raised, and print which.

    Do it once its cause is gone: a member that still has no space raises its alarm anew.
    """
    listed = client.alarm_list()
    cleared = AlarmResponse(listed.header)
    for raised in listed.alarms:
        answer = client.alarm_disarm(raised)
        cleared.header = answer.header
        cleared.alarms += answer.alarms
    _write(cleared, form)


def _write(response: AlarmResponse, form: str) -> None:
    if form == "json":
        write_json(response)
        return
    for raised in response.alarms:
        print(f"memberID:{raised.memberID} alarm:{alarm_name(raised)}")


def alarm_name(raised: AlarmMember) -> str:
    """The alarm's name; its number if only newer members know it."""
    try:
        return AlarmType(raised.alarm).name
    except ValueError:
        return str(raised.alarm)
