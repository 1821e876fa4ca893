"""How far templates are, and whether a configuration that is tried holds by that. Pure."""

from __future__ import annotations

import enum
from collections.abc import Collection


class Stage(enum.Enum):
    """How far a template is."""

    LOADING = "its policy is being loaded"
    READY = "workers can be forked"
    FAILED = "it can't serve"
    GONE = "its template has ended"


class Trial(enum.Enum):
    """What becomes of a configuration that is tried."""

    GOES_ON = "some of its templates still load"
    HOLDS = "all are ready"
    FAILED = "one of them can't serve"


def trial(coming: Collection[Stage | None], serving: Collection[Stage | None], *, pressing: bool) -> Trial:
    """By the stages of its templates and of those that serve meanwhile (None: there is none).

    Where one has failed the others are waited for all the same, so that all that is wrong is said at once. Not where
    that would keep a service without a template, or whoever has mended something meanwhile (``pressing``).
    """
    if Stage.FAILED in coming and (pressing or Stage.GONE in serving or Stage.LOADING not in coming):
        return Trial.FAILED
    return Trial.HOLDS if all(stage is Stage.READY for stage in coming) else Trial.GOES_ON
