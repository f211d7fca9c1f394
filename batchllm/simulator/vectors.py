"""Embeddings from a hash: the same text always gets the same vector, another text another one.

A shorter vector is the start of the longer one, brought to unit length again, as models with adjustable size do it. They are kept as float32 bytes, so that the
base64 form and the list of floats say exactly the same.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from hashlib import shake_256

DEFAULT_SIZE = 256
_SIZES = {
    "text-embedding-3-large": 3072,
    "text-embedding-3-small": 1536,
    "text-embedding-ada-002": 1536,
    "gemini-embedding-001": 3072,
    "gemini-embedding-2": 3072,
}


def size_of(model: str) -> int:
    """Length of a model's vectors when nobody asks for another."""
    return _SIZES.get(model, DEFAULT_SIZE)


def embed(seed: int, model: str, texts: Sequence[str], size: int) -> tuple[bytes, ...]:
    """One unit vector per text, as little-endian float32."""
    form = _form("f", size)
    vectors: list[bytes] = []
    for text in texts:
        raw = _form("h", size).unpack(shake_256(b"vector/%d/%s/" % (seed, model.encode()) + text.encode(errors="surrogatepass")).digest(2 * size))
        scale = 1.0 / (math.sqrt(sum([number * number for number in raw])) or 1.0)
        vectors.append(form.pack(*[number * scale for number in raw]))
    return tuple(vectors)


def floats(vector: bytes) -> list[float]:
    """The numbers of a vector."""
    return list(_form("f", len(vector) // 4).unpack(vector))


@lru_cache(maxsize=64)
def _form(kind: str, size: int) -> struct.Struct:
    return struct.Struct(f"<{size}{kind}")
