"""One line an entry, that nothing logged can forge."""

from __future__ import annotations

import io
import json
import logging

import pytest

from kvstore.cli import logs
from kvstore.config import settings


@pytest.fixture
def root():
    logger = logging.getLogger()
    before = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:], level = before
    logger.setLevel(level)


def test_text_is_one_line_whatever_was_logged(root):
    stream = io.StringIO()
    logs.set_up("info", "text", stream)
    logging.getLogger("kvstore.x").warning("key %s", "a\n2026 error forged: \x1b[31m\x9b")
    logging.getLogger("kvstore.x").debug("unheard")
    (line,) = stream.getvalue().splitlines()
    assert line.endswith("Z warn kvstore.x: key a\\x0a2026 error forged: \\x1b[31m\\x9b")


def test_json_is_one_object_a_line(root):
    stream = io.StringIO()
    logs.set_up("debug", "json", stream)
    try:
        int("why")
    except ValueError:
        logging.getLogger("kvstore.x").exception("file %s", "\udcff\n")
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert entry["level"] == "error"
    assert entry["logger"] == "kvstore.x"
    assert entry["msg"] == "file \\udcff\n"
    assert entry["stack"].endswith("'why'")


def test_a_stack_in_text_is_indented(root):
    stream = io.StringIO()
    logs.set_up("info", "text", stream)
    try:
        int("why")
    except ValueError:
        logging.getLogger("kvstore.x").exception("what")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith(" error kvstore.x: what")
    assert all(line.startswith("    ") for line in rest)


def test_every_level_that_can_be_set_means_something(root):
    assert set(logs.LEVELS) == set(settings()["log-level"].choices)
