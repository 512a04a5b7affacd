"""The paths beside the API: health, version, metrics, what the API looks like."""

import re
from collections.abc import Callable
from typing import Final

import msgspec

from kvstore.api.answer import CORS, JSON_HEAD, Answer
from kvstore.api.backend import Service
from kvstore.api.health import checks, health, unknown_path, version, wrong_method
from kvstore.api.v3_json.openapi import document
from kvstore.api.wait import finished

METRICS_HEAD: Final = b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n" + CORS

_READ: Final = ("GET", "HEAD")
_SAMPLE: Final = re.compile(rb"^([a-zA-Z_:][^ ]*) (\S+)$", re.MULTILINE)


class PlainPaths:
    """What is read with GET.

    Args:
        service: what is asked.
        metrics: the text of ``/metrics``.
    """

    def __init__(self, service: Service, metrics: Callable[[], bytes]) -> None:
        self._service = service
        self._metrics = metrics
        self._document = b""

    async def answer(
        self, method: str, path: str, query: str, *, metrics_only: bool = False
    ) -> Answer:
        """The answer for any path that no face has.

        Args:
            method: of the request.
            path: without the query.
            query: what stands behind the question mark.
            metrics_only: leave out what is only served to clients.
        """
        if path == "/metrics":
            return _read(method, METRICS_HEAD, self._metrics)
        if path == "/health":
            return (
                await finished(health(self._service, query)) if method == "GET" else wrong_method()
            )
        if path.startswith(("/livez", "/readyz")):
            pending = checks(self._service, path, query)
            if pending is not None:
                return await finished(pending) if method == "GET" else wrong_method()
        elif not metrics_only:
            if path == "/version":
                return version(self._service) if method == "GET" else wrong_method()
            if path == "/debug/vars":
                return _read(method, JSON_HEAD, self._variables)
            if path == "/openapi.json":
                return _read(method, JSON_HEAD, self._described)
        return unknown_path()

    def _variables(self) -> bytes:
        """Every sample of the metrics as JSON; what is no number there is null."""
        samples = {name.decode(): float(text) for name, text in _SAMPLE.findall(self._metrics())}
        return msgspec.json.encode({"version": self._service.version, "metrics": samples})

    def _described(self) -> bytes:
        if not self._document:
            self._document = msgspec.json.encode(document(self._service.version))
        return self._document


def _read(method: str, head: bytes, body: Callable[[], bytes]) -> Answer:
    return Answer(body(), None, 200, head) if method in _READ else wrong_method()
