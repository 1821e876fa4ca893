"""Grows the kept corpus: mutates its inputs and keeps each that reaches a line, or a step between two, not seen before.

    python -m tests.fuzz.grow --seconds 60

Not part of the test suite; ``test_fuzz`` replays what was kept. An input that breaks the invariant is kept as well, its
name then begins with ``broke-``.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz.target import run

CORPUS = Path(__file__).with_name("corpus")
WATCHED = str(Path(__file__).resolve().parents[2] / "pop3gw")
LONGEST = 200

Step = tuple[str, int, int]


def reached(data: bytes) -> tuple[set[Step], BaseException | None]:
    """The steps from line to line that an input takes in pop3gw, and what it broke."""
    steps: set[Step] = set()
    last: dict[types.FrameType, int] = {}

    def local(frame: types.FrameType, event: str, _argument: Any) -> Callable[..., Any]:
        if event == "line":
            steps.add((frame.f_code.co_filename, last.get(frame, 0), frame.f_lineno))
            last[frame] = frame.f_lineno
        return local

    def trace(frame: types.FrameType, _event: str, _argument: Any) -> Callable[..., Any] | None:
        return local if frame.f_code.co_filename.startswith(WATCHED) else None

    broke: BaseException | None = None
    sys.settrace(trace)
    try:
        run(data)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what we look for
        broke = error
    finally:
        sys.settrace(None)
    return steps, broke


def mutated(data: bytes, other: bytes, dice: random.Random) -> bytes:
    """The input, changed a little."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randint(0, len(changed))
        match dice.randint(0, 4):
            case 0:
                changed[at:at] = bytes(dice.choices(range(256), k=dice.randint(1, 4)))
            case 1:
                del changed[at : at + dice.randint(1, 4)]
            case 2 if changed:
                changed[at % len(changed)] = dice.randrange(256)
            case 3:
                changed[at:] = other[dice.randint(0, len(other)) :]
            case _:
                changed[at:at] = bytes((dice.randrange(6), dice.randrange(256)))
    return bytes(changed[:LONGEST])


def _where(error: BaseException) -> str:
    """What broke and where, the same for each input that breaks it."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} {frames[-1].filename}:{frames[-1].lineno}"


def grow(seconds: float, dice: random.Random) -> None:
    """Mutate for that long, and keep what is new."""
    kept = [path.read_bytes() for path in sorted(CORPUS.iterdir())] or [b"\0"]
    seen: set[Step] = set()
    for data in kept:
        seen |= reached(data)[0]
    until = time.monotonic() + seconds
    broken: set[str] = set()
    tried = 0
    while time.monotonic() < until:
        data = mutated(dice.choice(kept), dice.choice(kept), dice)
        steps, broke = reached(data)
        tried += 1
        if broke is None and steps <= seen:
            continue
        seen |= steps
        name = hashlib.sha256(data).hexdigest()[:12]
        if broke is not None:
            if (where := _where(broke)) in broken:
                continue
            broken.add(where)
            name = f"broke-{name}"
            print(f"{name}: {type(broke).__name__}: {str(broke)[:200]}")
        else:
            kept.append(data)
        (CORPUS / name).write_bytes(data)
    print(f"{tried} inputs tried, {len(kept)} kept, {len(seen)} steps seen")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    grow(options.seconds, random.Random(options.seed))
