"""What an input of embeddings costs in tokens: its text alone, without the frame of a chat.

The trap is what servers put around it: start and end marks, and for some models a fixed instruction. OpenAI's own models have none; for others the bound leaves room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchllm.tokens.counters import Counter

_AROUND = 2
"""Start and end."""
_MOST_AROUND = 64
"""With an instruction before the text."""


def of_embedding(counter: Counter, messages: Sequence[Mapping[str, Any]]) -> tuple[int, int | None]:
    """(estimate, bound) of one input. What isn't text has the count of a chat: no wire embeds it."""
    texts = [message.get("content") for message in messages]
    if not all(isinstance(text, str) for text in texts):
        return counter.both(messages, {})
    text = "\n\n".join(str(text) for text in texts)
    tokens = counter.text(text)
    if counter.exact:
        return tokens, tokens + _AROUND
    return tokens + _AROUND, len(text.encode(errors="replace")) + _MOST_AROUND
