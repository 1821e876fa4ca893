"""The log of a process, and the journal of a session: one line an event.

Lines are written directly, in one system call: through ``logging`` a line costs a session as much as its policy does.
What others log through ``logging`` (policies, libraries) is joined in once somebody loads that.

Known limit: what a thread or the module of a policy logs through ``logging`` is escaped but not redacted, since it
belongs to no session.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pop3gw import lazily, logfile
from pop3gw.errors import StartError
from pop3gw.logline import FILE_FORMS, SYSLOG_FORMS, Entry, journal_entry, quoted
from pop3gw.logsinks import DatagramSink, FileSink, Sink, is_journal
from pop3gw.places import is_folder
from pop3gw.privileges import Account
from pop3gw.proto.events import Summary
from pop3gw.redaction import Secrets
from pop3gw.values import LogFormat, LogLevel

if TYPE_CHECKING:
    from pop3gw.joined import Joined

SYSLOG_SOCKET: Final = "/dev/log"
JOURNAL_SOCKET: Final = "/run/systemd/journal/socket"
_INFO: Final = LogLevel.INFO
_MOST: Final = 100  # lines that a session logs
# As ``logging`` numbers them.
_INFO_FROM: Final = 20
_WARNING_FROM: Final = 30
_NUMBER: Final = {
    LogLevel.DEBUG: 10,
    LogLevel.INFO: _INFO_FROM,
    LogLevel.WARNING: _WARNING_FROM,
    LogLevel.ERROR: 40,
}


class Log:
    """The log of this process, made by the master and inherited by every process that it forks."""

    def __init__(self, sink: Sink, level: LogLevel, target: str) -> None:
        self._sink = sink
        self._target = target
        self.level = level

    @classmethod
    def open(
        cls,
        target: str,
        level: LogLevel,
        style: LogFormat = LogFormat.TEXT,
        *,
        account: Account | None = None,
        syslog_socket: str = SYSLOG_SOCKET,
        journal_socket: str = JOURNAL_SOCKET,
    ) -> Log:
        """Open ``syslog``, ``stderr`` or a file's path and make it the log of this process.

        A stderr that leads to the journal becomes the journal itself, with fields. ``account`` is the workers' where
        root has started the gateway, else None. Raises StartError where the target can't be opened.
        """
        global _current  # a process has one log, as it has one stderr
        sink: Sink
        try:
            if target == "syslog":
                sink = DatagramSink(syslog_socket, SYSLOG_FORMS[style])
            elif target == "stderr":
                sink = _stderr(style, journal_socket)
            else:
                sink = FileSink.open(target, FILE_FORMS[style], account)
        except OSError as error:
            what = f"no syslog daemon listens on {syslog_socket}" if target == "syslog" else f"log file {target}"
            raise StartError(f"log_target = {target}: {what} ({error.strerror})") from None
        _current = opened = cls(sink, level, target)
        lazily.when_loaded("logging", _join)
        return opened

    @property
    def level(self) -> LogLevel:
        """What is written: lines of this level and worse ones. A reload may set it."""
        return self._level

    @level.setter
    def level(self, level: LogLevel) -> None:
        self._level = level
        self.threshold = _NUMBER[level]
        if _joined is not None:
            _joined.take_from(self.threshold)

    def write(self, entry: Entry) -> None:
        """Write an entry whatever its level."""
        self._sink.write(entry)

    def info(self, text: str, service: str = "") -> None:
        if self.threshold <= _INFO_FROM:
            self._sink.write(Entry(LogLevel.INFO, text, service))

    def warning(self, text: str, service: str = "") -> None:
        if self.threshold <= _WARNING_FROM:
            self._sink.write(Entry(LogLevel.WARNING, text, service))

    def error(self, text: str, service: str = "") -> None:
        self._sink.write(Entry(LogLevel.ERROR, text, service))

    def descriptors(self) -> list[int]:
        """What a child, or a daemon, is to keep open; nothing for stderr, which stays in any case."""
        descriptor = self._sink.fileno_or_none()
        return [] if descriptor is None else [descriptor]

    def reopen(self) -> int | None:
        """Open the target anew (USR1), under the same descriptor, which is to be passed on.

        None: it goes on where it was, and says why.
        """
        descriptor = self._sink.fileno_or_none()
        if descriptor is None:
            self.info("the log is stderr, which can't be reopened; it goes on where it was")
            return None
        try:
            self._sink.reopen()
        except OSError as error:
            again = "it goes on where it was until that is mended and another USR1 comes"
            self.error(f"log_target = {self._target}: the log can't be reopened ({error.strerror}); {again}")
            return None
        return descriptor

    def adopt(self, fd: int) -> None:
        """Write to this descriptor from now on, under the old one's number; ``fd`` itself is closed."""
        self._sink.adopt(fd)

    def separate(self) -> None:
        """As ``Sink.separate``: for who is to run a policy's code."""
        self._sink.separate()


