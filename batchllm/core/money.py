"""Money is exact: integer pico-dollars (1 USD = 10^12). Floats appear only where a person or JSON reads a sum.

A price of d USD per million tokens is d * 10^6 pico-dollars per token, so every published price is a whole number.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal

PICO_PER_USD = 10**12


def pico_from_usd(usd: float | str | Decimal) -> int:
    """Exact pico-dollars of a decimal amount; a float is read by its shortest decimal form (0.1 is a tenth). Rounds up below a pico-dollar."""
    return int((Decimal(str(usd)) * PICO_PER_USD).to_integral_value(rounding=ROUND_CEILING))


def usd_from_pico(pico: int) -> float:
    """Dollars as a float, for people and JSON."""
    return pico / PICO_PER_USD


def text_usd(pico: int | None) -> str:
    """A sum for people: `$0.0123`, at least two decimals and three significant digits below a dollar; `unknown` for None."""
    if pico is None:
        return "unknown"
    amount = Decimal(pico) / PICO_PER_USD
    if pico == 0:
        return "$0.00"
    if abs(amount) >= 1:
        return f"${amount:,.2f}"
    places = max(2, 2 - amount.adjusted())
    return f"${amount:.{places}f}"
