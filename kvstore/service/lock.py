"""The Lock service: Lock and Unlock."""

from collections.abc import Callable

from kvstore.errors import ErrorKind, KvError
from kvstore.service.base import Calls
from kvstore.service.caller import Caller
from kvstore.service.waiting import Candidate, Turn, Waiting, nothing, told
from kvstore.types import (
    DeleteRangeRequest,
    DeleteRangeResponse,
    LockRequest,
    LockResponse,
    UnlockRequest,
    UnlockResponse,
)


class LockCalls(Calls):
    """A lock is held by whoever has the oldest key under its name."""

    waiting: Waiting

    def lock(
        self,
        request: LockRequest,
        caller: Caller,
        reply: Callable[[LockResponse | KvError], None],
    ) -> Callable[[], None]:
        """Wait until the lock is held, and answer with the key that stands for that.

        The key's create revision is the fencing token: it is higher than every earlier holder's.

        Returns:
            To be called if the caller goes away before the answer: the key is deleted then.
        """

        def done(result: Turn | KvError) -> None:
            reply(
                result if isinstance(result, KvError) else LockResponse(result.header, result.key)
            )

        if self._refused(caller, reply):
            return nothing
        candidate = Candidate(
            self.waiting,
            request.name,
            request.lease,
            None,
            ErrorKind.MUTEX_SESSION_EXPIRED,
            caller,
            done,
        )
        return self.waiting.begin(candidate, caller.timeout_seconds)

    def unlock(
        self,
        request: UnlockRequest,
        caller: Caller,
        reply: Callable[[UnlockResponse | KvError], None],
    ) -> None:
        """Delete a key, whatever it is; it need not exist."""

        def done(result: DeleteRangeResponse | KvError) -> None:
            reply(told(result) if isinstance(result, KvError) else UnlockResponse(result.header))

        if not self._refused(caller, reply):
            self.waiting.service.delete_range(DeleteRangeRequest(request.key), caller, done)
