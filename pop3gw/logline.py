"""How an entry of the log looks: the only place that knows, for each target and format.

Whatever an entry holds, it is one line of printable text: what reads logs line by line is never misled.

Known limit: a text beyond 8000 characters loses its middle, since rsyslog cuts at 8 KiB and nobody reads a line that
long. Its end stays: that of a traceback is what was raised.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import Final

from pop3gw.proto.events import Summary
from pop3gw.redaction import escaped
from pop3gw.values import LogFormat, LogLevel

NAME: Final = "pop3gw"
# Compiled, a constant is found faster than what was imported.
_time: Final = time.time
_getpid: Final = os.getpid
_HALF: Final = 4000  # characters of each end of a text
_PLAIN: Final = re.compile(r'[^ "=]+')
_FACILITY_MAIL: Final = 2 << 3
_SYSLOG_SEVERITY: Final = {LogLevel.DEBUG: 7, LogLevel.INFO: 6, LogLevel.WARNING: 4, LogLevel.ERROR: 3}


# No named tuple: that is made by interpreted code, this one by compiled (docs/performance.md).
class Entry:
    """What is logged. ``service`` and ``session`` say of what; ``logger`` is another's name in Python's logging.

    With a ``summary`` the ``text`` says only that the session has ended.
    """

    __slots__ = ("level", "logger", "service", "session", "summary", "text")

    def __init__(
        self,
        level: LogLevel,
        text: str,
        service: str = "",
        session: str = "",
        logger: str = "",
        summary: Summary | None = None,
    ) -> None:
        self.level: Final = level
        self.text: Final = text
        self.service: Final = service
        self.session: Final = session
        self.logger: Final = logger
        self.summary: Final = summary

    @property
    def tag(self) -> str:
        """Of what the line is: its service and session; another's logger."""
        return f"{self.service} {self.session}" if self.session else self.service or escaped(self.logger)


Form = Callable[[Entry], bytes]  # an entry as it is sent


def _message(entry: Entry) -> str:
    text = entry.text.rstrip("\n")  # a traceback ends with one
    if len(text) <= 2 * _HALF:
        shown = escaped(text)
        if len(shown) <= 2 * _HALF:
            return shown
    start, end = escaped(text[:_HALF])[:_HALF], escaped(text[-_HALF:])[-_HALF:]
    return f"{start} (cut: {len(text)} characters in all) {end}"


def _body(entry: Entry) -> str:
    text = _message(entry) if entry.summary is None else f"{entry.text} {_pairs(entry.summary)}"
    tag = entry.tag
    return f"{entry.level} {tag}: {text}" if tag else f"{entry.level}: {text}"


def _thousandths(number: int) -> str:
    return str(number).zfill(3)


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
        return f"{self._text}.{_thousandths(int((now - second) * 1000))}{self._offset}"


_clock: Final = _Clock()


def file_line(entry: Entry) -> bytes:
    """``2026-11-23T12:00:00.123+00:00 pop3gw[PID] info inbound 3f2a77d0c1e5: text`` and a line end."""
    line = f"{_clock.text(_time())} {NAME}[{_getpid()}] {_body(entry)}\n"
    return line.encode("utf-8", "backslashreplace")


def file_json(entry: Entry) -> bytes:
    """A JSON object and a line end."""
    return (_object(entry) + "\n").encode("utf-8", "backslashreplace")


def syslog_line(entry: Entry) -> bytes:
    """The text as a datagram for syslog, which has a time of its own."""
    return _syslog(entry, _body(entry))


def syslog_json(entry: Entry) -> bytes:
    """The JSON object as a datagram for syslog."""
    return _syslog(entry, _object(entry))


def journal_entry(entry: Entry) -> bytes:
    """A datagram of journald's native protocol: the text as MESSAGE, and a field for each thing that it names.

    Values are single lines, so the protocol's simple form serves (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/).
    """
    named = {"SERVICE": entry.service, "SESSION": entry.session, "LOGGER": entry.logger}
    if entry.summary is not None:
        named |= {name.upper(): str(value) for name, value in summary_fields(entry.summary).items()}
    fields = {
        "MESSAGE": _body(entry),
        "PRIORITY": str(_SYSLOG_SEVERITY[entry.level]),
        "SYSLOG_FACILITY": str(_FACILITY_MAIL >> 3),
        "SYSLOG_IDENTIFIER": NAME,
    } | {f"POP3GW_{name}": escaped(value) for name, value in named.items() if value}
    return "".join(f"{name}={value}\n" for name, value in fields.items()).encode("utf-8", "backslashreplace")


FILE_FORMS: Final[dict[LogFormat, Form]] = {LogFormat.TEXT: file_line, LogFormat.JSON: file_json}
SYSLOG_FORMS: Final[dict[LogFormat, Form]] = {LogFormat.TEXT: syslog_line, LogFormat.JSON: syslog_json}


def _syslog(entry: Entry, body: str) -> bytes:
    priority = _FACILITY_MAIL | _SYSLOG_SEVERITY[entry.level]
    return f"<{priority}>{NAME}[{_getpid()}]: {body}".encode("utf-8", "backslashreplace")


def _object(entry: Entry) -> str:
    import json  # only where this format is wanted: all processes would carry it

    fields: dict[str, object] = {"time": _clock.text(_time()), "pid": _getpid(), "level": str(entry.level)}
    fields |= {name: value for name in ("service", "session", "logger") if (value := getattr(entry, name))}
    fields["message"] = _message(entry)
    if entry.summary is not None:
        fields |= summary_fields(entry.summary)
    return json.dumps(fields, ensure_ascii=False)


def summary_fields(summary: Summary) -> dict[str, str | int | float]:
    """What a session was, by name, in the order of the text; what it was not is left out."""
    fields = {
        "client": summary.client,
        "server": summary.server,
        "user": summary.user,
        "login": summary.login,
        "retrieved": summary.retrieved,
        "deleted": summary.deleted,
        "from_client": summary.from_client,
        "to_client": summary.to_client,
        "seconds": summary.milliseconds / 1000,
        "end": str(summary.end),
        "by": str(summary.by),
        "client_tls": summary.client_tls,
        "server_tls": summary.server_tls,
    }
    return {
        name: escaped(value) if isinstance(value, str) else value for name, value in fields.items() if value is not None
    }


def quoted(text: str | None) -> str:
    """A value among others in a text: quoted where it could be taken for more than one, or for none."""
    if text is None:
        return "-"
    plain = escaped(text)
    if plain.isalnum() or (plain != "-" and "\\" not in text and _PLAIN.fullmatch(plain)):
        return plain
    return '"' + escaped(text.replace("\\", "\\\\")).replace('"', '\\"') + '"'


def _pairs(summary: Summary) -> str:
    """One session as NAME=VALUE.

    No conversions within the text: compiled, one of them makes all of its parts go through str.format().
    """
    seconds = f"{summary.milliseconds // 1000}.{_thousandths(summary.milliseconds % 1000)}"
    return (
        f"client={summary.client} server={summary.server} user={quoted(summary.user)}"
        f" login={quoted(summary.login)} retrieved={summary.retrieved} deleted={summary.deleted}"
        f" from_client={summary.from_client} to_client={summary.to_client} seconds={seconds}"
        f" end={summary.end} by={summary.by}{_tls(summary)}"
    )


def _tls(summary: Summary) -> str:
    """The versions of TLS, where there was any."""
    if summary.client_tls is None and summary.server_tls is None:
        return ""
    sides = (("client_tls", summary.client_tls), ("server_tls", summary.server_tls))
    return "".join(f" {name}={version}" for name, version in sides if version is not None)
