"""How pop3gwctl prints what a gateway has told: a number, a session, a service, a table. Pure: JSON in, text out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pop3gw.redaction import escaped


def octets(number: float) -> str:
    """A number of octets, short: ``812``, ``4.1K``, ``1.3G``."""
    for unit in ("", "K", "M", "G"):
        if number < 1000:
            return f"{number:.0f}{unit}" if not unit or number >= 99.95 else f"{number:.1f}{unit}"
        number /= 1024
    return f"{number:.1f}T"


def age(seconds: float) -> str:
    """A time, short: ``4.2s``, ``3m07``, ``2h15``, ``4d03``."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    unit, size, below = ("m", 60, 1) if seconds < 3600 else ("h", 3600, 60) if seconds < 86400 else ("d", 86400, 3600)
    return f"{int(seconds // size)}{unit}{int(seconds % size // below):02}"


def tls_of(session: Mapping[str, Any]) -> str:
    """TLS on both sides: ``client/server``, a hyphen for none."""
    sides = [(session[key] or "-").removeprefix("TLSv") for key in ("client_tls", "server_tls")]
    return "-" if sides == ["-", "-"] else "/".join(sides)


def session_row(session: Mapping[str, Any]) -> list[str]:
    """A session as the cells of a table; what a client chose stands there as in the log, and no terminal obeys it."""
    cells = (
        session["session"],
        session["service"],
        session["user"] or "-",
        session["client"],
        session["server"] or "-",
        session["state"] or "-",
        octets(session["from_client"]),
        octets(session["to_client"]),
        age(session["seconds"]),
        tls_of(session),
    )
    return [escaped(cell) for cell in cells]


SESSION_HEAD: Final = ["SESSION", "SERVICE", "USER", "CLIENT", "SERVER", "STATE", "IN", "OUT", "AGE", "TLS"]
SERVICE_HEAD: Final = [
    "SERVICE",
    "STATE",
    "SESSIONS",
    "WORKERS",
    "BUSY",
    "MAX",
    "SESS/S",
    "LOGINS",
    "FAILED",
    "REFUSED",
    "ERRORS",
]


def service_row(service: Mapping[str, Any]) -> list[str]:
    """A service as the cells of a table."""
    workers, total = service["workers"], service["total"]
    return [
        escaped(service["name"]),
        escaped(service["state"]),
        str(service["sessions"]),
        str(workers["total"]),
        str(workers["busy"]),
        str(workers["max"]),
        f"{service['rates']['sessions_per_second']:.1f}",
        str(total["logins"]),
        str(total["logins_failed"] + total["logins_refused"]),
        str(total["requests_refused"] + total["answers_refused"] + total["clients_refused"]),
        str(sum(service["errors"].values())),
    ]


def headline(result: Mapping[str, Any]) -> str:
    """The gateway in a line."""
    reloads = result["reloads"]
    return escaped(
        f"pop3gw {result['version']}, process {result['pid']}, up {age(result['seconds'])}, {result['source']},"
        f" {reloads['ok']} reloads, {reloads['failed']} failed"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as what is in them."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (head, *rows)]


def status_lines(result: Mapping[str, Any]) -> Iterable[str]:
    """The gateway and its services."""
    yield headline(result)
    for service in result["services"]:
        total, rates, workers = service["total"], service["rates"], service["workers"]
        yield ""
        listen = ", ".join(service["listen"]) or "no listener"
        yield f"{service['name']}: {service['state']}, {listen} -> {service['server']}, {service['policy']}"
        yield (
            f"  now       {service['sessions']} sessions; {workers['total']} workers of at most {workers['max']}:"
            f" {workers['busy']} busy, {workers['idle']} idle, {workers['starting']} starting"
        )
        yield (
            f"  rates     {rates['sessions_per_second']:g} sessions/s, {rates['logins_per_second']:g} logins/s,"
            f" {octets(rates['octets_per_second'])} octets/s over {rates['seconds']:g} s"
        )
        yield (
            f"  total     {total['sessions']} sessions, {total['logins']} logins"
            f" ({total['logins_failed']} failed, {total['logins_refused']} refused), {total['messages']} messages,"
            f" {octets(total['from_client'])} octets in, {octets(total['to_client'])} out"
        )
        yield (
            f"  refused   {total['requests_refused']} of {total['requests']} requests,"
            f" {total['answers_refused']} answers, {total['clients_refused']} clients"
        )
        errors = [f"{name.replace('_', ' ')} {number}" for name, number in service["errors"].items() if number]
        yield f"  errors    {', '.join(errors) or 'none'}"


def session_lines(result: Mapping[str, Any]) -> Iterable[str]:
    """Its sessions, as a table."""
    rows = [session_row(session) for session in result["sessions"]]
    yield from table(SESSION_HEAD, rows) if rows else ["no session"]


def in_a_line(session: Mapping[str, Any]) -> str:
    """A session."""
    return " ".join(session_row(session))
