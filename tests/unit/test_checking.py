"""What is wrong with a policy as it is configured: each fault is named, and what may be is none."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from functools import partial
from types import MethodType
from typing import Any

import pytest

from pop3gw import checking
from pop3gw.checking import faults
from pop3gw.policy import POP3_REQ_ABORT, POP3_REQ_ACCEPT, POP3_REQ_POLICY, POP3_REQ_REJECT, Pop3Proxy


def callback(*_arguments: object) -> int:
    return POP3_REQ_ACCEPT


def test_it_names_attributes_that_were_not_set_the_usual_way() -> None:
    class Sideways(Pop3Proxy):
        def config(self) -> None:
            super().config()
            vars(self).update(timeout=600e3, permit_longline=1)

    assert [fault.partition(":")[0] for fault in faults(Sideways())] == ["Sideways.permit_longline", "Sideways.timeout"]


def test_it_names_attributes_of_a_class_that_were_set_later() -> None:
    class Late(Pop3Proxy):
        pass

    Late.auth_timeout = 60e3  # type: ignore[assignment]  # as a policy file may
    assert [fault.partition(":")[0] for fault in faults(Late())] == ["Late.auth_timeout"]


def test_it_names_every_malformed_entry() -> None:
    class Wrong(Pop3Proxy):
        def config(self) -> None:
            super().config()
            assert self.session.client_address is None
            self.request["user"] = POP3_REQ_ACCEPT
            self.request["RETR"] = None

    assert {fault.partition(":")[0] for fault in faults(Wrong())} == {"request['RETR']", "request['user']"}


@pytest.mark.parametrize("action", [POP3_REQ_REJECT, POP3_REQ_ABORT])
def test_it_names_a_text_that_no_status_line_has_room_for(action: int) -> None:
    class Wordy(Pop3Proxy):
        def config(self) -> None:
            self.max_response_line_length = 15
            self.request["RETR"] = (action, "0123456789")
            self.request["TOP"] = (action, "\u00e923456789")
            self.request["DELE"] = (action, "0123456789a")
            self.request["GREETING"] = (action, "\u00e9123456789")

    assert [fault.partition(":")[0] for fault in faults(Wordy())] == ["request['DELE']", "request['GREETING']"]


def test_it_names_what_would_never_run() -> None:
    async def slept(_self: object, _text: str = "") -> int:
        return POP3_REQ_ACCEPT

    def yields(_self: object, _text: str = "") -> Iterator[int]:
        yield POP3_REQ_ACCEPT

    async def both(_self: object, _text: str = "") -> AsyncIterator[int]:
        yield POP3_REQ_ACCEPT

    class Callbacks(Pop3Proxy):
        def config(self) -> None:
            super().config()
            self.request["RETR"] = (POP3_REQ_POLICY, callback, MethodType(slept, self))
            self.request["TOP"] = (POP3_REQ_POLICY, partial(yields, self))
            self.request["LIST"] = (POP3_REQ_POLICY, MethodType(both, self))
            self.request["STAT"] = (POP3_REQ_POLICY, lambda _command: POP3_REQ_ACCEPT)

    assert checking._MAKES_ANOTHER == inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
    never = "is async or has a yield: called, it does not run"
    for config in (slept, yields, both):
        assert faults(type("Never", (Pop3Proxy,), {"config": config})()) == [f"config() {never}"]
    assert faults(Callbacks()) == [f"request[{key!r}]: its callback {never}" for key in ("LIST", "RETR", "TOP")]


def test_it_names_a_config_between_that_would_never_run() -> None:
    class Between(Pop3Proxy):
        async def config(self) -> None:  # type: ignore[override]
            self.request["DELE"] = POP3_REQ_REJECT

    class Outer(Between):
        def config(self) -> None:  # type: ignore[override]
            Pop3Proxy.config(self)

    assert faults(Outer()) == ["config() of Between is async or has a yield: called, it does not run"]


def test_a_policy_may_have_any_name_of_its_own() -> None:
    assert faults(type("Own", (Pop3Proxy,), {"_USUAL": 1})()) == []


def test_it_names_callbacks_that_can_not_be_called_with_one_argument() -> None:
    class Callbacks(Pop3Proxy):
        def config(self) -> None:
            wrong: tuple[Any, ...] = (
                *(self.none, self.two, self.named, Callbacks.usual, lambda: 1, lambda _a, _b: 1),
                *(partial(self.usual, "x"), partial(self.named, "x", more="y")),
                *(partial(Callbacks.static, _command="x"), partial(partial(self.two, "x"), "y")),
            )
            for number, call in enumerate(wrong):
                self.request[f"WRONG{number}"] = (POP3_REQ_POLICY, None, call)
            right: tuple[Any, ...] = (
                self.usual,
                self.more,
                self.many,
                self.all,
                Callbacks.static,
                Callbacks.of_class,
                partial(self.two, "x"),
                partial(self.named, more="x"),
                partial(partial(self.many, "x"), "y"),
                print,
                str,
            )
            for number, call in enumerate(right):
                self.request[f"RIGHT{number}"] = (POP3_REQ_POLICY, call)

        def none(self) -> int:
            return POP3_REQ_ACCEPT

        def two(self, _command: str, _more: str) -> int:
            return POP3_REQ_ACCEPT

        def named(self, _command: str, *, more: str) -> int:
            return int(more)

        def usual(self, _command: str) -> int:
            return POP3_REQ_ACCEPT

        def more(self, _command: str, _more: str = "", *, last: str = "") -> int:
            return int(last)

        def many(self, *_arguments: str) -> int:
            return POP3_REQ_ACCEPT

        def all(*_arguments: object) -> int:
            return POP3_REQ_ACCEPT

        @staticmethod
        def static(_command: str) -> int:
            return POP3_REQ_ACCEPT

        @classmethod
        def of_class(cls, _command: str) -> int:
            return POP3_REQ_ACCEPT

    assert (checking._ANY_NUMBER, checking._ANY_NAMES) == (inspect.CO_VARARGS, inspect.CO_VARKEYWORDS)
    found = faults(Callbacks())
    assert {fault.partition(":")[0] for fault in found} == {f"request['WRONG{number}']" for number in range(10)}
    assert "Callbacks.two can't be called with one argument" in found[1]


class Shapes:
    """Functions that take this and that; none does anything."""

    def usual(self, command: str) -> None: ...
    def none(self) -> None: ...
    def two(self, first: str, command: str) -> None: ...
    def maybe(self, command: str, first: str = "") -> None: ...
    def any_number(self, *all: str) -> None: ...
    def named(self, command: str, *, more: str) -> None: ...
    def maybe_named(self, command: str, *, more: str = "") -> None: ...
    def any_name(self, command: str, /, first: str = "", **names: str) -> None: ...
    def by_place(self, first: str, /, command: str) -> None: ...
    @staticmethod
    def static(command: str) -> None: ...
    @classmethod
    def of_class(cls, command: str) -> None: ...


def test_what_takes_one_argument_is_what_can_be_called_with_one() -> None:
    shapes = Shapes()
    names = [name for name in vars(Shapes) if not name.startswith("__")]
    calls = [getattr(place, name) for place in (shapes, Shapes) for name in names]
    for call in list(calls):
        for given in ((), ("x",), ("x", "y")):
            for more in ({}, {"more": "1"}, {"first": "1"}, {"command": "1"}, {"unknown": "1"}):
                made = partial(call, *given, **more)
                calls += [made, partial(made, "z"), partial(made, more="2")]
    taken = 0
    for call in calls:
        try:
            call("STAT")
        except TypeError:
            fits = False
        else:
            fits = True
        assert checking._takes_one(call) is fits, call
        taken += fits
    assert 0 < taken < len(calls)


def test_it_lets_the_exception_of_config_out() -> None:
    class Fails(Pop3Proxy):
        def config(self) -> None:
            raise KeyError("here")

    with pytest.raises(KeyError, match="here"):
        faults(Fails())
