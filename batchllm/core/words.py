"""The fixed, versioned token estimate: what `tokens` means in a route's rule, and the simulator's own tokenizer.

It never changes with installed vocabularies, so a route decides the same on every machine. It is not what money is reserved by: see `tokens/`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

VERSION = 1

# Words are cut every 6 letters, digits every 3; every other visible character and every letter outside of Latin scripts counts one.
_PIECE = re.compile(r"[A-Za-z\u00c0-\u024f]{1,6}|[0-9]{1,3}|[^\sA-Za-z0-9\u00c0-\u024f]")


def count_text(text: str) -> int:
    """Tokens of a text by the fixed estimate."""
    return len(_PIECE.findall(text))


def count_messages(messages: Sequence[Mapping[str, Any]]) -> int:
    """Tokens of a chat prompt by the fixed estimate: 4 a message for its frame, 3 for the reply's start."""
    total = 3
    for message in messages:
        total += 4
        content = message.get("content")
        if isinstance(content, str):
            total += count_text(content)
        elif isinstance(content, list):
            for part in content:
                if isinstance(part, dict):
                    text = part.get("text")
                    total += count_text(text) if isinstance(text, str) else 85
    return total
