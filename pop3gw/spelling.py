"""What in a policy looks misspelt: names that do nothing as they stand, beside those that may have been meant. Pure.

It looks at a policy that is configured, for ``--check`` alone, and only doubts: any name may be a policy's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from pop3gw.policy import ANY_KNOWN, GREETING, SETTABLE, AbstractPop3Proxy
from pop3gw.proto.asking import REFUSING
from pop3gw.proto.commands import COMMANDS

_LIKE: Final = 0.85  # of difflib: a letter too many or too few, or two that are exchanged


def doubts(policy: AbstractPop3Proxy) -> list[tuple[str, str]]:
    """What is found, and what is expected instead, of each such name."""
    return [*_entries(policy), *_attributes(policy)]


def _entries(policy: AbstractPop3Proxy) -> Iterator[tuple[str, str]]:
    request: dict[Any, Any] = policy.request
    if GREETING not in request and ANY_KNOWN not in request:
        expected = 'request["GREETING"], or a call of Pop3Proxy.config(self)'
        yield "the request hash has no GREETING, so that each client is turned away", expected
    for key, value in request.items():
        action = value[0] if isinstance(value, tuple) and value else value
        # A callback makes a command of it, and where unknown ones pass a refusal has its sense.
        if key in COMMANDS or action not in REFUSING or policy.permit_unknown_command:
            continue
        if meant := _like(key, COMMANDS):
            yield f"request[{key!r}] is no command that the gateway knows", meant


def _attributes(policy: AbstractPop3Proxy) -> Iterator[tuple[str, str]]:
    named: dict[str, object] = {}
    for base in reversed(type(policy).__mro__):
        named |= base.__dict__
    for name, value in (named | policy.__dict__).items():
        if name.startswith("_") or name in SETTABLE or name in AbstractPop3Proxy.__dict__:
            continue
        if name.lower() == "config":
            yield f"{name} is never called", "config"
            continue
        meant = "" if callable(value) or hasattr(value, "__get__") else _like(name, SETTABLE)
        if meant and name != f"{meant}s":  # of its own, a number of requests say
            yield f"{name} is no attribute of the language", meant


def _like(name: str, known: Any) -> str:
    import difflib  # where a policy is only checked: no worker shares what it takes

    close = difflib.get_close_matches(name, known, n=1, cutoff=_LIKE)
    return close[0] if close else ""
