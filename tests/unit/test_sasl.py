"""SASL exchanges: whose name they show, what of them is secret, how many lines pass."""

from __future__ import annotations

import base64

import pytest

from pop3gw.proto.sasl import Exchange, decoded


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("mechanism", "responses", "name"),
    [
        ("PLAIN", ["\0alice\0hunter2"], "alice"),
        ("plain", ["admin\0alice\0hunter2"], "alice"),
        ("LOGIN", ["alice", "hunter2"], "alice"),
        ("CRAM-MD5", ["alice b913a602c7eda7a495b4e6e7334d3890"], "alice"),
        ("XOAUTH2", ["user=alice\x01auth=Bearer t0k3n\x01\x01"], "alice"),
        ("OAUTHBEARER", ["n,a=alice=2Cx,\x01auth=Bearer t0k3n\x01\x01"], "alice,x"),
        *((f"SCRAM-SHA-{size}", ["n,,n=al=3Dice,r=nonce"], "al=ice") for size in (1, 256, 512)),
        *((f"SCRAM-SHA-{size}-PLUS", ["p=tls-exporter,,n=alice,r=nonce"], "alice") for size in (1, 256, 512)),
        ("GSSAPI", ["anything"], None),
        ("PLAIN", ["no parts"], None),
        ("CRAM-MD5", ["nodigest"], None),
    ],
)
def test_whose_name_is_shown(mechanism: str, responses: list[str], name: str | None) -> None:
    exchange = Exchange(mechanism)
    for response in responses:
        exchange.hear(b64(response))
    assert exchange.username() == name


@pytest.mark.parametrize(
    ("mechanism", "response", "secret"),
    [
        ("PLAIN", "\0alice\0hunter2", "hunter2"),
        ("CRAM-MD5", "alice 0123abcd", "0123abcd"),
        ("XOAUTH2", "user=alice\x01auth=Bearer t0k3n\x01\x01", "t0k3n"),
        ("OAUTHBEARER", "n,a=alice,\x01auth=Bearer t0k3n\x01\x01", "t0k3n"),
        ("X-OTHER", "all of it", "all of it"),
    ],
)
def test_what_is_secret(mechanism: str, response: str, secret: str) -> None:
    secrets = Exchange(mechanism).hear(b64(response))
    assert b64(response) in secrets
    assert secret in secrets


def test_the_name_of_login_is_no_secret_and_its_password_is() -> None:
    exchange = Exchange("LOGIN")
    assert exchange.hear(b64("alice")) == []
    assert "hunter2" in exchange.hear(b64("hunter2"))


@pytest.mark.parametrize("first", ["alice", "?", "=", "YWxpY2U"])
def test_what_follows_a_name_of_login_that_cannot_be_read_is_no_name(first: str) -> None:
    exchange = Exchange("LOGIN")
    exchange.hear(first)
    assert "hunter2" in exchange.hear(b64("hunter2"))
    assert exchange.username() is None


def test_what_is_no_base64_is_secret_as_it_is() -> None:
    assert decoded("?") is None
    assert Exchange("PLAIN").hear("?") == ["?"]
    assert decoded("=") == ""


def test_a_name_may_be_of_any_octets() -> None:
    exchange = Exchange("PLAIN")
    assert "p\udcff" in exchange.hear(base64.b64encode(b"\0caf\xe9\0p\xff").decode())
    assert exchange.username() == "caf\udce9"


def test_lines_are_counted_and_a_cancellation_is_not() -> None:
    exchange = Exchange("LOGIN")
    assert not exchange.fault(b"+ VXNlcg==", 2)
    assert not exchange.fault(b"YWxpY2U=", 2)
    assert not exchange.fault(b"*", 2)
    assert exchange.cancelled
    assert "behind a cancellation" in exchange.fault(b"+ more", 9)


@pytest.mark.parametrize("line", [b"a\0b", b"a\tb", b"a\rb", b"\x7f"])
def test_no_line_holds_a_control_character(line: bytes) -> None:
    assert "control character" in Exchange("PLAIN").fault(line, 4)


def test_one_line_too_many_does_not_pass() -> None:
    exchange = Exchange("LOGIN")
    assert not exchange.fault(b"+ a", 1)
    assert "max_authline_count, which is 1" in exchange.fault(b"b", 1)
