"""Plays a conversation against a ``Session``: no socket, no clock, the bytes cut up in any way that is asked for.

The player does what the relay does: it feeds a side only while the session reads it, takes the output after each
input, and calls ``expire`` when the deadline has come. Like the relay it may look at the rest only where the session
says that it has changed, or moved: after each input it is seen whether that was said.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import signal
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pop3gw.policy import AbstractPop3Proxy, SessionFacts
from pop3gw.proto.events import Journal
from pop3gw.proto.session import Session
from pop3gw.redaction import Secrets
from tests.scenarios.transcript import (
    Closes,
    ConnectFails,
    Conversation,
    Ends,
    Hears,
    Logged,
    Passes,
    Says,
    Side,
    Step,
    Summed,
    Transcript,
    Vanishes,
)

Split = Callable[[bytes], Iterable[bytes]]

EOF = None
START_MS = 1_000_000
SERVER_ADDRESS = "198.51.100.9"
SERVER_PORT = 110
FACTS = SessionFacts(
    id="S1",
    client_address="192.0.2.7",
    client_port=40123,
    began=1_795_000_000.0,
)


def whole(data: bytes) -> Iterator[bytes]:
    """All at once."""
    yield data


def byte_by_byte(data: bytes) -> Iterator[bytes]:
    """One octet at a time; blocks of 4093 where that would take minutes."""
    size = 1 if len(data) < 1 << 15 else 4093
    for at in range(0, len(data), size):
        yield data[at : at + size]


class StuckError(AssertionError):
    """The session wants to be woken again and again for the same moment."""


@dataclass
class RecordingJournal:
    """A journal that keeps everything, and redacts as it is read."""

    conversation: bool = True
    lines: list[tuple[str, str]] = field(default_factory=list)
    secrets: Secrets = field(default_factory=Secrets)

    def secret(self, text: str) -> None:
        """Redact this text from now on."""
        self.secrets.add(text)

    def debug(self, text: str) -> None:
        """Record."""
        self.lines.append(("debug", self.redacted(text)))

    def info(self, text: str) -> None:
        """Record."""
        self.lines.append(("info", self.redacted(text)))

    def warning(self, text: str) -> None:
        """Record."""
        self.lines.append(("warning", self.redacted(text)))

    def error(self, text: str) -> None:
        """Record."""
        self.lines.append(("error", self.redacted(text)))

    def redacted(self, text: str) -> str:
        """The text as it would stand in the log: only what was named a secret before it was written is hidden."""
        return self.secrets.redacted(text)

    @property
    def text(self) -> str:
        """Everything that was written."""
        return "\n".join(line for _, line in self.lines)


_TOO_LONG = "it ran longer than callback_timeout"


class ProcessorTimeGuard:
    """Calls within so many ms of processor time: what spins is interrupted, whatever else the machine does."""

    def __init__(self) -> None:
        self.calls = 0
        self.interrupted = 0
        self.journal: Journal | None = None
        self._calls_before = 0

    def call(self, function: Callable[..., object], arguments: tuple[object, ...], milliseconds: int) -> object:
        """As ``Guard.call``."""
        self._calls_before = self.calls
        self.interrupted = 0
        before = signal.signal(signal.SIGVTALRM, self._interrupt)
        signal.setitimer(signal.ITIMER_VIRTUAL, milliseconds / 1000, milliseconds / 1000)
        try:
            result = function(*arguments)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, before)
        if self.interrupted:
            raise TimeoutError(_TOO_LONG)
        return result

    def _interrupt(self, _signum: int, _frame: types.FrameType | None) -> None:
        if self.calls == self._calls_before:
            self.interrupted += 1
            raise TimeoutError(_TOO_LONG)
        self._calls_before = self.calls


def load(transcript: Transcript) -> type[AbstractPop3Proxy]:
    """The policy class that a transcript is played with."""
    if transcript.inline:
        return compiled(transcript.policy, transcript.path)
    module, _, name = transcript.policy.partition(":")
    found = getattr(importlib.import_module(module), name)
    assert isinstance(found, type)
    assert issubclass(found, AbstractPop3Proxy)
    return found


def compiled(source: str, path: Path) -> type[AbstractPop3Proxy]:
    """The class ``Policy`` of a policy module's source; ``hashlib`` is there unasked, as Example 4.16 wants it."""
    namespace: dict[str, object] = {"hashlib": hashlib, "__name__": f"scenario_{path.stem}"}
    exec(compile(source, str(path), "exec"), namespace)
    found = namespace["Policy"]
    assert isinstance(found, type)
    assert issubclass(found, AbstractPop3Proxy)
    return found


