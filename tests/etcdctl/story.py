"""What was asked and what was said: kept in a form in which two systems can be compared."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from tests.e2e.processes import wait_for
from tests.etcdctl.tool import Said, Tool

READY_SECONDS: Final = 40.0

_MEASURED: Final = (
    (re.compile(r'("raft_?[tT]erm"|"RaftTerm" :|"raftIndex"|"raftAppliedIndex")[: ]+\d+'), r"\1 n"),
    (re.compile(r'("hash"|"compact_revision"|"dbSize(?:InUse)?")[: ]+-?\d+'), r"\1 n"),
    # Which tools and servers these are; how long something took.
    (re.compile(r"took = [\d.]+\w+"), "took = t"),
    # Ids are padded to the width of the longest one, with spaces or with dashes below a heading.
    (re.compile(r"-{3,}"), "---"),
    (re.compile(r"  +"), " "),
    # Whichever node was asked.
    (re.compile(r'("member_id"|"MemberID" :|"member_id" :)[: ]*<member \w+>'), r"\1 <member>"),
)
_CHOSEN_LEASE: Final = re.compile(r"\b[0-9a-f]{16}\b")
"""Servers choose ids of 63 bits; those that the script asks for are shorter."""


class Line(msgspec.Struct, frozen=True):
    """One command, and what came of it, without what must differ between any two clusters."""

    asked: str
    said: str


class Story:
    """The lines of one system.

    Args:
        tool: Asks it.
    """

    def __init__(self, tool: Tool) -> None:
        self.tool = tool
        self.lines: list[Line] = []
        self._names: dict[str, str] = {}
        self._leases: list[str] = []
        for number, url in enumerate(tool.system.endpoints):
            self._names[url] = f"<client {number}>"
            self._names[url.partition("//")[2]] = f"<client {number}>"
        for number, url in enumerate(tool.system.peer_urls):
            self._names[url] = f"<peer {number}>"

    # --- asking -----------------------------------------------------------------------------------

    def wait_ready(self) -> None:
        """Wait until every endpoint is healthy, and learn who they are."""
        urls = self.tool.system.endpoints

        def healthy() -> bool:
            return all(self.tool.at(url).run("endpoint", "health").code == 0 for url in urls)

        wait_for(f"{self.tool.system.name} is healthy", healthy, READY_SECONDS)
        self.learn_members()

    def learn_members(self) -> None:
        """Learn the ids of the members, in both forms that etcdctl prints."""
        found = json.loads(self.tool.ask("member", "list", "-w", "json"))
        header = found["header"]
        self.name(header["cluster_id"], "<cluster>")
        for member in found["members"]:
            self.name(member["ID"], f"<member {member.get('name') or 'without a name'}>")

    def name(self, number: int, name: str) -> None:
        """Let an id be shown by a name."""
        self._names[f"{number:x}"] = name
        self._names[f"{number:016x}"] = name
        self._names[str(number)] = name

    def name_lease(self, text: str) -> str:
        """The lease that was granted, by what was printed."""
        found = _CHOSEN_LEASE.search(text)
        assert found is not None, f"no lease in {text!r}"
        self._leases.append(found[0])
        self._names[found[0]] = self._names[str(int(found[0], 16))] = f"<lease {len(self._leases)}>"
        return found[0]

    def run(
        self, *arguments: str, stdin: str = "", user: str | None = None, unordered: bool = False
    ) -> None:
        """Ask, and keep what was said; ``unordered``: members come in an order of their own."""
        tool = self.tool if user is None else self.tool.as_user(user)
        said = self.comparable(self.shown(tool.run(*arguments, stdin=stdin)))
        self.keep(arguments, in_order(said) if unordered else said, user)

    def keep(self, arguments: Sequence[str], said: str, user: str | None = None) -> None:
        """Keep a line."""
        asked = " ".join(arguments) + (f" [{user}]" if user else "")
        self.lines.append(Line(self.comparable(asked), self.comparable(said)))

    def follow(
        self,
        *arguments: str,
        count: int,
        change: Callable[[], object],
        begun: int = 0,
        stdin: str = "",
    ) -> None:
        """Begin a command that goes on, change something, and keep the lines that come of it.

        Args:
            arguments: The command.
            count: How many lines it has to print.
            change: Called once it has begun.
            begun: How many of its lines tell that it has.
            stdin: Typed at the start.
        """
        running = self.tool.begin(*arguments)
        try:
            if stdin:
                running.say(stdin)
            lines = running.lines(begun)
            change()
            lines += running.lines(count)
            lines += running.interrupt()
        except BaseException:
            running.kill()
            raise
        self.keep(arguments, "\n".join(lines))

    # --- in comparable form -----------------------------------------------------------------------

    @staticmethod
    def shown(said: Said) -> str:
        """Exit code, output, and the error; not what the client logs of its attempts."""
        errors = [line for line in said.err.splitlines() if not line.startswith("{")]
        return "\n".join([f"exit {said.code}", said.out, *errors])

    def comparable(self, text: str) -> str:
        """A text without what must differ."""
        for value in sorted(self._names, key=len, reverse=True):
            text = re.sub(rf"(?<![\w.]){re.escape(value)}(?![\w])", self._names[value], text)
        for pattern, instead in _MEASURED:
            text = pattern.sub(instead, text)
        return text


def in_order(text: str) -> str:
    """What a text lists, in an order that does not depend on who is listed first."""
    return "\n".join(sorted(re.split(r'[\s,{}\[\]()"]+', text)))


def differences(ours: Story, theirs: Story) -> list[str]:
    """Where two systems said different things, in words."""
    found = [
        f"$ etcdctl {one.asked}\n--- kvstore\n{one.said}\n--- etcd\n{other.said}"
        for one, other in zip(ours.lines, theirs.lines, strict=False)
        if one != other
    ]
    if len(ours.lines) != len(theirs.lines):
        found.append(f"{len(ours.lines)} commands with kvstore, {len(theirs.lines)} with etcd")
    return found
