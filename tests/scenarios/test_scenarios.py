"""Every transcript, played against ``Session`` whole, byte by byte and split at random; and every rule has one.

Limits: what a transcript leaves open with ``{...}`` is only compared between the ways of cutting the bytes up.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator

import pytest

from pop3gw.checking import faults
from tests.scenarios.player import MismatchError, Split, byte_by_byte, load, play, whole
from tests.scenarios.transcript import (
    MAN_PAGE,
    Conversation,
    Stage,
    Transcript,
    all_transcripts,
    man_examples,
    man_rules,
)

TRANSCRIPTS = all_transcripts()
CONVERSATIONS = [
    pytest.param(transcript, conversation, id=f"{transcript.path.stem}: {conversation.title}")
    for transcript in TRANSCRIPTS
    if transcript.only is not Stage.SOCKETS
    for conversation in transcript.conversations
]
CHECKED = [pytest.param(transcript, id=transcript.path.stem) for transcript in TRANSCRIPTS if transcript.check]


def at_random(seed: str) -> Split:
    """Cut at random, the same way each time for the same seed."""
    dice = random.Random(zlib.crc32(seed.encode()))

    def split(data: bytes) -> Iterator[bytes]:
        longest = max(2, len(data) // 64) if len(data) > 1 << 12 else 7
        while data:
            size = dice.randint(1, longest)
            yield data[:size]
            data = data[size:]

    return split


@pytest.mark.parametrize(("transcript", "conversation"), CONVERSATIONS)
@pytest.mark.parametrize("cut", ["whole", "byte by byte", "at random"])
def test_goes_as_told(transcript: Transcript, conversation: Conversation, cut: str) -> None:
    splits = {
        "whole": whole,
        "byte by byte": byte_by_byte,
        "at random": at_random(transcript.path.stem + conversation.title),
    }
    try:
        play(conversation, load(transcript), splits[cut])
    except MismatchError as mismatch:
        pytest.fail(f"{transcript.path.name}:{conversation.line}, {cut}: {mismatch}", pytrace=False)


@pytest.mark.parametrize("transcript", CHECKED)
def test_check_finds_it(transcript: Transcript) -> None:
    assert transcript.check is not None
    assert any(transcript.check in fault for fault in faults(load(transcript)()))


def test_every_rule_has_a_file_and_every_file_a_rule() -> None:
    rules, shown = set(man_rules()), {transcript.rule for transcript in TRANSCRIPTS}
    assert sorted(rules - shown) == [], f"rules of {MAN_PAGE.name} without a file in tests/scenarios/rules"
    assert sorted(shown - rules) == [], f"files without a rule in {MAN_PAGE.name}"
    assert sorted(rules) == list(range(1, len(rules) + 1))


def test_every_file_plays_or_checks_something() -> None:
    assert [t.path.name for t in TRANSCRIPTS if not t.conversations and not t.check] == []


def test_every_example_of_the_man_page_is_played() -> None:
    played = {transcript.policy for transcript in TRANSCRIPTS if transcript.inline}
    unused = [name for name, source in man_examples().items() if not any(p.startswith(source) for p in played)]
    assert man_examples()
    assert unused == []
