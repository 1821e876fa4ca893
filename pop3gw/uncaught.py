"""Exceptions that nobody can catch: what a policy's ``__del__`` raises, its threads, what Python calls by itself.

Python prints them on stderr, with texts that may hold anything that the policy has seen, passwords too. Here they go
to the log, where they came from and their class. It knows nothing of sessions: what is raised so belongs to none.

Known limit: a policy may put its own hooks in the place of these (``sys.unraisablehook``, ``threading.excepthook``).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from pop3gw import lazily
from pop3gw.backtrace import bare
from pop3gw.logs import current as log

if TYPE_CHECKING:
    import threading

_MOST: Final = 100  # that a process logs: a client may have them raised again and again
_OF_TLS: Final = "Exception ignored in ssl servername callback while decoding name"


def to_log(service: str) -> None:
    """Have this process, which runs the policy of this service, log them as errors."""

    left = _MOST

    def say(fault: BaseException | None) -> None:
        nonlocal left
        if left:
            left -= 1
            where = "nothing is known of it" if fault is None else bare(fault)
            rest = "" if left else "; of this process no more of them are logged"
            log().error(f"an exception that nobody could catch, here without its text: {where}{rest}", service)

    def unraisable(report: sys.UnraisableHookArgs) -> None:
        if not _is_name_for_tls(report):
            say(report.exc_value)

    def in_thread(report: threading.ExceptHookArgs) -> None:
        if report.exc_type is not SystemExit:  # a thread may end so
            say(report.exc_value)

    def of_threads() -> None:
        import threading  # loaded only where a policy uses it

        threading.excepthook = in_thread

    sys.unraisablehook = unraisable
    lazily.when_loaded("threading", of_threads)


def _is_name_for_tls(report: sys.UnraisableHookArgs) -> bool:
    """A name that a client asks for by TLS, and that is not ASCII: the handshake fails, and its session says why.

    CPython decodes the name before it calls ``sni_callback``, and what that raises comes here: with the name itself,
    from 3.14 on with a text about it.
    """
    error = report.exc_value
    if type(error) is not UnicodeDecodeError:
        return False
    if report.object is None:
        return report.err_msg == f"{_OF_TLS} {error.object!r}"
    return type(report.object) is bytes and report.object == error.object
