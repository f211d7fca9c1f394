"""JSON by orjson, plus the one canonical form that fingerprints are taken of."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import orjson

dumps = orjson.dumps
loads = orjson.loads
JSONDecodeError = orjson.JSONDecodeError


def text(value: Any) -> str:
    """Compact JSON as str."""
    return orjson.dumps(value).decode()


DEEPEST = 200
"""Levels of an answer's JSON. orjson reads 1,024 and writes 254, and results and stores put some around it."""


def is_too_deep(value: Any) -> bool:
    """Whether parsed JSON is nested deeper than `DEEPEST`, and could not be written down again."""
    level = [value]
    for _ in range(DEEPEST):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner += one.values()
            elif isinstance(one, list | tuple):
                inner += one
        if not inner:
            return False
        level = inner
    return any(isinstance(one, dict | list | tuple) for one in level)


def _normal(value: Any) -> Any:
    # 0 and 0.0 are the same parameter but different JSON. Fingerprints rest on this form: never change it.
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, dict):
        return {str(key): _normal(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_normal(item) for item in value]
    return value


def canonical(value: Any) -> bytes:
    """Sorted, compact JSON in which equal numbers look equal."""
    return orjson.dumps(_normal(value), option=orjson.OPT_SORT_KEYS)


def digest(value: Any) -> str:
    """sha256 (hex) of the canonical form."""
    return sha256(canonical(value)).hexdigest()
