"""``pop3gwctl top``: the status and the sessions of a gateway, drawn again and again.

It prints what ``ask`` returns and knows nothing of sockets. Imported by that command alone, since it needs rich. The
busiest sessions come first, as many as fit; Ctrl-C ends it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pop3gw.errors import Exit, RefusedError
from pop3gw.listing import SERVICE_HEAD, SESSION_HEAD, headline, octets, service_row, session_row
from pop3gw.redaction import escaped

Ask = Callable[[str], dict[str, Any]]

_NUMBERS: Final = frozenset({"SESSIONS", "WORKERS", "BUSY", "MAX", "SESS/S", "LOGINS", "FAILED", "REFUSED", "ERRORS"})
_RIGHT: Final = _NUMBERS | {"IN", "OUT", "IN/S", "OUT/S", "AGE"}
# What goes first where the terminal is narrow.
_DISPENSABLE: Final = ("SERVER", "TLS", "IN/S", "MAX", "IN", "SERVICE", "OUT/S", "WORKERS", "OUT", "SESS/S", "STATE")
_STYLE: Final = {
    "serving": "green",
    "drained": "yellow",
    "stopping": "yellow",
    "removed": "dim",
    "TRANSACTION": "green",
    "AUTHORIZATION": "yellow",
    "USER": "yellow",
    "SASL": "yellow",
}


class Picture:
    """What is drawn from one answer to the next: rates need both."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[int, int]] = {}
        self._at = 0.0

    def draw(
        self, status: dict[str, Any], sessions: Sequence[Mapping[str, Any]], now: float, size: tuple[int, int]
    ) -> Group:
        """The picture, for so many columns and rows; ``now``: seconds."""
        columns, rows = size
        head = Text(headline(status), style="bold", no_wrap=True, overflow="ellipsis")
        services = _table(SERVICE_HEAD, [service_row(service) for service in status["services"]], columns)
        seconds = max(now - self._at, 0.001)
        flows = {one["session"]: self._flow(one, seconds) for one in sessions}
        self._before = {one["session"]: (one["from_client"], one["to_client"]) for one in sessions}
        self._at = now
        order = sorted(sessions, key=lambda one: (-sum(flows[one["session"]]), -one["seconds"]))
        room = max(1, rows - len(status["services"]) - 6)
        cells = [
            [*session_row(one)[:8], *(octets(rate) for rate in flows[one["session"]]), *session_row(one)[8:]]
            for one in order[:room]
        ]
        table = _table([*SESSION_HEAD[:8], "IN/S", "OUT/S", *SESSION_HEAD[8:]], cells, columns)
        more = len(sessions) - len(cells)
        tail = Text(f"{more} more" if more > 0 else "", style="dim")
        return Group(head, services, table, tail)

    def _flow(self, session: Mapping[str, Any], seconds: float) -> tuple[float, float]:
        before = self._before.get(session["session"])
        if before is None:
            return 0.0, 0.0
        return (session["from_client"] - before[0]) / seconds, (session["to_client"] - before[1]) / seconds


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], columns: int) -> Table:
    widths = {name: max(map(len, cells)) + 2 for name, *cells in zip(head, head, *rows, strict=True)}
    for name in _DISPENSABLE:
        if sum(widths.values()) - 2 > columns and (name != "SERVICE" or name != head[0]):
            widths.pop(name, None)
    rows = [[cell for name, cell in zip(head, row, strict=True) if name in widths] for row in rows]
    table = Table(box=None, pad_edge=False, header_style="reverse", expand=False)
    for name in widths:
        table.add_column(name, justify="right" if name in _RIGHT else "left", no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLE.get(cell, "")) for cell in row))
    return table


def run(ask: Ask, interval: float, console: Console | None = None) -> int:
    """Draw until interrupted, every so many seconds; returns the exit status. RefusedError: it can't be drawn."""
    picture = Picture()
    console = console or Console()
    if not console.is_terminal or console.is_dumb_terminal:
        raise RefusedError("top needs a terminal that it can draw on; status and sessions print once")

    def drawn() -> Group:
        return picture.draw(ask("status"), ask("sessions")["sessions"], time.monotonic(), console.size)

    first = drawn()  # nobody there: said in plain lines, before the screen is taken
    with contextlib.suppress(KeyboardInterrupt), Live(first, console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            try:
                live.update(drawn(), refresh=True)
            except RefusedError as error:
                live.update(Text(f"{escaped(str(error))}; trying again", style="red"), refresh=True)
    return Exit.OK
