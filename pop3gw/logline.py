"""How a line of the log looks: the only place that knows, for each target.

Known limit: a text beyond 8000 characters is cut, since rsyslog cuts at 8 KiB and nobody reads a line that long.
"""

from __future__ import annotations

import os
import time

from pop3gw.proto.events import Summary
from pop3gw.redaction import escaped
from pop3gw.values import LogLevel

NAME = "pop3gw"
_LINE_LIMIT = 8000  # characters of a text
_FACILITY_MAIL = 2 << 3
_SYSLOG_SEVERITY = {LogLevel.DEBUG: 7, LogLevel.INFO: 6, LogLevel.WARNING: 4, LogLevel.ERROR: 3}


def _body(level: LogLevel, tag: str, text: str) -> str:
    if len(text) > _LINE_LIMIT:
        text = f"{text[:_LINE_LIMIT]} ({len(text) - _LINE_LIMIT} more)"
    text = escaped(text.rstrip("\n"))  # a traceback ends with one
    if len(text) > 2 * _LINE_LIMIT:
        text = f"{text[: 2 * _LINE_LIMIT]} (more)"
    return f"{level} {tag}: {text}" if tag else f"{level}: {text}"


class _Clock:
    """The local time as text; all but the milliseconds is made once a second."""

    __slots__ = ("_offset", "_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = self._offset = ""

    def text(self, now: float) -> str:
        second = int(now)
        if second != self._second:
            local = time.localtime(second)
            zone = time.strftime("%z", local)
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", local)
            self._offset = f"{zone[:3]}:{zone[3:]}"
        return f"{self._text}.{int((now - second) * 1000):03d}{self._offset}"


_clock = _Clock()


def file_line(level: LogLevel, tag: str, text: str) -> bytes:
    """``2026-11-23T12:00:00.123+00:00 pop3gw[PID] info inbound S3f2a: text`` and a line end."""
    line = f"{_clock.text(time.time())} {NAME}[{os.getpid()}] {_body(level, tag, text)}\n"
    return line.encode("utf-8", "backslashreplace")


def syslog_line(level: LogLevel, tag: str, text: str) -> bytes:
    """The same as a datagram for syslog, which has a time of its own."""
    priority = _FACILITY_MAIL | _SYSLOG_SEVERITY[level]
    line = f"<{priority}>{NAME}[{os.getpid()}]: {_body(level, tag, text)}"
    return line.encode("utf-8", "backslashreplace")


def _value(text: str | None) -> str:
    """A value of a summary: quoted where it could be taken for more than one, or for none."""
    if text is None:
        return "-"
    plain = escaped(text)
    if plain and plain != "-" and not any(character in ' "=' for character in plain):
        return plain
    return '"' + plain.replace('"', '\\"') + '"'


def summary_text(summary: Summary) -> str:
    """One session in one line."""
    return (
        f"session ended client={summary.client} server={summary.server} user={_value(summary.user)}"
        f" login={_value(summary.login)} retrieved={summary.retrieved} deleted={summary.deleted}"
        f" from_client={summary.from_client} to_client={summary.to_client} seconds={summary.seconds:.3f}"
        f" end={summary.end.value} by={summary.by.value}"
    )