class Onlooker:
    """What the relay knows of a session, at which it looks only where that says that it has changed, or moved."""

    def __init__(self) -> None:
        self._wanted: tuple[object, ...] = ()
        self._due: float | None = None
        self._stands: tuple[object, object] | None = None

    def look(self, session: Session) -> None:
        """As after each input; where it need not look, nothing may be another than it was."""
        wanted: tuple[object, ...] = (session.over, session.reads_client, session.reads_server, session.tls_wanted)
        wanted += (session.wants_server, session.logins_failed, bool(session.callback_failures))
        stands, due = (session.state, session.user), session.deadline
        if session.changed:
            session.changed = False
        else:
            assert wanted == self._wanted, "it has changed without a word"
            assert due is None or (self._due is not None and due >= self._due), "a deadline that nobody looks for"
        self._wanted, self._due = wanted, due
        if session.moved:
            session.moved = False
        else:
            assert stands == self._stands, "it has moved without a word"
        self._stands = stands


class Stage:
    """A session with its two peers played by the test; what each hears is collected."""

    def __init__(
        self, policy: type[AbstractPop3Proxy], split: Split = whole, session_class: type[Session] = Session
    ) -> None:
        self.journal = RecordingJournal()
        self.session = session_class(policy, facts=FACTS, journal=self.journal, guard=ProcessorTimeGuard())
        self.heard = {Side.CLIENT: bytearray(), Side.SERVER: bytearray()}
        self._split = split
        self._now_ms = START_MS
        self._pending: dict[Side, deque[bytes | None]] = {side: deque() for side in Side}
        self._relay = Onlooker()

    @property
    def now(self) -> float:
        """The time in seconds."""
        return self._now_ms / 1000

    def open(self) -> None:
        """The session starts and its server is connected."""
        self.session.start(self.now)
        self._collect()
        if not self.session.over:
            self.session.connected(self.now, SERVER_ADDRESS, SERVER_PORT)
            self._settle()

    def open_without_server(self, reason: str) -> None:
        """The session starts and its server can't be connected."""
        self.session.start(self.now)
        self.session.connect_failed(reason, self.now)
        self._settle()

    def says(self, side: Side, data: bytes) -> None:
        """A side sends, cut up as the stage was told."""
        self._pending[side].extend(self._split(data))
        self._settle()

    def closes(self, side: Side) -> None:
        """A side sends no more."""
        self._pending[side].append(EOF)
        self._settle()

    def vanishes(self) -> None:
        """The client's connection breaks."""
        self._pending[Side.CLIENT].clear()
        if not self.session.over:
            self.session.client_lost("Connection reset by peer", self.now)
        self._settle()

    def passes(self, ms: int) -> None:
        """Time passes; the session is woken whenever it asked to be."""
        until = self._now_ms + ms
        woken = 0
        while not self.session.over and self.session.deadline is not None:
            due = max(self._now_ms, round(self.session.deadline * 1000))
            if due > until:
                break
            woken = woken + 1 if due == self._now_ms else 0
            if woken > 100:
                raise StuckError(f"woken 100 times at {due} ms")
            self._now_ms = due
            self.session.expire(self.now)
            self.session.changed = True  # as the relay does it: the next deadline is to be looked for
            self._settle()
        self._now_ms = until

    def take(self, side: Side) -> bytes:
        """What the side has heard since it was asked last."""
        heard = bytes(self.heard[side])
        self.heard[side].clear()
        return heard

    def _collect(self) -> None:
        for side, output in (
            (Side.CLIENT, self.session.to_client),
            (Side.SERVER, self.session.to_server),
        ):
            self.heard[side] += b"".join(output)
            output.clear()
        self.look()

    def look(self) -> None:
        """The relay looks at the session, if it is to."""
        self._relay.look(self.session)

    def _feed(self, side: Side) -> bool:
        """Give the session the next piece of a side's bytes, if it reads that side and there is one."""
        client = side is Side.CLIENT
        reads = self.session.reads_client if client else self.session.reads_server
        if self.session.over or not reads or not self._pending[side]:
            return False
        piece = self._pending[side].popleft()
        if piece is EOF:
            (self.session.client_eof if client else self.session.server_eof)(self.now)
        else:
            (self.session.client_data if client else self.session.server_data)(piece, self.now)
        return True

    def _settle(self) -> None:
        self._collect()
        while self._feed(Side.CLIENT) or self._feed(Side.SERVER):
            self._collect()


