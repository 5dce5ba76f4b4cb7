"""Amounts of money as the kinds have them: decimal strings, from list prices for a million tokens."""

from decimal import ROUND_HALF_UP, Decimal

_MILLION = 1_000_000
_CENT = Decimal("0.01")
_PART_OF_A_SUM = Decimal("0.0001")

MOST = Decimal("999999999999.99")
"""The maximum that status can show. A typo in a price leads to this amount, which exceeds any smaller budget."""


def in_cents(amount: Decimal, rounding: str = ROUND_HALF_UP) -> str:
    """An amount to show, or to compare with a budget."""
    return str(min(amount, MOST).quantize(_CENT, rounding=rounding))


def as_summand(amount: Decimal) -> str:
    """An amount that is part of a sum, in finer units: many fractions of a cent add up."""
    return str(min(amount, MOST).quantize(_PART_OF_A_SUM))


def of_units(price: str, units: int) -> str:
    """The price of this many units."""
    return str(min(Decimal(price) * units, MOST))


def of_tokens(tokens: Decimal | int, per_million: str) -> Decimal:
    """The cost of this many tokens."""
    return tokens * Decimal(per_million) / _MILLION
