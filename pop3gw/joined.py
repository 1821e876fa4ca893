"""What others log through ``logging``, into the gateway's log. Imported only where ``logging`` has been loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable


class Joined(logging.Handler):
    """The handler of the root logger. ``write`` takes the level's number, the text and the logger's name."""

    def __init__(self, write: Callable[[int, str, str], None]) -> None:
        super().__init__()
        self._write = write

    def take_from(self, threshold: int) -> None:
        """Take what is of this level or worse."""
        root = logging.getLogger()
        root.addHandler(self)
        root.setLevel(threshold)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception as error:  # noqa: BLE001 - another's arguments may not fit another's format
            text = f"{record.msg!r} with arguments that don't fit ({error})"
        self._write(record.levelno, text, record.name)
