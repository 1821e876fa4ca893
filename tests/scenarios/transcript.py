"""Transcripts: what each side says and hears in a session, in files that a person can read. FORMAT.md describes them.

This module reads a file into frozen steps. It must not know how they are played: ``player`` plays them against a
``Session``, ``test_sockets`` over real sockets.
"""

from __future__ import annotations

import base64
import enum
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).with_name("rules")
MAN_PAGE = ROOT / "man" / "pop3gw-policy.7"

FILE_NAME = re.compile(r"R(\d+)-[a-z0-9-]+\.txt")


class Side(enum.Enum):
    """The two ends of the conversation."""

    CLIENT = "C"
    SERVER = "S"


class Stage(enum.Enum):
    """Where a file can be played."""

    SESSION = "session"
    SOCKETS = "sockets"


@dataclass(frozen=True, slots=True)
class Says:
    """A side sends these bytes."""

    side: Side
    data: bytes


@dataclass(frozen=True, slots=True)
class Hears:
    """A side receives what this pattern matches, and nothing else. ``literal`` is None where it has wildcards."""

    side: Side
    pattern: bytes
    literal: bytes | None


@dataclass(frozen=True, slots=True)
class Closes:
    """A side sends no more (half-close)."""

    side: Side


@dataclass(frozen=True, slots=True)
class Vanishes:
    """The client's connection breaks."""


@dataclass(frozen=True, slots=True)
class ConnectFails:
    """The server can't be reached."""

    reason: str


@dataclass(frozen=True, slots=True)
class Passes:
    """Time passes, in milliseconds."""

    ms: int


@dataclass(frozen=True, slots=True)
class Ends:
    """The session is over: both sides see their connection closed. ``how``: "ENDING by SIDE", "" where not told."""

    how: str


@dataclass(frozen=True, slots=True)
class Logged:
    """The journal has, or lacks, this text once its secrets are redacted."""

    present: bool
    text: str


@dataclass(frozen=True, slots=True)
class Summed:
    """A field of the summary has this value (as text)."""

    field: str
    value: str


Step = Says | Hears | Closes | Vanishes | ConnectFails | Passes | Ends | Logged | Summed


@dataclass(frozen=True, slots=True)
class Conversation:
    """One session from its start."""

    title: str
    line: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Transcript:
    """One file. ``policy`` is the source of a module with a class ``Policy``, or "MODULE:CLASS"."""

    path: Path
    rule: int
    about: str
    policy: str
    inline: bool
    only: Stage | None
    check: str | None
    conversations: tuple[Conversation, ...]


class TranscriptError(Exception):
    """The file is no transcript; the text says where."""


