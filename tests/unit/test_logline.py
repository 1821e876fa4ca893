"""How lines and summaries look."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import pytest

from pop3gw.logline import file_line, summary_text, syslog_line
from pop3gw.proto.events import Ending, Side, Summary
from pop3gw.values import LogLevel

SUMMARY = Summary(
    client="192.0.2.1:40000",
    server="192.0.2.2:110",
    user="alice",
    login="apop",
    retrieved=2,
    deleted=1,
    from_client=77,
    to_client=16384,
    seconds=0.12345,
    end=Ending.QUIT,
    by=Side.CLIENT,
)


def test_a_line_of_a_file() -> None:
    line = file_line(LogLevel.INFO, "inbound S3f2a", "hällo").decode()
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"
    assert re.fullmatch(rf"{stamp} pop3gw\[{os.getpid()}\] info inbound S3f2a: hällo\n", line)
    assert file_line(LogLevel.ERROR, "", "x\n").endswith(b"] error: x\n")


def test_a_datagram_for_syslog() -> None:
    assert syslog_line(LogLevel.WARNING, "in", "x") == f"<20>pop3gw[{os.getpid()}]: warning in: x".encode()


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "a\u2028b", "a\x00b", "a\x85b", "\ud800", "\udcff"])
@pytest.mark.parametrize("form", [file_line, syslog_line])
def test_a_text_is_one_line(text: str, form: Callable[[LogLevel, str, str], bytes]) -> None:
    line = form(LogLevel.INFO, "", text).removesuffix(b"\n")
    assert line.decode().isprintable()


def test_an_endless_text_is_cut() -> None:
    assert len(file_line(LogLevel.INFO, "", "x" * 10_000_000)) < 8200
    assert len(file_line(LogLevel.INFO, "", "\0" * 10_000_000)) < 16500
    assert b"(9992000 more)" in file_line(LogLevel.INFO, "", "x" * 10_000_000)


def test_a_summary() -> None:
    assert summary_text(SUMMARY) == (
        "session ended client=192.0.2.1:40000 server=192.0.2.2:110 user=alice login=apop retrieved=2 deleted=1"
        " from_client=77 to_client=16384 seconds=0.123 end=quit by=client"
    )


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
    summary = Summary("c", "s", user, None, 0, 0, 0, 0, 0.0, Ending.CLOSED, Side.SERVER)
    assert f" user={shown} login=- " in summary_text(summary)
