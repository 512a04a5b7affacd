"""aiohttp's connections, quieter: what a client does wrong is counted, not logged with a stack."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError

from kvstore.api.limits import ApiLimits, Counters

log = logging.getLogger("kvstore.api")

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class HttpServer(web.Server):
    """Makes connections, and knows those that are open.

    Args:
        handler: answers a request.
        limits: for idle connections and refused bodies.
        counters: what is counted.
        on_lost: called when a connection is gone.
    """

    def __init__(
        self, handler: Handler, limits: ApiLimits, counters: Counters, on_lost: Callable[[], None]
    ) -> None:
        self._options: dict[str, Any] = {
            "access_log": None,
            # What is stored has no content encoding, and a small body must not become a large one.
            "auto_decompress": False,
            "keepalive_timeout": limits.idle_seconds,
            "lingering_time": limits.linger_seconds,
            "logger": log,
        }
        # A handler whose client went away is cancelled: nobody will read the answer, and a watch
        # would otherwise go on until it has something to say.
        super().__init__(handler, handler_cancellation=True, **self._options)
        self.counters = counters
        self.on_lost = on_lost

    def __call__(self) -> "HttpConnection":
        """A new connection."""
        loop = asyncio.get_running_loop()
        return HttpConnection(self, loop=loop, **self._options)


class HttpConnection(web.RequestHandler):
    """One connection."""

    __slots__ = ("_owner",)

    def __init__(self, owner: HttpServer, **options: Any) -> None:
        super().__init__(owner, **options)
        self._owner = owner

    def data_received(self, data: bytes) -> None:
        """Parse what came in; a body that goes wrong ends for whoever reads it.

        aiohttp queues the error as a request of its own, behind the one whose body it is: that one
        would wait for bytes that can never be understood.
        """
        super().data_received(data)
        request = self._current_request
        if request is None or not self._messages or request.content.is_eof():
            return
        message = self._messages[-1][0]
        if not isinstance(message, RawRequestMessage):
            request.content.set_exception(web.RequestPayloadError(message.message))

    def connection_lost(self, exc: BaseException | None) -> None:
        """It is gone."""
        super().connection_lost(exc)
        self._owner.on_lost()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that is not HTTP."""
        if isinstance(exc, HttpProcessingError):
            self._owner.counters.malformed += 1
        return super().handle_error(request, status, exc, message)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """What is not HTTP is the client's mistake, and its leaving none; all else is logged."""
        if not isinstance(kw.get("exc_info"), HttpProcessingError | ConnectionError):
            super().log_exception(*args, **kw)
