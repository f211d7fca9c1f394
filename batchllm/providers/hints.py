"""What response headers say of the account's limits (`x-ratelimit-*`), once per reply.

The trap: the same names carry Go durations at OpenAI and plain seconds at Azure; -1, a limit of 0 and garbage mean "not said" and never "nothing left".
Groq counts requests per day under the same names: whoever uses a hint learns the window from limit, remaining and reset (protocols G), not from the name.
Together's per-second headers have other names and are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from batchllm.core.nouns import LimitHint
from batchllm.providers.waits import go_seconds

_NAMES: tuple[tuple[Literal["requests", "tokens"], tuple[tuple[str, str, str], ...]], ...] = (
    (
        "requests",
        (
            ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
            ("x-ratelimit-limit-req-minute", "x-ratelimit-remaining-req-minute", ""),  # Mistral
            ("x-ratelimit-api_key-limit-requests", "x-ratelimit-api_key-remaining-requests", ""),  # LiteLLM's own keys
        ),
    ),
    (
        "tokens",
        (
            ("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
            ("x-ratelimit-limit-tokens-minute", "x-ratelimit-remaining-tokens-minute", ""),
            ("x-ratelimit-api_key-limit-tokens", "x-ratelimit-api_key-remaining-tokens", ""),
        ),
    ),
)
_PROJECT = ("x-ratelimit-limit-project-tokens", "x-ratelimit-remaining-project-tokens", "x-ratelimit-reset-project-tokens")


def _count(text: str | None) -> int | None:
    """A count of 0 or more; None for -1, garbage and what is absent."""
    if not text:
        return None
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def _hint(dimension: Literal["requests", "tokens"], names: tuple[str, str, str], headers: Mapping[str, str]) -> LimitHint | None:
    said = headers.get(names[0])
    limit = _count(said)
    remaining = _count(headers.get(names[1]))
    # A limit that is said but useless (-1, 0, garbage) spoils its dimension: Azure sends -1 with a remaining of 0.
    if (said is not None and not limit) or (limit is None and remaining is None):
        return None
    return LimitHint(dimension=dimension, limit=limit, remaining=remaining, reset_seconds=go_seconds(headers.get(names[2])) if names[2] else None)


def limit_hints(headers: Mapping[str, str]) -> tuple[LimitHint, ...]:
    """At most one hint per dimension. Where a project has a token limit of its own beside the model's, the smaller limit is the one told."""
    hints: list[LimitHint] = []
    for dimension, spellings in _NAMES:
        for names in spellings:
            hint = _hint(dimension, names, headers)
            if hint is not None:
                hints.append(hint)
                break
    if _PROJECT[0] in headers:
        project = _hint("tokens", _PROJECT, headers)
        if project is not None and project.limit is not None:
            own = next((hint for hint in hints if hint.dimension == "tokens"), None)
            if own is None or own.limit is None or project.limit < own.limit:
                hints = [hint for hint in hints if hint is not own] + [project]
    return tuple(hints)
