"""How amounts of money are rounded and priced."""

from decimal import ROUND_UP, Decimal

import pytest

from finetune_api.money import in_cents, of_tokens, to_be_added


@pytest.mark.parametrize(
    ("amount", "shown", "at_most"),
    [("1", "1.00", "1.00"), ("1.004", "1.00", "1.01"), ("1.005", "1.01", "1.01"), ("0.0001", "0.00", "0.01")],
)
def test_what_was_billed_is_rounded_and_what_is_expected_is_rounded_up(amount: str, shown: str, at_most: str) -> None:
    assert (in_cents(Decimal(amount)), in_cents(Decimal(amount), ROUND_UP)) == (shown, at_most)


def test_parts_of_a_sum_keep_what_is_less_than_a_cent() -> None:
    assert to_be_added(Decimal("0.00123")) == "0.0012"


def test_tokens_are_priced_by_the_million() -> None:
    assert of_tokens(500_000, "3.00") == Decimal("1.50")
