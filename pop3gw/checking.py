"""What is wrong with a policy, found when the configuration is checked and not by its first client.

It runs ``config()``, and looks at what that leaves: attributes, entries, and callbacks that would never run or can't be
called. Pure, but for the policy's own code. It must not know how a policy is loaded (``loading``), nor what only looks
misspelt (``spelling``).

Known limit: of what a callback sets later nothing is seen here; a session finds it when it comes to it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import FunctionType, MethodType
from typing import Any, Final

from pop3gw.policy import SETTABLE, AbstractPop3Proxy, attribute_faults, entry, innermost

# Flags of code objects, as ``inspect`` has them, which takes 1.6 MiB.
_MAKES_ANOTHER: Final = 0x20 | 0x80 | 0x200  # CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR
_ANY_NUMBER: Final = 0x04  # CO_VARARGS
_ANY_NAMES: Final = 0x08  # CO_VARKEYWORDS
_NEVER_RUNS: Final = "is async or has a yield: called, it does not run"


def faults(policy: AbstractPop3Proxy) -> list[str]:
    """Every malformed entry that ``config()`` leaves, as ``request['KEY']: reason``; and what would never run.

    Runs ``config()``, and raises whatever it raises.
    """
    if _never_runs(policy.config):
        return [f"config() {_NEVER_RUNS}"]
    # Of a class between, too: called as super().config() it would not run either.
    for base in type(policy).__mro__:
        if _never_runs(base.__dict__.get("config")):
            return [f"config() of {base.__name__} {_NEVER_RUNS}"]
    policy.config()
    if wrong := attribute_faults(policy, sorted(SETTABLE)):
        return wrong
    for key, value in policy.request.items():
        try:
            found = entry(key, value, policy.max_response_line_length)
        except ValueError as fault:
            wrong.append(f"request[{key!r}]: {fault}")
        else:
            callbacks = (found.request_callback, found.response_callback)
            wrong += [f"request[{key!r}]: its callback {_NEVER_RUNS}" for call in callbacks if _never_runs(call)]
            wrong += [
                f"request[{key!r}]: its callback {innermost(call).__qualname__} "
                "can't be called with one argument, as it would be"
                for call in callbacks
                if call is not None and not _takes_one(call)
            ]
    return wrong


def _never_runs(function: object) -> bool:
    """Whether a call only makes a coroutine or a generator."""
    function = innermost(function)
    return isinstance(function, FunctionType) and function.__code__.co_flags & _MAKES_ANOTHER != 0


def _takes_one(call: Callable[..., object]) -> bool:
    """Whether it can be called with one argument, as far as a function shows."""
    function: Any = call
    given, by_name = 1, set[str]()
    while isinstance(function, MethodType | partial):
        if isinstance(function, MethodType):
            given, function = given + 1, function.__func__
        else:
            given, by_name, function = given + len(function.args), by_name | set(function.keywords), function.func
    if not isinstance(function, FunctionType):
        return True
    code = function.__code__
    first_default = code.co_argcount - len(function.__defaults__ or ())
    positional = code.co_varnames[: code.co_argcount]
    by_either = positional[code.co_posonlyargcount :]
    named = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    return (
        all(name in by_name and name in by_either for name in positional[given:first_default])
        and (given <= code.co_argcount or code.co_flags & _ANY_NUMBER != 0)
        and all(name in by_name or name in (function.__kwdefaults__ or {}) for name in named)
        and by_name.isdisjoint(positional[code.co_posonlyargcount : given])
        and (by_name <= {*by_either, *named} or code.co_flags & _ANY_NAMES != 0)
    )
