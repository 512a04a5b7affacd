"""Whom a certificate names, and who may come in by that."""

from __future__ import annotations

from typing import Any

import pytest

from kvstore.tls.names import common_name, is_for_host, refusal

CERTIFICATE: dict[str, Any] = {
    "subject": ((("organizationName", "o"),), (("commonName", "member"),)),
    "subjectAltName": (
        ("DNS", "a.example"),
        ("DNS", "*.b.example"),
        ("DNS", "*.*.c.example"),
        ("IP Address", "10.0.0.1"),
        ("IP Address", "FE80:0:0:0:0:0:0:1"),
        ("IP Address", "<invalid>"),
    ),
}


@pytest.mark.parametrize(
    ("host", "fits"),
    [
        ("a.example", True),
        ("A.EXAMPLE.", True),
        ("x.a.example", False),
        ("x.b.example", True),
        ("b.example", False),
        ("x.y.b.example", False),
        ("x.y.c.example", False),
        ("10.0.0.1", True),
        ("10.0.0.2", False),
        ("fe80::1", True),
        ("member", False),
    ],
)
def test_a_certificate_is_for_its_alternative_names(host, fits):
    assert is_for_host(CERTIFICATE, host) is fits


def test_nothing_is_shown_by_nobody():
    assert common_name(None) is common_name({}) is None
    assert not is_for_host(None, "a.example")


@pytest.mark.parametrize(
    ("names", "hosts", "words"),
    [
        ((), (), ""),
        (("member",), (), ""),
        (("other", "member"), ("a.example",), ""),
        (("other",), (), "Common Name 'member' is not allowed"),
        ((), ("x", "y"), "(Common Name 'member') is for none of x, y"),
        (("member",), ("x",), "is for none of x"),
    ],
)
def test_every_rule_that_there_is_must_be_met(names, hosts, words):
    found = refusal(CERTIFICATE, names, hosts)
    assert found == words if not words else words in found


def test_who_shows_nothing_meets_no_rule():
    assert refusal(None, ("member",), ())
    assert refusal({}, (), ("a.example",))


def test_a_name_of_any_length_is_told_in_a_few_characters():
    certificate = {"subject": ((("commonName", "a\n\x1b" + "n" * 65536),),)}
    for words in (refusal(certificate, ("x",), ()), refusal(certificate, (), ("x",))):
        assert words.isprintable()
        assert "'a\\n\\x1bnnn" in words
        assert len(words) < 150