def fault(target: str, account: Account | None = None) -> str:
    """Why a start could not open this target; "" where nothing seems to be in the way. Nothing is made."""
    if target == "syslog":
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(SYSLOG_SOCKET)
            except OSError as error:
                return f"no syslog daemon listens on {SYSLOG_SOCKET} ({error.strerror})"
    elif target != "stderr":
        file = Path(target)
        try:
            if not is_folder(file.parent):
                return f"there is no folder {file.parent}"
            if is_folder(file):
                return f'"{target}", which is a folder'
            return logfile.fault(target, account)
        except OSError as error:
            return f'"{target}": {error.strerror}'
    return ""


def _stderr(style: LogFormat, journal_socket: str) -> Sink:
    if is_journal(2, os.environ.get("JOURNAL_STREAM", "")):
        try:
            return DatagramSink(journal_socket, journal_entry)
        except OSError:  # what goes to stderr still arrives there, without fields
            pass
    return FileSink(2, form=FILE_FORMS[style])


_joined: Joined | None = None  # once somebody has loaded ``logging``
_current = Log(FileSink(2), LogLevel.WARNING, "stderr")


def current() -> Log:
    """The log of this process: stderr, warnings and worse, until one was opened."""
    return _current


@contextlib.contextmanager
def to_nowhere() -> Iterator[None]:
    """Within, lines of this process are made and thrown away. OSError: there is no null device."""
    global _current
    kept = _current
    with open(os.devnull, "ab") as nowhere:  # noqa: PTH123 - not a path of anyone's
        _current = Log(FileSink(nowhere.fileno(), form=FILE_FORMS[LogFormat.TEXT]), kept.level, os.devnull)
        try:
            yield
        finally:
            _current = kept


def _join() -> None:
    """Take into the log what others log through ``logging``, which has been loaded."""
    global _joined
    from pop3gw.joined import Joined

    if _joined is None:
        _joined = Joined(_write_joined)
    _joined.take_from(_current.threshold)


def _write_joined(number: int, text: str, logger: str) -> None:
    level = next((level for level, least in reversed(_NUMBER.items()) if number >= least), LogLevel.DEBUG)
    if _NUMBER[level] >= _current.threshold:
        journal = _speaker()
        if journal is not None:
            journal.joined(level, text, logger)
        else:
            _current.write(Entry(level, text, logger="" if logger.startswith("pop3gw") else logger))


def _nobody() -> SessionLog | None:
    return None


_speaker: Callable[[], SessionLog | None] = _nobody


def ask_who_speaks(speaker: Callable[[], SessionLog | None]) -> None:
    """``speaker`` tells in which session's callback something is logged through ``logging``, if in one."""
    global _speaker  # a process has one relay
    _speaker = speaker


class SessionLog:
    """The journal of one session (``proto.events.Journal``): each line carries the service and the session's id.

    A client must not fill the disk: of a session ``_MOST`` lines are written, then as many again of warnings and errors
    alone, since what a client does must not hide a callback that fails or why the session ended. Failed logins and the
    summary are always written, and all lines at ``log_level = debug``, where whole conversations are.
    """

    __slots__ = ("_left", "_log", "_secrets", "_service", "_session", "conversation")

    def __init__(self, session_id: str, service: str) -> None:
        self._log = _current
        self._service = service
        self._session = session_id
        self._secrets = Secrets()
        self._left = _MOST
        self.conversation = self._log.level is LogLevel.DEBUG

    def secret(self, text: str) -> None:
        """Hide this text in every later line, in each of its spellings (``redaction``)."""
        self._secrets.add(text)

    def debug(self, text: str) -> None:
        if self.conversation:
            self._write(LogLevel.DEBUG, text)

    def info(self, text: str) -> None:
        if self._log.threshold <= _INFO_FROM:
            self._write(LogLevel.INFO, text)

    def warning(self, text: str) -> None:
        if self._log.threshold <= _WARNING_FROM:
            self._write(LogLevel.WARNING, text)

    def error(self, text: str) -> None:
        self._write(LogLevel.ERROR, text)

    def joined(self, level: LogLevel, text: str, logger: str) -> None:
        """What a callback has logged through ``logging``; the logger's name tells it from the gateway's own lines."""
        said = self._secrets.redacted(f"{logger}: {text}")
        self._log.write(Entry(level, said, self._service, self._session, logger))

    def login_failed(self, client: str, user: str | None) -> None:
        """Log a failed login, for who counts them (fail2ban).

        Not redacted: a password that equals the client's address would hide the client.
        """
        if self._log.threshold <= _INFO_FROM:
            text = f"login failed client={client} user={quoted(user)}"
            self._log.write(Entry(LogLevel.INFO, text, self._service, self._session))

    def summary(self, summary: Summary) -> None:
        """Log the session's end. Not redacted: a user whose password is their name is still to be found."""
        if self._log.threshold <= _INFO_FROM:
            self._log.write(Entry(_INFO, "session ended", self._service, self._session, "", summary))

    def _write(self, level: LogLevel, text: str) -> None:
        if not self.conversation:
            if self._left <= (0 if level is _INFO else -_MOST):
                return
            self._left -= 1
            if self._left in (0, -_MOST):
                text += "; this session has said much, and nothing more of it is logged but "
                text += "its end" if self._left else "what went wrong and its end"
        self._log.write(Entry(level, self._secrets.redacted(text), self._service, self._session))
