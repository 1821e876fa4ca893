"""What is counted, and where in a worker's slot each counter stands.

Pure: a table of families, each with its labels and their few values, laid out one behind the other. Sessions, workers
and the master count by index; ``metrics`` and ``control`` name what they read by the same table. No label holds a user
or an address, so their number is fixed. To count something more, add a family.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace
from itertools import accumulate, product
from typing import Final, Protocol

from pop3gw.policy import AbstractPop3Proxy
from pop3gw.proto.commands import COMMANDS, Way
from pop3gw.proto.events import Ending, Side

OTHER: Final = "other"  # a command, way or callback that has no counter of its own


class Counters(Protocol):
    """All counters of a worker, by index: a slot of the scoreboard, or any sequence or mapping of numbers."""

    def __getitem__(self, index: int, /) -> int: ...
    def __setitem__(self, index: int, value: int, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Family:
    """Counters of one name: one for each combination of its labels' values, or a histogram over ``buckets``.

    ``at`` is the index of the first. A histogram has a counter for each bucket (upper bounds in seconds, the last one
    infinite) and behind them the sum, in microseconds.
    """

    name: str
    about: str
    labels: tuple[tuple[str, tuple[str, ...]], ...] = ()  # each with its values
    buckets: tuple[float, ...] = ()
    at: int = 0

    @property
    def size(self) -> int:
        """How many words it takes: its counters and, of a histogram, the sum."""
        return len(self.buckets) + 1 if self.buckets else math.prod(len(known) for _, known in self.labels)

    def index(self, *values: str) -> int:
        """Where the counter with these labels stands. ValueError: there is none."""
        place = 0
        for value, (_, known) in zip(values, self.labels, strict=True):
            place = place * len(known) + known.index(value)
        return self.at + place

    def rows(self) -> list[tuple[tuple[str, ...], int]]:
        """Each combination of labels, and its index."""
        return [(values, self.at + place) for place, values in enumerate(product(*(known for _, known in self.labels)))]


def _laid_out(*families: Family) -> tuple[Family, ...]:
    places = accumulate((family.size for family in families), initial=0)
    return tuple(replace(family, at=at) for family, at in zip(families, places, strict=False))


class Reason(enum.StrEnum):
    """Why a connection was refused before a session."""

    PER_CLIENT_LIMIT = "per_client_limit"
    DRAINED = "drained"


class WorkerEnd(enum.StrEnum):
    """How a worker ended."""

    RETIRED = "retired"  # replaced, or no longer needed
    EXIT = "exit"  # with a status other than 0
    SIGNAL = "signal"


RELAYED: Final = 0
ANSWERED: Final = 1
REFUSED: Final = 2
ABORTED: Final = 3
_VERDICTS: Final = ("relayed", "answered", "refused", "aborted")
_COMMANDS: Final = (*COMMANDS, OTHER)
_OUTCOMES: Final = ("ok", "failed", "refused")
_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, math.inf)
_CONNECT_SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, math.inf)

FAMILIES: Final = _laid_out(
    # By the worker, for its sessions.
    Family("sessions", "Sessions that have begun."),
    Family(
        "sessions_ended",
        "Sessions that are over, by how they ended and whose doing that was.",
        (("end", tuple(end.value for end in Ending)), ("by", tuple(side.value for side in Side))),
    ),
    Family(
        "logins",
        "Logins that server or policy decided.",
        (("way", tuple(way.value for way in Way)), ("outcome", _OUTCOMES)),
    ),
    Family(
        "requests",
        "Requests of clients, by what became of them.",
        (("command", _COMMANDS), ("verdict", _VERDICTS)),
    ),
    Family("answers_refused", "Answers of servers that the policy refused."),
    Family("messages", "Messages that were retrieved whole."),
    # By the seats of the scoreboard, whose readers add them up: the words of the slots stay empty.
    Family("octets", "Octets on the clients' side, of farewells too.", (("direction", ("from_client", "to_client")),)),
    Family("connect_failures", "Sessions whose server could not be reached."),
    Family("tls_failures", "Handshakes that failed.", (("side", ("client", "server")),)),
    Family("session_seconds", "How long sessions lasted.", buckets=_SECONDS),
    Family("connect_seconds", "How long it took to reach the server and to hear of it.", buckets=_CONNECT_SECONDS),
    # By the master.
    Family("sessions_lost", "Sessions that ended with a worker that was killed or crashed."),
    Family(
        "clients_refused",
        "Connections refused before a session; behind a proxy they are sessions that end as refused.",
        (("reason", tuple(reason.value for reason in Reason)),),
    ),
    Family("accept_failures", "How often the system had no room for another connection."),
    Family("workers_started", "Workers that were forked."),
    Family(
        "workers_ended",
        "Workers that have ended: replaced or no longer needed, by an exit status other than 0, or by a signal.",
        (("how", tuple(end.value for end in WorkerEnd)),),
    ),
    Family("templates_lost", "Templates that ended by themselves and were replaced."),
)
(
    SESSIONS,
    SESSIONS_ENDED,
    LOGINS,
    REQUESTS,
    ANSWERS_REFUSED,
    MESSAGES,
    OCTETS,
    CONNECT_FAILURES,
    TLS_FAILURES,
    SESSION_SECONDS,
    CONNECT_SECONDS,
    SESSIONS_LOST,
    CLIENTS_REFUSED,
    ACCEPT_FAILURES,
    WORKERS_STARTED,
    WORKERS_ENDED,
    TEMPLATES_LOST,
) = FAMILIES

# No service's: counted in a ledger of the whole gateway.
RELOADS: Final = Family("reloads", "Reloads of the configuration.", (("outcome", ("ok", "failed")),))

COUNTERS: Final = FAMILIES[-1].at + FAMILIES[-1].size

# What sessions count by: looked up, not computed, since it happens with every request.
REQUEST_AT: Final = {name: REQUESTS.index(name, _VERDICTS[0]) for name in _COMMANDS}
OTHER_REQUEST_AT: Final = REQUEST_AT[OTHER]
_WAY_OF: Final = {name: row.way for name, row in COMMANDS.items() if row.way is not None}
LOGIN_OK: Final = {name: LOGINS.index(way, "ok") for name, way in _WAY_OF.items()}
LOGIN_FAILED: Final = {name: LOGINS.index(way, "failed") for name, way in _WAY_OF.items()}
LOGIN_REFUSED: Final = {name: LOGINS.index(way, "refused") for name, way in _WAY_OF.items()}
ENDED_AT: Final = {(end, by): SESSIONS_ENDED.index(end.value, by.value) for end in Ending for by in Side}
FROM_CLIENT: Final = OCTETS.index("from_client")
TO_CLIENT: Final = OCTETS.index("to_client")


def bucket(family: Family, seconds: float) -> int:
    """Where a histogram counts this many seconds."""
    at = family.at
    for bound in family.buckets:
        if seconds <= bound:
            break
        at += 1
    return at


def sum_at(family: Family) -> int:
    """Where a histogram has its sum, in microseconds."""
    return family.at + len(family.buckets)


CALLBACKS: Final = 32  # of a policy class that have a counter of their own, ``other`` included


def callback_names(policy: type[AbstractPop3Proxy]) -> tuple[str, ...]:
    """The methods whose failures are counted apart: those of the class that may be callbacks. ``other`` is the first.

    Bounded by CALLBACKS; what has no place of its own, or is no method of the class, counts as ``other``, as does a
    method of that name.
    """
    own = {
        name
        for base in policy.__mro__
        if base not in AbstractPop3Proxy.__mro__
        for name, value in vars(base).items()
        if callable(value) and name.isidentifier() and not (name.startswith("__") and name != "__init__")
    }
    return (OTHER, *sorted(own - {OTHER})[: CALLBACKS - 1])
