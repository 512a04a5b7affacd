"""The command line against a client that answers from a table."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from kvstore.cli import options
from kvstore.cli.main import main
from kvstore.client.transport import Endpoint
from kvstore.config_sources import CLIENT_VARIABLES


class FakeTransport:
    def __init__(self, endpoints):
        self.endpoints = [Endpoint(url) for url in endpoints]
        self.timeout_seconds = 5.0


class FakeClient:
    """Answers from a table, and remembers what it was asked."""

    answers: ClassVar[dict[str, Any]]
    calls: ClassVar[list[Any]]

    def __init__(self, endpoints, timeout, **login):
        self.transport = FakeTransport(endpoints)
        self.calls.append(("connect", tuple(endpoints), timeout, *login.values()))

    def another(self, endpoints=()):
        return type(self)(endpoints or [found.url for found in self.transport.endpoints], 0)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def __getattr__(self, name):
        def call(*args, **kwargs):
            self.calls.append((name, args, kwargs))
            answer = self.answers[name]
            if isinstance(answer, list):
                answer = answer.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


@pytest.fixture
def fake(monkeypatch):
    class Fake(FakeClient):
        answers: ClassVar[dict[str, Any]] = {}
        calls: ClassVar[list[Any]] = []

    monkeypatch.setattr(options, "Client", Fake)
    for name in CLIENT_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return Fake


@pytest.fixture
def run(capfdbinary):
    def run(*arguments):
        code = main(list(arguments))
        captured = capfdbinary.readouterr()
        return code, captured.out, captured.err.decode()

    return run
