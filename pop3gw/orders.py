"""What a pool orders and its service carries out: the words between ``pool``, which decides, and ``serving``.

Pure, and knows neither of them.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class Act(enum.Enum):
    """What an order asks for."""

    SPAWN = "fork this worker"
    RETIRE = "tell it to leave once its sessions are over"
    END = "tell it to end its sessions and leave"
    KILL = "kill it"
    REPORT = "log this text as a warning"


class Order(NamedTuple):
    """One thing to do: to the worker of that number, or (REPORT) with that text."""

    act: Act
    worker: int = 0
    text: str = ""
