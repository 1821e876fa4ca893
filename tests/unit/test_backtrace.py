"""Exceptions are told whatever they are like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pop3gw.backtrace import backtrace, bare, line_in, summed_up


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


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ValueError("a reason"), "ValueError: a reason"),
        (lambda: SyntaxError("a reason", ("file", 1, 2, "source")), "SyntaxError: a reason"),
        (lambda: MuteError("x"), "MuteError"),
        (lambda: SyntaxError("x", ODD), "SyntaxError"),
    ],
)
def test_summed_up_in_a_line(make: Callable[[], BaseException], text: str) -> None:
    assert summed_up(make()) == text


def test_notes_are_no_part_of_the_sum() -> None:
    fault = ValueError("a reason")
    fault.add_note("a note")
    assert summed_up(fault) == "ValueError: a reason"


@pytest.mark.parametrize("make", [ValueError, MuteError, lambda: SyntaxError("x", ("elsewhere", 1, 2, ""))])
def test_the_line_is_where_this_file_led_to_it(make: Callable[[], BaseException]) -> None:
    try:
        raise make()
    except BaseException as caught:  # noqa: BLE001 - as above
        assert line_in(__file__, caught) == test_the_line_is_where_this_file_led_to_it.__code__.co_firstlineno + 3
        assert line_in("elsewhere.py", caught) is None


@pytest.mark.parametrize(("line", "found"), [(3, 3), ("third", None)])
def test_the_line_that_is_no_python(line: Any, found: int | None) -> None:
    assert line_in("office.py", SyntaxError("x", ("office.py", line, 2, ""))) == found


def test_without_its_text() -> None:
    try:
        raise ValueError("hidden" + "-word")
    except ValueError as fault:
        text = bare(fault)
    assert "test_without_its_text" in text
    assert text.endswith("ValueError\n")
    assert "hidden-word" not in text
