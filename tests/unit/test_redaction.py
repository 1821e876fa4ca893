"""What a log may hold: printable characters only, and no secret in any spelling."""

from __future__ import annotations

import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3gw.redaction import HIDDEN, Secrets, escaped


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("Grüße, 例え", "Grüße, 例え"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\0\x1b[2J\x7f", "\\x00\\x1b[2J\\x7f"),
        ("\x85\x9b", "\\x85\\x9b"),
        ("a\u2028b\u2029c", "a\\u2028b\\u2029c"),
        ("\u202edlrow", "\\u202edlrow"),
        (b"caf\xe9".decode("utf-8", "surrogateescape"), "caf\\xe9"),
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_what_is_not_printable_is_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown


@given(st.text())
def test_whatever_comes_is_one_printable_line(text: str) -> None:
    shown = escaped(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1


def hide(secret: str, text: str) -> str:
    secrets = Secrets()
    secrets.add(secret)
    return secrets.redacted(text)


SECRETS = [
    "hunter22",
    "pass'word",
    'pass"word',
    "both'\"quotes",
    "back\\slash",
    "tab\tand\x01control",
    "Grüße99",
    "caf\udce9-latin1",
    "\ud800lone",
    "two words",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_hidden_in_every_spelling(secret: str) -> None:
    octets = secret.encode("utf-8", "surrogatepass" if "\ud800" in secret else "surrogateescape")
    spellings = [secret, f"{secret!r}", f"{secret!a}", f"{octets!r}", f"{(secret, octets)!r}", escaped(secret)]
    spellings.append(repr(f'it\'s "{secret}"'))
    for spelling in spellings:
        told = hide(secret, f"x{spelling}y")
        assert HIDDEN in told
        assert escaped(secret) not in escaped(told)
        assert secret not in told


def test_a_traceback_holds_no_secret() -> None:
    try:
        raise ValueError({"password": "it's \n me"})
    except ValueError:
        told = hide("it's \n me", traceback.format_exc())
    assert HIDDEN in told
    assert "it's" not in told
    assert told.startswith("Traceback (most recent call last):\n")


@pytest.mark.parametrize("secret", ["a", "in", "abc", "...", "é"])
def test_a_short_secret_is_hidden_where_it_stands_alone(secret: str) -> None:
    for form in ("ERR: {}", "-ERR '{}'", "PW={}", "{}", "{} {}", "X {}\nY"):
        assert hide(secret, form.format(secret, secret)) == form.format(HIDDEN, HIDDEN)


@pytest.mark.parametrize("secret", ["a", "in", "abc"])
def test_a_short_secret_does_not_tear_words_apart(secret: str) -> None:
    text = "cabcabin maintains alphabetical"
    assert hide(secret, text) == text


def test_the_longer_of_two_goes_first() -> None:
    secrets = Secrets()
    secrets.add("secret")
    assert secrets.redacted("secret-longer") == f"{HIDDEN}-longer"
    secrets.add("secret-longer")
    assert secrets.redacted("secret-longer secret") == f"{HIDDEN} {HIDDEN}"


def test_a_session_that_names_too_many_secrets_shows_nothing() -> None:
    secrets = Secrets()
    for number in range(2000):
        secrets.add(f"{number:0100}")
    assert secrets.redacted(f"text {1999:0100}") == f"text {HIDDEN}"
    for number in range(2000, 3000):
        secrets.add(f"{number:0100}")
    assert secrets.redacted(f"text {2999:0100}").startswith(f"{HIDDEN} (the session has named more secrets")


def test_nothing_to_hide() -> None:
    assert hide("", "text") == "text"
    assert Secrets().redacted("text") == "text"


@given(st.text(min_size=4), st.text(), st.text())
def test_no_long_secret_survives(secret: str, before: str, after: str) -> None:
    # What is left can hold the secret only around a gap: "ab" hidden in "aabb" leaves "a***b".
    assert all(secret not in part for part in hide(secret, before + secret + after).split(HIDDEN))
