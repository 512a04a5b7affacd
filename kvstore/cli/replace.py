"""``kvstore member replace``: remove, add as learner, promote, as one command.

Every step is found anew in the list of members. So the command may be interrupted, at whatever
point, and be run again; and a step whose outcome was not heard is not done twice. Once the lost
member is out nobody knows its name, and the new one has none before it is started: then the peer
URLs say which one is meant.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from typing import Final

import click

from kvstore.client import Client
from kvstore.errors import ErrorKind, KvError, UnknownOutcomeError
from kvstore.types import Member

DEFAULT_WAIT_SECONDS: Final = 600.0
LOOK_SECONDS: Final = 0.5

_NOT_READY = ErrorKind.LEARNER_NOT_READY.error()


def start_words(name: str, member: Member, members: Sequence[Member]) -> str:
    """How a member that was added is to be started."""
    cluster = [
        f"{name if row.ID == member.ID else row.name or f'{row.ID:x}'}={url}"
        for row in members
        for url in row.peerURLs
    ]
    urls = ",".join(member.peerURLs)
    command = " \\\n  ".join(
        [
            f"kvstore serve --name={shlex.quote(name)}",
            "--initial-cluster-state=existing",
            f"--initial-cluster={','.join(cluster)}",
            f"--initial-advertise-peer-urls={urls}",
            f"--listen-peer-urls={urls}",
        ]
    )
    return (
        f"Start it with an empty data directory (--data-dir), and its client URLs "
        f"(--listen-client-urls, --advertise-client-urls) as you like:\n\n  {command}\n"
    )


class Replacement:
    """One replacement.

    Args:
        client: Knows members that run.
        who: The lost one's name, or its id in hexadecimal.
        peer_urls: The new one's; empty: the lost one's.
        wait_seconds: How long the new one may take to be started and to catch up.
        sleep: Waits so many seconds.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        client: Client,
        who: str,
        peer_urls: Sequence[str],
        wait_seconds: float,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._who = who
        self._peer_urls = tuple(sorted(peer_urls))
        self._sleep = sleep
        self._clock = clock
        self._give_up = clock() + wait_seconds
        self._said = ""
        self._told_to_start = 0
        self._gone: set[int] = set()
        self.name = who

    def run(self) -> None:
        """Do what is left to do.

        Raises:
            click.ClickException: It cannot be done, or took too long; the message says what to do.
            KvError: The cluster refused a step.
        """
        while True:
            members = self._client.member_list(linearizable=True).members
            try:
                if self._step(members):
                    return
            except UnknownOutcomeError as error:
                self._say(f"looking what came of it: {error.message}")
            if self._clock() >= self._give_up:
                raise click.ClickException(
                    "the new member has not caught up in time (is it started?): to go on waiting, "
                    f"run {self._again(self._peer_urls)}"
                )
            self._sleep(LOOK_SECONDS)

    def _say(self, words: str) -> None:
        if words != self._said:
            self._said = words
            print(words, flush=True)

    def _step(self, members: list[Member]) -> bool:
        """Do one step; True if there is none left."""
        new = self._find_new(members)
        if new is not None:
            return self._bring_up(new, members)
        old = self._find_old(members)
        if old is not None:
            self._take_out(old)
        elif self._peer_urls:
            added = self._client.member_add(self._peer_urls, learner=True)
            if added.member is not None:
                self._say(f"added member {added.member.ID:x} as a learner")
        else:
            raise self._nobody(members)
        return False

    def _again(self, peer_urls: Sequence[str]) -> str:
        """The command that goes on from here."""
        who = shlex.quote(self.name)
        urls = ",".join(peer_urls) or "http://HOST:2380"
        return f"kvstore member replace {who} --peer-urls={urls}"

    def _nobody(self, members: list[Member]) -> click.ClickException:
        """Nobody goes by this name, or a learner without any that may be somebody else's."""
        rows = [
            f"{row.ID:x} ({row.name or 'not started'}, {','.join(row.peerURLs)})" for row in members
        ]
        urls = [url for row in members if row.isLearner and not row.name for url in row.peerURLs]
        return click.ClickException(
            f"there is no member {self._who}, only {', '.join(rows)}; nothing was changed. If an "
            "interrupted replacement has removed it already, say where the new one listens: "
            + self._again(urls)
        )

    def _find_old(self, members: list[Member]) -> Member | None:
        for row in members:
            if row.ID not in self._gone and self._who in (row.name, f"{row.ID:x}"):
                return row
        return None

    def _find_new(self, members: list[Member]) -> Member | None:
        """The learner that takes the place: by its URLs, else by its name.

        One that was not started has no name, and goes by its id; else a name that was mistyped
        would be given to a learner that somebody else waits for.
        """
        learners = [row for row in members if row.isLearner]
        for row in learners:
            if self._peer_urls and row.peerURLs == self._peer_urls:
                return row
        if self._peer_urls:
            promoted = [
                row for row in members if row.peerURLs == self._peer_urls and self._is_known(row)
            ]
            return promoted[0] if promoted else None
        if any(self._who in (row.name, f"{row.ID:x}") for row in members if not row.isLearner):
            return None
        for row in learners:
            if self._who == (row.name or f"{row.ID:x}"):
                return row
        return None

    def _is_known(self, row: Member) -> bool:
        """Whether it is the new one, and not the lost one with the same URLs."""
        return self._told_to_start == row.ID

    def _take_out(self, old: Member) -> None:
        if not self._peer_urls:
            self._peer_urls = tuple(sorted(old.peerURLs))
        self.name = old.name or self._who
        if self._is_alive(old):
            raise click.ClickException(
                f"member {old.ID:x} ({old.name}) answers at {','.join(old.clientURLs)}: it is not "
                "lost, and nothing was changed. To give a working member up, 'kvstore member "
                f"remove {old.ID:x}'"
            )
        self._say(
            f"taking out member {old.ID:x} ({old.name}), which had the peer URLs "
            f"{','.join(old.peerURLs)}"
        )
        self._client.member_remove(old.ID)
        self._gone.add(old.ID)

    def _is_alive(self, old: Member) -> bool:
        if not old.clientURLs:
            return False
        with self._client.another(list(old.clientURLs)) as one:
            try:
                status = one.status()
            except KvError:
                return False
        # One that came back without its data answers too, but nobody leads it.
        own = status.header is not None and status.header.member_id == old.ID
        return own and status.leader != 0

    def _bring_up(self, new: Member, members: list[Member]) -> bool:
        if not new.isLearner:
            self._say(f"member {new.ID:x} ({new.name}) votes: it has taken the place")
            return True
        self._peer_urls = tuple(sorted(new.peerURLs))
        if not new.name:
            if self._told_to_start != new.ID:
                self._told_to_start = new.ID
                print(f"\n{start_words(self.name, new, members)}", flush=True)
            self._say(f"waiting until member {new.ID:x} is started")
            return False
        if self._told_to_start != new.ID and not self._is_alive(new):
            # Its vote would count from now on, whether or not it is there to give it.
            raise click.ClickException(
                f"learner {new.ID:x} ({new.name}) does not answer at {','.join(new.clientURLs)}, "
                "and nothing was changed. Start it and run this again; or, if it is lost as well, "
                f"replace it by its id: kvstore member replace {new.ID:x}"
            )
        self._told_to_start = new.ID
        try:
            self._client.member_promote(new.ID)
        except UnknownOutcomeError:
            raise
        except KvError as error:
            if error != _NOT_READY and not error.retryable:
                raise
            self._say(f"member {new.ID:x} ({new.name}) is catching up{self._progress(new)}")
            return False
        self._say(f"member {new.ID:x} ({new.name}) has caught up and votes now")
        return True

    def _progress(self, new: Member) -> str:
        try:
            goal = self._client.status().raftIndex
            with self._client.another(list(new.clientURLs)) as one:
                applied = one.status().raftAppliedIndex
        except KvError:
            return ""
        return f": at entry {applied} of {goal}"
