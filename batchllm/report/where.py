"""A condition that met no row, and what it may have meant: `parsed` is JSON, so a label in it wears quotes of its own."""

from __future__ import annotations

import re

_BARE = re.compile(r"""\bparsed\s*(?:=|==|!=|<>|is|like|in\s*\()\s*'(?![\s"\[{]|true'|false'|null'|-?\d)[^']*'""", re.IGNORECASE)


def where_hint(where: str | None) -> str | None:
    """How to compare `parsed` with a word; None where the condition doesn't try to."""
    if where is None or (found := _BARE.search(where)) is None:
        return None
    said = found[0]
    return f"`parsed` is JSON, in which a text has quotes: write json_extract(parsed, '$'){said[len('parsed') :]} instead of {said}"
