"""What must not stand in a log as it is: characters that are not printable, and secrets.

Pure text to text. In base64 a secret is found by itself and within more (the response of PLAIN, say), all of which is
hidden then; so is its MD5 in hexadecimal. Known limits: one that is transformed otherwise (reversed, another digest,
base64 in lines or twice) is not recognised; one of up to three characters is hidden only where it stands by itself, or
its base64 does, not within a longer word - replaced everywhere it would tear all other words apart, and the gaps would
spell it out. A session that has named more secrets than are kept (``_ROOM``) shows no text at all any more: a client
that may send what it likes must not fill the memory.
"""

from __future__ import annotations

import binascii
import re
from typing import Final

HIDDEN: Final = "***"
_TOO_MANY: Final = f"{HIDDEN} (the session has named more secrets than a text is searched for)"
_SHORT: Final = 3
_ROOM: Final = 1 << 18  # characters of the secrets of one session
_EACH: Final = 1 << 10  # what a secret takes of it besides: each text is searched for each of them
_BASE64: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"
_REST: Final = re.compile(r"[A-Za-z0-9+/_-]*=*")
_URL_SAFE: Final = str.maketrans("+/", "-_")
_DIGEST: Final = re.compile(r"[0-9A-Fa-f]{32}")
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

    __slots__ = ("_cores", "_digests", "_room", "_spelled", "_spellings", "_texts")

    def __init__(self) -> None:
        self._texts: dict[str, None] = {}  # a set in the order in which they came
        self._spelled = 0  # so many of them have their spellings in the next two
        self._spellings: list[str] = []  # longest first
        self._cores: tuple[str, ...] = ()  # in base64 (see below)
        self._digests: tuple[str, ...] = ()  # of the first so many
        self._room = _ROOM

    def add(self, text: str) -> None:
        """Hide this text from now on. Cheap: most sessions never log a line that is searched."""
        if text and text not in self._texts and self._room >= 0:
            self._texts[text] = None
            self._room -= len(text) + _EACH

    def redacted(self, text: str) -> str:
        """The text with each spelling of each secret hidden."""
        if self._room < 0:
            return _TOO_MANY
        self._spell()
        if _DIGEST.search(text) is not None:
            text = self._without_digests(text)
        # Before the others: base64 that one of them had torn apart would not be found.
        for core in self._cores:
            if core in text:
                text = _hide_around(text, core)
        for spelling in self._spellings:
            if spelling in text:
                text = text.replace(spelling, HIDDEN) if len(spelling) > _SHORT else _hide_alone(text, spelling)
        return text

    def _spell(self) -> None:
        if self._spelled == len(self._texts):
            return
        cores: set[str] = set()
        spellings: set[str] = set()
        for secret in list(self._texts)[self._spelled :]:
            octets = _octets(secret)
            cores |= _cores(octets)
            spellings |= _spellings(secret, octets)
        self._spelled = len(self._texts)
        self._cores = (*self._cores, *cores)
        self._spellings = sorted([*self._spellings, *spellings], key=len, reverse=True)

    def _without_digests(self, text: str) -> str:
        from hashlib import md5  # takes OpenSSL with it, and hardly any text gets here

        new = list(self._texts)[len(self._digests) :]
        self._digests = (*self._digests, *(md5(_octets(one), usedforsecurity=False).hexdigest() for one in new))
        for digest in self._digests:
            text = text.replace(digest, HIDDEN).replace(digest.upper(), HIDDEN)
        return text


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape" if _is_wire(text) else "surrogatepass")


def _spellings(secret: str, octets: bytes) -> set[str]:
    """As it is, and as Python and this log write it: repr of the text and of its octets, with either quote."""
    plain = {secret, repr(secret)[1:-1], ascii(secret)[1:-1], repr(octets)[2:-1], escaped(secret)}
    quoted = {spelling.replace("\\'", "'").replace("'", "\\'") for spelling in plain}
    if len(octets) <= _SHORT:  # by itself only: within more it has too few characters that are always the same
        encoded = _base64(octets)
        quoted |= {encoded, encoded.rstrip("=")}
    return plain | quoted


def _cores(octets: bytes) -> set[str]:
    """What any base64 that holds these octets has one of: the characters that no octet beside them has a part in."""
    cores: set[str] = set()
    if len(octets) > _SHORT:
        for before in range(3):
            core = _base64(bytes(before) + octets)[(before * 8 + 5) // 6 : (before + len(octets)) * 8 // 6]
            cores |= {core, core.translate(_URL_SAFE)}
    return cores


def _base64(octets: bytes) -> str:
    return binascii.b2a_base64(octets, newline=False).decode("ascii")


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


def _hide_around(text: str, core: str) -> str:
    """Hide each word in base64 that holds this."""
    parts: list[str] = []
    start = 0
    while (at := text.find(core, start)) >= 0:
        parts += [text[start:at].rstrip(_BASE64), HIDDEN]
        rest = _REST.match(text, at + len(core))
        start = at + len(core) if rest is None else rest.end()
    return "".join([*parts, text[start:]])
