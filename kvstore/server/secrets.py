"""What authentication costs time or chance: hashing off the loop, and the tokens of this member."""

import logging
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kvstore.auth.jwt import JwtTokens
from kvstore.auth.passwords import SALT_BYTES, check_password, hash_password, refuse_password
from kvstore.auth.simple_tokens import SimpleTokens
from kvstore.auth.token_setting import FLAG, parse
from kvstore.errors import Code, ErrorKind, KvError

if TYPE_CHECKING:
    from kvstore.config import ServerConfig
    from wal.files import Lane

log = logging.getLogger("kvstore.auth")

JOBS_MAX = 64
"""Passwords and tokens that may wait for the one thread; with the default cost 64 take seconds."""

JOBS_PER_NAME_MAX = 8
"""Passwords of one name that may wait: who floods one name leaves room for the others."""


class SecretWork:
    """Hashes and checks passwords and signs tokens, one after another, off the loop.

    Bounds: at most ``jobs_max`` wait, ``JOBS_PER_NAME_MAX`` of them to check one name's password;
    more are refused at once as retryable, before anything is proposed. So a flood of logins costs
    one core, and never the loop; and one of a single name's locks nobody else out.

    Args:
        new_lane: Starts the thread, when it is first needed.
        rng: Where salts come from; nobody may guess it.
        cost: bcrypt's, of new hashes.
    """

    def __init__(
        self,
        new_lane: Callable[[], "Lane"],
        rng: random.Random,
        cost: int,
        jobs_max: int = JOBS_MAX,
    ) -> None:
        self._new_lane = new_lane
        self._lane: Lane | None = None
        self._rng = rng
        self._cost = cost
        self._jobs_max = jobs_max
        self._decoy = ""
        self._checks: dict[str, int] = {}
        self.jobs = 0
        self.refused_total = 0

    def hash(self, password: str, reply: Callable[[str | KvError], None]) -> None:
        """Hash a new password; ``reply`` gets what is to be kept of it, or why not."""
        try:
            refuse_password(password)
        except KvError as error:
            reply(error)
            return
        salt = self._rng.randbytes(SALT_BYTES)
        self.run(lambda: hash_password(password, salt, self._cost), reply)

    def check(
        self,
        name: str,
        password: str,
        hashed: str | None,
        reply: Callable[[bool | KvError], None],
    ) -> None:
        """Whether the password is the one that was hashed for the user of this name.

        ``hashed`` None is nobody's: a wrong answer that takes as long as for somebody, and a bound
        of its own for each name, so that nobody learns from the time, or from who is refused, who
        is a user.
        """
        waiting = self._checks.get(name, 0)
        if waiting >= JOBS_PER_NAME_MAX:
            self.refused_total += 1
            reply(ErrorKind.TOO_MANY_REQUESTS.error())
            return
        salt = self._rng.randbytes(SALT_BYTES)

        def job() -> bool:
            if hashed:
                return check_password(password, hashed)
            if self._decoy:
                check_password(password, self._decoy)
            else:
                # Takes as long as a check: doing both would make the first one tell.
                self._decoy = hash_password("", salt, self._cost)
            return False

        def checked(right: bool | KvError) -> None:
            left = self._checks.pop(name) - 1
            if left:
                self._checks[name] = left
            reply(right)

        self._checks[name] = waiting + 1
        self.run(job, checked)

    def run(self, job: Callable[[], Any], reply: Callable[[Any], None]) -> None:
        """Do a job when its turn has come; ``reply`` gets its result or a ``KvError``."""
        if self.jobs >= self._jobs_max:
            self.refused_total += 1
            reply(ErrorKind.TOO_MANY_REQUESTS.error())
            return
        self.jobs += 1

        def done(result: Any) -> None:
            self.jobs -= 1
            if isinstance(result, BaseException):
                # Only the kind of mistake: what it says may hold what is secret.
                log.error("a password or token could not be worked on: %s", type(result).__name__)
                result = KvError(Code.INTERNAL, "kvstore: internal error")
            reply(result)

        if self._lane is None:
            self._lane = self._new_lane()
        self._lane.submit(job, done)


def new_tokens(
    config: "ServerConfig",
    read_file: Callable[[str], bytes],
    clock: Callable[[], float],
    wall_clock: Callable[[], float],
    rng: random.Random,
) -> SimpleTokens | JwtTokens:
    """The tokens that ``--auth-token`` asks for.

    Raises:
        ConfigError: A key file cannot be used.
    """
    setting = parse(config.auth_token)
    if setting is None:
        return SimpleTokens(clock, config.auth_token_ttl_seconds, rng)
    tokens = JwtTokens(setting, read_file, wall_clock)
    if tokens.weakness:
        log.warning("%s: %s", FLAG, tokens.weakness)
    return tokens