class MismatchError(AssertionError):
    """A side heard something else than the transcript says."""


def _joined(steps: Iterable[Step]) -> Iterator[Step]:
    """The steps, what a side says in one go as one, what a side hears in one go as one."""
    held: Says | Hears | None = None
    for step in steps:
        if isinstance(held, Says) and isinstance(step, Says) and held.side is step.side:
            held = Says(held.side, held.data + step.data)
        elif isinstance(held, Hears) and isinstance(step, Hears) and held.side is step.side:
            both = None if held.literal is None or step.literal is None else held.literal + step.literal
            held = Hears(held.side, held.pattern + step.pattern, both)
        else:
            if held is not None:
                yield held
            held = step if isinstance(step, Says | Hears) else None
            if held is None:
                yield step
    if held is not None:
        yield held


def _compare(stage: Stage, step: Hears) -> None:
    heard = stage.take(step.side)
    if not re.fullmatch(step.pattern, heard):
        wanted = step.pattern if step.literal is None else step.literal
        raise MismatchError(f"{step.side.name.lower()} heard {heard!r}, not {wanted!r}")


def _nothing_more(stage: Stage) -> None:
    for side in Side:
        if heard := stage.take(side):
            raise MismatchError(f"{side.name.lower()} heard {heard!r}, of which nothing is told")


def _ended(stage: Stage, how: str) -> None:
    _nothing_more(stage)
    if not stage.session.over:
        raise MismatchError("the session is still open")
    ending, by = stage.session.ending, stage.session.ended_by
    assert ending is not None
    assert by is not None
    if how and how != f"{ending.value} by {by.value}":
        raise MismatchError(f"it ended: {ending.value} by {by.value}, not {how}")


def _logged(stage: Stage, step: Logged) -> None:
    if (step.text in stage.journal.text) is not step.present:
        wanted = "lacks" if step.present else "has"
        raise MismatchError(f"the log {wanted} {step.text!r}:\n{stage.journal.text}")


def _summed(stage: Stage, step: Summed) -> None:
    value = getattr(stage.session, step.field)
    if str(value) != step.value:
        raise MismatchError(f"the summary says {step.field} {value}, not {step.value}")


def _take_step(stage: Stage, step: Step) -> None:
    match step:
        case Says():
            if stage.session.over:
                raise MismatchError(f"the session is over before {step.data[:80]!r} is said")
            stage.says(step.side, step.data)
        case Hears():
            _compare(stage, step)
        case Closes():
            stage.closes(step.side)
        case Vanishes():
            stage.vanishes()
        case Passes():
            stage.passes(step.ms)
        case Ends():
            _ended(stage, step.how)
        case Logged():
            _logged(stage, step)
        case Summed():
            _summed(stage, step)
        case ConnectFails():
            raise AssertionError("a connection can only fail at the start")


def play(conversation: Conversation, policy: type[AbstractPop3Proxy], split: Split = whole) -> Stage:
    """Play a conversation; raises MismatchError where it goes otherwise than told. The stage is as it was left."""
    stage = Stage(policy, split)
    steps = list(_joined(conversation.steps))
    if isinstance(first := steps[0], ConnectFails):
        stage.open_without_server(first.reason)
        del steps[0]
    else:
        stage.open()
    heard_last = True
    for step in steps:
        if isinstance(step, Says | Closes | Vanishes | Passes) and heard_last:
            _nothing_more(stage)
        heard_last = not isinstance(step, Says | Closes | Vanishes | Passes)
        _take_step(stage, step)
    _nothing_more(stage)
    if not any(isinstance(step, Ends) for step in steps) and stage.session.over:
        raise MismatchError(f"the session is over: {stage.session.ending} by {stage.session.ended_by}")
    return stage
