"""How amounts of money are rounded and priced."""

from decimal import ROUND_UP, Decimal

import pytest

from finetune_api.catalogue import Price, ProviderFacts, billed, estimate, longest_time
from finetune_api.money import as_summand, in_cents, of_tokens, of_units


@pytest.mark.parametrize(
    ("amount", "shown", "at_most"),
    [("1", "1.00", "1.00"), ("1.004", "1.00", "1.01"), ("1.005", "1.01", "1.01"), ("0.0001", "0.00", "0.01")],
)
def test_what_was_billed_is_rounded_and_what_is_expected_is_rounded_up(amount: str, shown: str, at_most: str) -> None:
    assert (in_cents(Decimal(amount)), in_cents(Decimal(amount), ROUND_UP)) == (shown, at_most)


def test_parts_of_a_sum_keep_what_is_less_than_a_cent() -> None:
    assert as_summand(Decimal("0.00123")) == "0.0012"


def test_tokens_are_priced_by_the_million() -> None:
    assert of_tokens(500_000, "3.00") == Decimal("1.50")


def test_a_slip_in_a_price_makes_no_cost_that_status_cannot_show() -> None:
    price, most = "999999999999.999999", "999999999999.99"
    slip = Price.model_validate({"perMillionTokens": price, "asOf": "1999-01-01"})
    expected = estimate(10**12, 100.0, slip)
    assert (expected.estimated, billed(expected, 10**15, slip).actual) == (most, most)
    assert longest_time(ProviderFacts(), "ml.g5", price, 10**8, 8).estimated == most
    assert (of_units(price, 100_000), of_units("0.000001", 3), as_summand(Decimal(10**40))) == (
        most,
        "0.000003",
        f"{most}00",
    )
