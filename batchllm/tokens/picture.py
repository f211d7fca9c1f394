"""What a picture at hand costs in input tokens, by its size: the providers' published formulas (protocols I).

The trap: these are for telling a person beforehand. What money is reserved by is the family's maximum in `images`, which no picture exceeds.
"""

from __future__ import annotations

import re
import struct
from math import ceil

from batchllm.tokens.images import tiles_of

_CLAUDE_PATCHES = re.compile(r"claude-[a-z]+-(4-[7-9]|[5-9])")
"""Claude models that see patches of 28 pixels (from 4.7 on)."""
_GEMINI_TILE_TOKENS = 258
_OLLAMA_TOKENS = 768


def size_of(data: bytes) -> tuple[int, int] | None:
    """(width, height) in pixels from the first bytes of a PNG, GIF, WebP or JPEG; None for anything else."""
    if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        return int(width), int(height)
    if data[:6] in (b"GIF87a", b"GIF89a") and len(data) >= 10:
        width, height = struct.unpack("<HH", data[6:10])
        return int(width), int(height)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and len(data) >= 30:
        return _webp(data)
    return _jpeg(data) if data[:2] == b"\xff\xd8" else None


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return int(width), int(height)
        if marker == 0xFF:
            at += 1
            continue
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def picture_tokens(provider: str, model_id: str, width: int, height: int, *, detail: str = "auto") -> int | None:
    """Tokens of a picture of this size; None for a model whose formula is not known."""
    if width < 1 or height < 1:
        return None
    if provider == "ollama":
        return _OLLAMA_TOKENS
    if provider == "anthropic":
        return _claude(model_id, width, height)
    if provider == "gemini":
        tiles = 1 if max(width, height) <= 384 else ceil(width / 768) * ceil(height / 768)
        return tiles * _GEMINI_TILE_TOKENS
    return tiles_of(model_id, width, height, detail)


def _claude(model_id: str, width: int, height: int) -> int:
    patches = _CLAUDE_PATCHES.match(model_id) is not None
    scale = min(1.0, (2576 if patches else 1568) / max(width, height))
    width, height = round(width * scale), round(height * scale)
    return ceil(width / 28) * ceil(height / 28) if patches else ceil(width * height / 750)
