"""What providers charge for training, as dated rows: USD per million tokens and epoch. A model that isn't here has no known price, and unknown is never 0.

The trap: a model id is a name with a date behind it, and a smaller model's name begins with its larger one's (`gpt-4.1-mini`). So the longest beginning that ends at a
dash counts, and what follows must be a date.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

AS_OF = "2025-12"
"""When the rows were collected from the providers' price pages."""

USD_PER_MILLION: Mapping[str, Decimal] = {
    "gpt-4.1": Decimal(25),
    "gpt-4.1-mini": Decimal(5),
    "gpt-4.1-nano": Decimal("1.5"),
    "gpt-4o": Decimal(25),
    "gpt-4o-mini": Decimal(3),
    "gpt-3.5-turbo": Decimal(8),
    "gemini-2.5-pro": Decimal(25),
    "gemini-2.5-flash": Decimal(5),
    "gemini-2.5-flash-lite": Decimal("1.5"),
}
_SUFFIX = re.compile(r"(-\d{3,4}|-\d{4}-\d{2}-\d{2})?$")


def training_usd_per_million(model: str) -> Decimal | None:
    """Dollars per million training tokens; None where it isn't known."""
    return USD_PER_MILLION.get(_SUFFIX.sub("", model, count=1))