_GREETING = ("S> +OK ready", ">C +OK ready")
_SHORTHAND = {
    "greeting": _GREETING,
    "login": (
        *_GREETING,
        *("C> USER alice", ">S USER alice", "S> +OK", ">C +OK"),
        *("C> PASS hunter2", ">S PASS hunter2", "S> +OK in", ">C +OK in"),
    ),
}
_ESCAPES = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\", "{": b"{"}
_TOKEN = re.compile(
    r"\\x(?P<hex>[0-9a-fA-F]{2})|\\(?P<escape>[rnt0\\{])"
    r"|\{(?P<anything>anything)\}|\{(?P<rest>\.\.\.)\}"
    r"|\{base64:(?P<base64>[^}]*)\}|\{(?P<repeated>[^}]+)\*(?P<times>\d+)\}"
    r"|(?P<bad>[\\{])|(?P<plain>[^\\{]+)"
)
_WILDCARDS = {"anything": rb"(?s:.*)", "rest": rb"[^\r\n]*"}
_TIME = re.compile(r"time passes (\d+) (ms|s)")


def _pieces(text: str) -> list[bytes | str]:
    """The bytes of a line, and the names of the wildcards between them."""
    pieces: list[bytes | str] = []
    for token in _TOKEN.finditer(text):
        kind, value = token.lastgroup, token.group()
        if kind == "hex":
            pieces.append(bytes.fromhex(value[2:]))
        elif kind == "escape":
            pieces.append(_ESCAPES[value[1]])
        elif kind in _WILDCARDS:
            pieces.append(kind)
        elif kind == "base64":
            pieces.append(base64.b64encode(_literal(token["base64"])))
        elif kind == "times":
            pieces.append(_literal(token["repeated"]) * int(token["times"]))
        elif kind == "plain":
            pieces.append(value.encode())
        else:
            raise TranscriptError(f"stray {value!r} in {text!r}")
    return pieces


def _literal(text: str) -> bytes:
    pieces = _pieces(text)
    if any(isinstance(piece, str) for piece in pieces):
        raise TranscriptError(f"a wildcard can't be said: {text!r}")
    return b"".join(piece for piece in pieces if isinstance(piece, bytes))


def _with_line_end(text: str) -> tuple[str, bytes]:
    return (text[:-2], b"") if text.endswith("\\c") else (text, b"\r\n")


def _says(side: Side, text: str) -> Says:
    text, line_end = _with_line_end(text)
    return Says(side, _literal(text) + line_end)


def _hears(side: Side, text: str) -> Hears:
    text, line_end = _with_line_end(text)
    pieces = [*_pieces(text), line_end]
    pattern = b"".join(re.escape(p) if isinstance(p, bytes) else _WILDCARDS[p] for p in pieces)
    plain = [piece for piece in pieces if isinstance(piece, bytes)]
    return Hears(side, pattern, b"".join(plain) if len(plain) == len(pieces) else None)


def _step(line: str) -> Step:
    head, _, text = line.partition(" ")
    if re.fullmatch("[CS]>", head):
        return _says(Side(head[0]), text)
    if re.fullmatch(">[CS]", head):
        return _hears(Side(head[1]), text)
    if line in ("C closes", "S closes"):
        return Closes(Side(line[0]))
    if line == "C vanishes":
        return Vanishes()
    if line.startswith("connect fails "):
        return ConnectFails(line.removeprefix("connect fails "))
    if found := _TIME.fullmatch(line):
        return Passes(int(found[1]) * (1000 if found[2] == "s" else 1))
    if head in ("end", "end:"):
        return Ends(text)
    if found := re.fullmatch("log (has|lacks) (.+)", line):
        return Logged(found[1] == "has", found[2])
    if found := re.fullmatch(r"summary (\w+) (.+)", line):
        return Summed(found[1], found[2])
    raise TranscriptError(f"what is {line!r}?")


def man_examples() -> dict[str, str]:
    """The policy modules printed in the man page, by name (the markers are roff comments)."""
    examples = {}
    blocks = re.finditer(r'^\.\\" BEGIN POLICY (\S+)\n(.*?)^\.\\" END POLICY\n', MAN_PAGE.read_text(), re.M | re.S)
    for block in blocks:
        code = [line for line in block[2].splitlines() if not line.startswith(".")]
        plain = "\n".join(line.removeprefix("\\&").replace("\\-", "-") for line in code)
        examples[block[1]] = plain.replace("\\(aq", "'").replace("\\e", "\\") + "\n"
    return examples


def man_rules() -> dict[int, str]:
    """The numbered rules of the man page: number to the line of the page that opens it."""
    opened = re.finditer(r"^\.B R(\d+)\n(.+)$", MAN_PAGE.read_text(), re.M)
    rules: dict[int, str] = {}
    for rule in opened:
        if int(rule[1]) in rules:
            raise TranscriptError(f"rule R{rule[1]} stands twice in {MAN_PAGE.name}")
        rules[int(rule[1])] = rule[2]
    return rules


def _policy(header: str, block: str) -> tuple[str, bool]:
    """The policy as source or as MODULE:CLASS, and whether it is source."""
    named = header.removeprefix("policy").strip()
    if named.startswith("man:"):
        example = named.removeprefix("man:")
        return man_examples()[example] + f"\nPolicy = {example}\n", True
    if named:
        return named, False
    source = textwrap.dedent(block)
    if "import *" not in source:
        source = "from pop3gw.policy import *\n" + source
    return source, True


def _expanded(lines: list[tuple[int, str]]) -> list[tuple[int, str]]:
    return [(at, each) for at, line in lines for each in _SHORTHAND.get(line, (line,))]


def _conversation(title: str, at: int, lines: list[tuple[int, str]], path: Path) -> Conversation:
    steps: list[Step] = []
    for number, line in _expanded(lines):
        try:
            steps.append(_step(line))
        except TranscriptError as error:
            raise TranscriptError(f"{path.name}:{number}: {error}") from None
    return Conversation(title, at, tuple(steps))


def read(path: Path) -> Transcript:
    """Read one transcript. Raises TranscriptError, with file and line, where the file is none."""
    named = FILE_NAME.fullmatch(path.name)
    if not named:
        raise TranscriptError(f"{path.name}: the name is R<number>-<words>.txt")
    header, *rest = re.split(r"^== ", path.read_text(), flags=re.M)
    about = header.splitlines()[0]
    if not about.startswith(f"R{named[1]}: "):
        raise TranscriptError(f"{path.name}:1: it opens with 'R{named[1]}: ...'")
    found = re.search(r"^(policy\b.*)\n((?:(?: .*)?\n)*)", header, re.M)
    policy, inline = _policy(found[1], found[2]) if found else ("pop3gw.policy:Pop3Proxy", False)
    only = re.search(r"^only (session|sockets): .+$", header, re.M)
    check = re.search(r"^check finds (.+)$", header, re.M)
    conversations = []
    at = header.count("\n") + 1
    for part in rest:
        title, *lines = part.splitlines()
        numbered = [
            (at + offset, line)
            for offset, line in enumerate(lines, start=1)
            if line.strip() and not line.startswith("#")
        ]
        conversations.append(_conversation(title, at, numbered, path))
        at += part.count("\n")
    return Transcript(
        path,
        int(named[1]),
        about,
        policy,
        inline,
        Stage(only[1]) if only else None,
        check[1] if check else None,
        tuple(conversations),
    )


def all_transcripts() -> list[Transcript]:
    """Every file of the folder, in the order of the rules."""
    found = [read(path) for path in sorted(FOLDER.glob("*.txt"))]
    return sorted(found, key=lambda transcript: transcript.rule)
