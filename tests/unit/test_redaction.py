"""What a log may hold: printable characters only, and no secret in any spelling."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
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
        ("\udc80\udcff", "\\x80\\xff"),
        ("\ud800\udc7f\udd00", "\\ud800\\udc7f\\udd00"),
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
    "\udc7flone",
    "\udd00lone",
    "two words",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_hidden_in_every_spelling(secret: str) -> None:
    octets = secret.encode("utf-8", "surrogatepass" if secret[1:] == "lone" else "surrogateescape")
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
    for number in range(200):
        secrets.add(f"{number:0100}")
    assert secrets.redacted(f"text {199:0100}") == f"text {HIDDEN}"
    for number in range(200, 300):
        secrets.add(f"{number:0100}")
    assert secrets.redacted(f"text {299:0100}").startswith(f"{HIDDEN} (the session has named more secrets")


def test_many_short_secrets_are_too_many_as_well() -> None:
    """Each text is searched for each of them: they cost time, however short they are."""
    secrets = Secrets()
    for number in range(300):
        secrets.add(f"{number:06}")
    assert secrets.redacted("text 000299").startswith(f"{HIDDEN} (the session has named more secrets")


def test_nothing_to_hide() -> None:
    assert hide("", "text") == "text"
    assert Secrets().redacted("text") == "text"


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()


@pytest.mark.parametrize(
    "secret", ["hunter22", "1234", "a", "ab", "abc", "Grüße99", "caf\udce9-latin1", "\udc80 to \udcff", "~~~?>>>", "é"]
)
def test_a_secret_is_hidden_in_base64(secret: str) -> None:
    octets = secret.encode("utf-8", "surrogateescape")
    for spelling in (base64.b64encode(octets), base64.urlsafe_b64encode(octets), base64.b64encode(octets).rstrip(b"=")):
        assert hide(secret, f"-ERR pw={spelling.decode()}, no") == f"-ERR pw={HIDDEN}, no"
        assert hide(secret, f"ValueError: {spelling!r}") == f"ValueError: b'{HIDDEN}'"


@pytest.mark.parametrize("user", ["", "a", "al", "alice", "bob"])
@pytest.mark.parametrize("authzid", ["", "bob"])
def test_base64_that_holds_a_secret_is_hidden_as_a_whole(user: str, authzid: str) -> None:
    for word in (base64_of(f"{authzid}\0{user}\0hunter22"), base64_of(f"user={user}\1auth=Bearer hunter22\1\1")):
        assert hide("hunter22", f"-ERR {word} {word}: no") == f"-ERR {HIDDEN} {HIDDEN}: no"


def test_base64_is_not_torn_apart_by_that_of_a_part() -> None:
    secrets = Secrets()
    for secret in ("the cat sat", "the", "cat", "sat"):
        secrets.add(secret)
    assert secrets.redacted(f"-ERR {base64_of('the cat sat')}") == f"-ERR {HIDDEN}"


def test_other_base64_stays() -> None:
    text = f"-ERR {base64_of('alice')} {base64_of('hunter2')} {base64_of('unter22')}"
    assert hide("hunter22", text) == text


def test_a_digest_of_a_secret_is_hidden() -> None:
    digest = hashlib.md5(b"<1.2@mail>hunter22", usedforsecurity=False).hexdigest()
    other = hashlib.md5(b"<1.2@mail>hunter23", usedforsecurity=False).hexdigest()
    secrets = Secrets()
    secrets.add("<1.2@mail>hunter22")
    assert secrets.redacted(f"{digest} {digest.upper()} {other}") == f"{HIDDEN} {HIDDEN} {other}"
    secrets.add("<1.2@mail>hunter23")
    assert secrets.redacted(f"{digest} {other}") == f"{HIDDEN} {HIDDEN}"


def test_no_digest_is_made_before_a_text_could_hold_one() -> None:
    code = (
        "import sys; from pop3gw.redaction import Secrets; one = Secrets(); one.add('hunter22')\n"
        "one.redacted('-ERR no'); sys.exit('hashlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@given(st.text(min_size=4), st.binary(), st.binary())
def test_no_long_secret_survives_in_base64(secret: str, before: bytes, after: bytes) -> None:
    octets = secret.encode("utf-8", "surrogatepass")
    assert hide(secret, base64.b64encode(before + octets + after).decode()) == HIDDEN


@given(st.text(min_size=4), st.text(), st.text())
def test_no_long_secret_survives(secret: str, before: str, after: str) -> None:
    # What is left can hold the secret only around a gap: "ab" hidden in "aabb" leaves "a***b".
    assert all(secret not in part for part in hide(secret, before + secret + after).split(HIDDEN))
