"""Exceptions are told whatever they are like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pop3gw.backtrace import backtrace, bare


class MuteError(Exception):
    def __getattribute__(self, name: str) -> object:
        raise RuntimeError(name)


class LeavingError(Exception):
    def __str__(self) -> str:
        raise SystemExit(7)


class NotedError(Exception):
    __notes__ = property(lambda _self: 1 / 0)


ODD: Any = ("f", 1, 2, 3)  # the text of the line is no text
HOMELESS: type[Exception] = type("Homeless", (Exception,), {})


def told(fault: BaseException) -> str:
    try:
        raise fault
    except BaseException as caught:  # noqa: BLE001 - SystemExit as well
        return backtrace(caught)


def test_the_usual_is_told_as_python_tells_it() -> None:
    text = told(ValueError("a reason"))
    assert text.startswith("Traceback (most recent call last):\n")
    assert "in told" in text
    assert text.endswith("ValueError: a reason\n")


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: MuteError("x"), "MuteError"),
        (lambda: LeavingError("x"), "LeavingError"),
        (lambda: NotedError("x"), "NotedError"),
        (lambda: HOMELESS("x"), "Homeless"),
        (lambda: SyntaxError("x", ODD), "SyntaxError"),
    ],
)
def test_what_can_not_be_shown_is_told_by_its_place_and_class(make: Callable[[], BaseException], name: str) -> None:
    text = told(make())
    assert "in told" in text
    assert name in text


def test_without_its_text() -> None:
    try:
        raise ValueError("hidden" + "-word")
    except ValueError as fault:
        text = bare(fault)
    assert "test_without_its_text" in text
    assert text.endswith("ValueError\n")
    assert "hidden-word" not in text
