"""Where each section and key of an INI file stands: ConfigObj drops the line numbers of what it has read.

Pure, and no second parser: it follows ConfigObj's rules for sections, keys and triple quotes only as far as a
well-formed file needs. What ConfigObj refuses carries a line number of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_SECTION = re.compile(r"""\s*((?:\[\s*)+)("[^"]+"|'[^']+'|[^'"\s].*?)\s*((?:\]\s*)+)(?:\#.*)?$""")
_KEY = re.compile(r"""\s*("[^"]*"|'[^']*'|[^'"=].*?)\s*=\s*(.*)$""")


def _bare(name: str) -> str:
    return name[1:-1] if len(name) > 1 and name[0] == name[-1] and name[0] in "\"'" else name


def line_numbers(lines: Sequence[str]) -> dict[tuple[str, ...], int]:
    """Map each path (section, subsection, ..., key) to its line, counted from 1; a section's path ends with itself."""
    found: dict[tuple[str, ...], int] = {}
    section: tuple[str, ...] = ()
    closing = ""  # the triple quote that an open multiline value waits for
    for number, line in enumerate(lines, start=1):
        if closing:
            closing = "" if closing in line else closing
            continue
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if mark := _SECTION.match(line):
            depth = mark[1].count("[")
            section = (*section[: depth - 1], _bare(mark[2]))
            found.setdefault(section, number)
        elif key := _KEY.match(line):
            found.setdefault((*section, _bare(key[1])), number)
            quote = key[2][:3]
            if quote in ('"""', "'''") and quote not in key[2][3:]:
                closing = quote
    return found
