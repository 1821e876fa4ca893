"""The log of a process, and the journal of a session: one line an event.

Lines are written directly, in one system call: through ``logging`` a line costs a session as much as its policy does.
What others log through ``logging`` (policies, libraries, the gateway's own rare lines) is joined in.

Known limit: what a policy logs through ``logging`` is escaped but not redacted, since it belongs to no session.
"""

from __future__ import annotations

import logging

from pop3gw.errors import StartError
from pop3gw.logline import summary_text
from pop3gw.logsinks import FileSink, Sink, SyslogSink
from pop3gw.proto.events import Summary
from pop3gw.redaction import Secrets
from pop3gw.values import LogLevel

SYSLOG_SOCKET = "/dev/log"
_NUMBER = {LogLevel.DEBUG: 10, LogLevel.INFO: 20, LogLevel.WARNING: 30, LogLevel.ERROR: 40}


class Log:
    """The log of this process, made by the master and inherited by every process that it forks."""

    def __init__(self, sink: Sink, level: LogLevel) -> None:
        self._sink = sink
        self.level = level

    @classmethod
    def open(cls, target: str, level: LogLevel, *, syslog_socket: str = SYSLOG_SOCKET) -> Log:
        """Open ``syslog``, ``stderr`` or a file's path and make it the log of this process.

        Raises StartError where it can't be opened.
        """
        global _current  # a process has one log, as it has one stderr
        try:
            if target == "syslog":
                opened = cls(SyslogSink(syslog_socket), level)
            elif target == "stderr":
                opened = cls(FileSink(2), level)
            else:
                opened = cls(FileSink.open(target), level)
        except OSError as error:
            what = f"no syslog daemon listens on {syslog_socket}" if target == "syslog" else f"log file {target}"
            raise StartError(f"log_target = {target}: {what} ({error.strerror})") from None
        _current = opened
        logging.getLogger().addHandler(_JOINED)
        return opened

    @property
    def level(self) -> LogLevel:
        """What is written: lines of this level and worse ones. A reload may set it."""
        return self._level

    @level.setter
    def level(self, level: LogLevel) -> None:
        self._level = level
        self.threshold = _NUMBER[level]
        logging.getLogger().setLevel(self.threshold)

    def write(self, level: LogLevel, tag: str, text: str) -> None:
        """Write a line whatever its level; ``tag`` is the service and, where there is one, the session."""
        self._sink.write(level, tag, text)

    def debug(self, text: str, service: str = "") -> None:
        if self.threshold <= 10:
            self._sink.write(LogLevel.DEBUG, service, text)

    def info(self, text: str, service: str = "") -> None:
        if self.threshold <= 20:
            self._sink.write(LogLevel.INFO, service, text)

    def warning(self, text: str, service: str = "") -> None:
        if self.threshold <= 30:
            self._sink.write(LogLevel.WARNING, service, text)

    def error(self, text: str, service: str = "") -> None:
        self._sink.write(LogLevel.ERROR, service, text)

    def fileno_or_none(self) -> int | None:
        """The descriptor to keep open while daemonizing and to pass on after ``reopen``; None for stderr."""
        return self._sink.fileno_or_none()

    def reopen(self) -> None:
        """Open the target anew (USR1), under the same descriptor; where that fails, say so in the old one."""
        try:
            self._sink.reopen()
        except OSError as error:
            self.error(f"the log can't be reopened ({error.strerror}); it goes on where it was")

    def adopt(self, fd: int) -> None:
        """Write to this descriptor from now on, under the old one's number; ``fd`` itself is closed."""
        self._sink.adopt(fd)


_current = Log(FileSink(2), LogLevel.WARNING)


def current() -> Log:
    """The log of this process: stderr, warnings and worse, until one was opened."""
    return _current


class _Joined(logging.Handler):
    """Takes what others log through ``logging`` into the log."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception as error:  # noqa: BLE001 - another's arguments may not fit another's format
            text = f"{record.msg!r} with arguments that don't fit ({error})"
        level = next((level for level, number in reversed(_NUMBER.items()) if record.levelno >= number), LogLevel.DEBUG)
        if _NUMBER[level] >= _current.threshold:
            _current.write(level, "" if record.name.startswith("pop3gw") else record.name, text)


_JOINED = _Joined()


class SessionLog:
    """The journal of one session (``proto.events.Journal``): each line carries the service and the session's id."""

    __slots__ = ("_log", "_secrets", "_tag", "conversation")

    def __init__(self, session_id: str, service: str) -> None:
        self._log = _current
        self._tag = f"{service} {session_id}"
        self._secrets = Secrets()
        self.conversation = self._log.level is LogLevel.DEBUG

    def secret(self, text: str) -> None:
        """Hide this text in every later line, in each of its spellings (``redaction``)."""
        self._secrets.add(text)

    def debug(self, text: str) -> None:
        if self.conversation:
            self._write(LogLevel.DEBUG, text)

    def info(self, text: str) -> None:
        if self._log.threshold <= 20:
            self._write(LogLevel.INFO, text)

    def warning(self, text: str) -> None:
        if self._log.threshold <= 30:
            self._write(LogLevel.WARNING, text)

    def error(self, text: str) -> None:
        self._write(LogLevel.ERROR, text)

    def summary(self, summary: Summary) -> None:
        """Log the session's end. Not redacted: a user whose password is their name is still to be found."""
        if self._log.threshold <= 20:
            self._log.write(LogLevel.INFO, self._tag, summary_text(summary))

    def _write(self, level: LogLevel, text: str) -> None:
        self._log.write(level, self._tag, self._secrets.redacted(text))
