"""What must not stand in a log as it is: characters that are not printable, and secrets.

Pure text to text. Known limits: a secret that a policy has transformed (reversed, hashed, base64) is not recognised;
one of up to three characters is hidden only where it stands by itself, not within a longer word - replaced
everywhere it would tear all other words apart, and the gaps would spell it out. A session that has named more secrets
than are kept (``_ROOM``) shows no text at all any more: a client that may send what it likes must not fill the memory.
"""

from __future__ import annotations

from typing import Final

HIDDEN: Final = "***"
_TOO_MANY: Final = f"{HIDDEN} (the session has named more secrets than a text is searched for)"
_SHORT: Final = 3
_ROOM: Final = 1 << 18  # characters of the secrets of one session
_NAMED: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # an octet of the wire that was no UTF-8, as surrogateescape keeps it
        return f"\\x{code - 0xDC00:02x}"
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def escaped(text: str) -> str:
    """The text in one printable line: controls, line separators, direction marks, surrogates as escapes."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else _NAMED.get(character) or _escape(character) for character in text
    )


class Secrets:
    """The secrets of one session, and texts without them."""

    __slots__ = ("_room", "_spelled", "_spellings", "_texts")

    def __init__(self) -> None:
        self._texts: dict[str, None] = {}  # a set in the order in which they came
        self._spelled = 0  # so many of them have their spellings in the next
        self._spellings: list[str] = []  # longest first
        self._room = _ROOM

    def add(self, text: str) -> None:
        """Hide this text from now on. Cheap: most sessions never log a line that is searched."""
        if text and text not in self._texts and self._room >= 0:
            self._texts[text] = None
            self._room -= len(text)

    def redacted(self, text: str) -> str:
        """The text with each spelling of each secret hidden."""
        if self._room < 0:
            return _TOO_MANY
        if self._spelled < len(self._texts):
            new = {spelling for secret in list(self._texts)[self._spelled :] for spelling in _spellings(secret)}
            self._spelled = len(self._texts)
            self._spellings = sorted([*self._spellings, *new], key=len, reverse=True)
        for spelling in self._spellings:
            if spelling in text:
                text = text.replace(spelling, HIDDEN) if len(spelling) > _SHORT else _hide_alone(text, spelling)
        return text


def _spellings(secret: str) -> set[str]:
    """As it is, and as Python and this log write it: repr of the text and of its octets, with either quote."""
    octets = secret.encode("utf-8", "surrogateescape" if _is_wire(secret) else "surrogatepass")
    plain = {secret, repr(secret)[1:-1], ascii(secret)[1:-1], repr(octets)[2:-1], escaped(secret)}
    quoted = {spelling.replace("\\'", "'").replace("'", "\\'") for spelling in plain}
    return plain | quoted


def _is_wire(text: str) -> bool:
    """Whether its surrogates, if any, are all octets that surrogateescape kept."""
    return not any(0xD800 <= ord(character) <= 0xDFFF and not 0xDC80 <= ord(character) <= 0xDCFF for character in text)


def _hide_alone(text: str, word: str) -> str:
    """Hide the word where neither neighbour is a letter or a digit."""
    parts: list[str] = []
    start = 0
    while (at := text.find(word, start)) >= 0:
        end = at + len(word)
        alone = not (text[at - 1 : at].isalnum() or text[end : end + 1].isalnum())
        parts += [text[start:at], HIDDEN if alone else word]
        start = end
    return "".join([*parts, text[start:]])
