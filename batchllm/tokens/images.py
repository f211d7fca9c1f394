"""What one image costs in input tokens: about, and at most.

Sizes are not looked at: the most is the published maximum of the family at that `detail` (OpenAI's guide to images). The trap: families differ by a factor of 100, so a family
that is not listed has no maximum here, and a job with a cap on its money has to say so before anything is sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

_TILES_AT_MOST = 8
"""An image shrunk to fit 2048 x 2048 with its short side at 768 covers at most 4 x 2 tiles of 512."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tiles:
    """`base` a picture and `tile` for each tile of 512 pixels; `detail: low` is the base alone."""

    base: int
    tile: int

    def tokens(self, detail: str) -> tuple[int, int]:
        if detail == "low":
            return self.base, self.base
        return self.base + 4 * self.tile, self.base + _TILES_AT_MOST * self.tile

    def sized(self, width: int, height: int, detail: str) -> int:
        """Shrunk to fit 2048 x 2048, then to a short side of 768."""
        if detail == "low":
            return self.base
        scale = min(1.0, 2048 / max(width, height))
        scale = min(scale, 768 / min(width, height))
        return self.base + self.tile * ceil(width * scale / 512) * ceil(height * scale / 512)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Patches:
    """A factor for each patch of 32 pixels; the number of patches is limited by `detail`."""

    per_thousand: int
    high: int
    original: int

    def tokens(self, detail: str) -> tuple[int, int]:
        most = {"low": 256, "high": self.high}.get(detail, self.original)
        return min(1024, most) * self.per_thousand // 1000, -(-most * self.per_thousand // 1000)

    def sized(self, width: int, height: int, detail: str) -> int:
        """As many patches as it covers, shrunk until they are few enough."""
        most = {"low": 256, "high": self.high}.get(detail, self.original)
        return -(-min(ceil(width / 32) * ceil(height / 32), most) * self.per_thousand // 1000)


# Constants of the published formulas; the first match counts.
_FAMILIES: tuple[tuple[re.Pattern[str], _Tiles | _Patches], ...] = (
    (re.compile(r"gpt-4o-mini"), _Tiles(base=2833, tile=5667)),
    # The factors of these are 1.62 to 2.46; the dearest counts.
    (re.compile(r"gpt-4\.1-(mini|nano)|o4-mini|gpt-5-(mini|nano)"), _Patches(per_thousand=2460, high=1536, original=1536)),
    (re.compile(r"gpt-4o|gpt-4\.1|gpt-4-turbo|gpt-4-vision|chatgpt-4o"), _Tiles(base=85, tile=170)),
    (re.compile(r"o[13](-|$)"), _Tiles(base=75, tile=150)),
    (re.compile(r"gpt-5(-\d|-chat|$)"), _Tiles(base=70, tile=140)),
    (re.compile(r"gpt-5\.[2-9]|gpt-6"), _Patches(per_thousand=1200, high=2500, original=10_000)),
)

_GUESS = 765
"""What an image of an unlisted family paces requests by."""


def tiles_of(model_id: str, width: int, height: int, detail: str = "auto") -> int | None:
    """Tokens of an image of this size; None for a family that is not listed."""
    for pattern, family in _FAMILIES:
        if pattern.match(model_id.removeprefix("ft:")):
            return family.sized(width, height, detail)
    return None


def image_tokens(model_id: str, part: Mapping[str, Any]) -> tuple[int, int | None]:
    """(about, at most) for an `image_url` part; at most is None for a family whose maximum is not known."""
    image = part.get("image_url")
    detail = image.get("detail") if isinstance(image, Mapping) else None
    for pattern, family in _FAMILIES:
        if pattern.match(model_id.removeprefix("ft:")):
            return family.tokens(detail if isinstance(detail, str) else "auto")
    return _GUESS, None
