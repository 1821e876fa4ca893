"""How lines and summaries look."""

from __future__ import annotations

import json
import os
import re
import shlex

import pytest

from pop3gw.logline import (
    FILE_FORMS,
    SYSLOG_FORMS,
    Entry,
    Form,
    file_json,
    file_line,
    journal_entry,
    quoted,
    syslog_line,
)
from pop3gw.proto.events import Ending, Side, Summary
from pop3gw.values import LogFormat, LogLevel


def summary(*, client_tls: str | None = None, server_tls: str | None = None) -> Summary:
    return Summary(
        client="192.0.2.1:40000",
        server="192.0.2.2:110",
        user="alice",
        login="apop",
        retrieved=2,
        deleted=1,
        from_client=77,
        to_client=16384,
        milliseconds=123,
        end=Ending.QUIT,
        by=Side.CLIENT,
        client_tls=client_tls,
        server_tls=server_tls,
    )


SUMMARY = summary()


FORMS = [*FILE_FORMS.values(), *SYSLOG_FORMS.values()]


def entry(text: str) -> Entry:
    return Entry(LogLevel.INFO, text)


def ended(summary: Summary) -> Entry:
    return Entry(LogLevel.INFO, "session ended", "inbound", "S1", summary=summary)


def fields(datagram: bytes) -> dict[str, str]:
    """What journald makes of it."""
    return dict(line.split("=", 1) for line in datagram.decode().splitlines())


def test_a_line_of_a_file() -> None:
    line = file_line(Entry(LogLevel.INFO, "hällo", "inbound", "3f2a77d0c1e5")).decode()
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"
    assert re.fullmatch(rf"{stamp} pop3gw\[{os.getpid()}\] info inbound 3f2a77d0c1e5: hällo\n", line)
    assert file_line(Entry(LogLevel.ERROR, "x\n")).endswith(b"] error: x\n")
    assert file_line(Entry(LogLevel.ERROR, "x", logger="some.module")).endswith(b"] error some.module: x\n")
    assert file_line(Entry(LogLevel.ERROR, "x", logger="a\nb")).endswith(b"] error a\\nb: x\n")


def test_a_datagram_for_syslog() -> None:
    assert syslog_line(Entry(LogLevel.WARNING, "x", "in")) == f"<20>pop3gw[{os.getpid()}]: warning in: x".encode()


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "a\u2028b", "a\x00b", "a\x85b", "\ud800", "\udcff"])
@pytest.mark.parametrize("form", FORMS)
def test_a_text_is_one_line(text: str, form: Form) -> None:
    line = form(entry(text)).removesuffix(b"\n")
    assert line.decode().isprintable()


def test_an_endless_text_is_cut_in_its_middle() -> None:
    for character in ("x", "\0", "\n"):
        line = file_line(entry(f"begins {character * 10_000_000} ends"))
        assert len(line) < 8192
        assert b": begins " in line
        assert b" (cut: 10000012 characters in all) " in line
        assert line.endswith(b" ends\n")


def test_a_traceback_keeps_what_was_raised_however_deep() -> None:
    frames = '  File "office.py", line 7, in fall\n    self.fall()\n' * 1000
    line = file_line(entry(f"Traceback (most recent call last):\n{frames}LookupError: no such user\n"))
    assert b": Traceback (most recent call last):" in line
    assert line.endswith(b"\\nLookupError: no such user\n")


@pytest.mark.parametrize("character", ["x", "\0"])
def test_a_text_that_fits_is_whole(character: str) -> None:
    shown = "\\x00" if character == "\0" else character
    assert file_line(entry(character * (8000 // len(shown)))).decode().endswith(shown * (8000 // len(shown)) + "\n")


def test_an_object() -> None:
    line = file_json(Entry(LogLevel.ERROR, 'a "b"\n\u2028c', "inbound", "S1")).decode()
    assert line.endswith("\n")
    read = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+[+-]\d\d:\d\d", read.pop("time"))
    assert read == {
        "pid": os.getpid(),
        "level": "error",
        "service": "inbound",
        "session": "S1",
        "message": 'a "b"\\n\\u2028c',
    }


def test_an_object_of_a_session() -> None:
    read = json.loads(SYSLOG_FORMS[LogFormat.JSON](ended(SUMMARY)).decode().partition("]: ")[2])
    assert read["message"] == "session ended"
    assert {key: read[key] for key in ("user", "login", "retrieved", "seconds", "end", "by")} == {
        "user": "alice",
        "login": "apop",
        "retrieved": 2,
        "seconds": 0.123,
        "end": "quit",
        "by": "client",
    }
    assert "client_tls" not in read


def test_fields_of_the_journal() -> None:
    said = fields(journal_entry(ended(SUMMARY)))
    assert said["MESSAGE"].startswith("info inbound S1: session ended client=192.0.2.1:40000 ")
    assert (said["PRIORITY"], said["SYSLOG_IDENTIFIER"]) == ("6", "pop3gw")
    assert (said["POP3GW_SERVICE"], said["POP3GW_SESSION"], said["POP3GW_USER"]) == ("inbound", "S1", "alice")
    assert said["POP3GW_END"] == "quit"


def test_a_user_name_forges_no_field_of_the_journal() -> None:
    forger = Summary("c", "s", "x\nPRIORITY=0", None, 0, 0, 0, 0, 0, Ending.CLOSED, Side.SERVER)
    said = fields(journal_entry(ended(forger)))
    assert said["PRIORITY"] == "6"
    assert said["POP3GW_USER"] == "x\\nPRIORITY=0"


def test_a_summary() -> None:
    assert file_line(ended(SUMMARY)).decode().partition("S1: ")[2] == (
        "session ended client=192.0.2.1:40000 server=192.0.2.2:110 user=alice login=apop retrieved=2 deleted=1"
        " from_client=77 to_client=16384 seconds=0.123 end=quit by=client\n"
    )


def test_a_summary_names_the_versions_of_tls_where_there_was_any() -> None:
    both = summary(client_tls="TLSv1.3", server_tls="TLSv1.2")
    assert file_line(ended(both)).endswith(b" by=client client_tls=TLSv1.3 server_tls=TLSv1.2\n")


@pytest.mark.parametrize(
    ("user", "shown"),
    [
        (None, "-"),
        ("-", '"-"'),
        ("", '""'),
        ("a b", '"a b"'),
        ("a=b", '"a=b"'),
        ('a"b', '"a\\"b"'),
        ("x\nend=quit", '"x\\nend=quit"'),
        ("a@example.com", "a@example.com"),
    ],
)
def test_a_user_name_forges_no_field(user: str | None, shown: str) -> None:
    summary = Summary("c", "s", user, None, 0, 0, 0, 0, 0, Ending.CLOSED, Side.SERVER)
    assert f" user={shown} login=- " in file_line(ended(summary)).decode()


@pytest.mark.parametrize(
    "text", ["alice", "a b", 'a"b', "a\\", "\\", 'x\\" login=apop retrieved=99', "-", "", "HOME\\alice"]
)
def test_a_value_is_one_word_to_whoever_reads_quotes_and_backslashes(text: str) -> None:
    assert shlex.split(f"user={quoted(text)} login=user") == [f"user={text}", "login=user"]
