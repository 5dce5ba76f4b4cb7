"""What deployments at a provider cost: by the hour, and so far, with those that are gone."""

from datetime import date
from decimal import Decimal

from finetune_api.deployment import DeploymentCost, HostedDeployment
from finetune_operator.decide.deployment.hosted_record import Hosted
from finetune_operator.decide.deployment.hosting_cost import Rate, basis, billed, past, total
from tests.unit.finetune_operator.decide.given import at, stamp

HOUR = 3600.0
FIRST = HostedDeployment(name="v1", version=1, connection="azure", created_at=stamp(0), attached=False)
SECOND = HostedDeployment(name="v2", version=2, connection="azure", created_at=stamp(5 * HOUR), attached=False)


def there(*names: str, state: str = "Ready") -> dict[str, Hosted]:
    return {name: Hosted(name, state, "azure") for name in names}  # type: ignore[arg-type]


def price(_: Hosted) -> Rate | None:
    return Rate("Standard", "1.70", date(2026, 11, 1))


def unknown(_: Hosted) -> Rate | None:
    return Rate("ProvisionedManaged", None)


def mixed(there: Hosted) -> Rate | None:
    return unknown(there) if there.name == "v2" else price(there)


def test_it_is_billed_from_when_it_stands_to_when_it_is_gone() -> None:
    assert billed([FIRST], there("v1", state="Creating"), price, at(9))[0].billed_since is None
    standing = billed([FIRST], there("v1"), price, at(600))
    assert (standing[0].billed_since, standing[0].per_hour) == (stamp(600), "1.70")
    assert billed(standing, there("v1", state="Deleting"), price, at(HOUR)) == standing
    assert billed(standing, {}, price, at(HOUR))[0].billed_since is None


def test_hours_in_which_nobody_looked_are_taken_for_billed() -> None:
    assert billed([FIRST], there("v1"), price, at(HOUR - 1))[0].billed_since == stamp(HOUR - 1)
    assert billed([FIRST], there("v1"), price, at(9 * HOUR))[0].billed_since == stamp(0)


def test_what_is_gone_stays_in_the_sum_and_is_counted_once() -> None:
    first = billed([FIRST], there("v1"), price, at(0))
    cost = total(None, [FIRST], first, "USD", at(10 * HOUR))
    assert cost == DeploymentCost(per_hour="1.70", since_deployed="17.00", display="1.70 USD/h", currency="USD")
    both = billed([*first, SECOND], there("v1", "v2"), price, at(10 * HOUR))
    cost = total(cost, first, both, "USD", at(10 * HOUR))
    assert cost is not None
    assert (cost.per_hour, cost.since_deployed) == ("3.40", "25.50")
    second = billed(both[1:], there("v2"), price, at(10 * HOUR))
    for _ in range(3):
        cost = total(cost, both, second, "USD", at(10 * HOUR))
        both = second  # type: ignore[assignment]
        assert cost is not None
        assert (cost.per_hour, cost.since_deployed, cost.ended) == ("1.70", "25.50", "17.0000")
    asleep = total(cost, second, billed(second, {}, price, at(10 * HOUR)), "USD", at(10 * HOUR))
    assert asleep is not None
    assert (asleep.per_hour, asleep.since_deployed) == ("0.00", "25.50")


def test_the_column_says_of_what_is_attached_that_it_may_be_in_another_row_too() -> None:
    own, other = billed([FIRST, SECOND.model_copy(update={"attached": True})], there("v1", "v2"), price, at(0))
    told = [total(None, (), standing, "USD", at(0)) for standing in ([own], [other], [own, other])]
    assert [cost and cost.display for cost in told] == ["1.70 USD/h", "1.70 USD/h, attached", "3.40 USD/h"]


def test_one_that_was_missing_for_a_moment_is_not_counted_twice() -> None:
    standing = billed([FIRST], there("v1"), price, at(0))
    gone = billed(standing, {}, price, at(10 * HOUR))
    cost = total(None, standing, gone, "USD", at(10 * HOUR))
    back = billed(gone, there("v1"), price, at(11 * HOUR))
    cost = total(cost, gone, back, "USD", at(12 * HOUR))
    assert cost is not None
    assert Decimal(cost.since_deployed) == Decimal("18.70")


def test_what_its_provider_has_deleted_was_billed_until_it_was_first_missed() -> None:
    """Whether it is gone is known a minute later, or when the operator looks again."""
    standing = billed([FIRST.model_copy(update={"answered": True})], there("v1"), price, at(0))
    missed = [one.model_copy(update={"unseen_since": stamp(10 * HOUR)}) for one in standing]
    assert billed(missed, {}, price, at(10 * HOUR + 59)) == tuple(missed)
    gone = billed(missed, {}, price, at(20 * HOUR))
    cost = total(None, missed, gone, "USD", at(20 * HOUR))
    assert cost is not None
    assert (cost.since_deployed, cost.ended) == ("17.00", "17.0000")


def test_parts_that_are_left_of_one_are_not_billed() -> None:
    standing = billed([FIRST.model_copy(update={"released_at": stamp(HOUR)})], there("v1"), price, at(0))
    assert billed(standing, there("v1", state="Partial"), price, at(HOUR))[0].billed_since is None


def test_another_connections_deployment_of_the_same_name_is_not_billed_as_ours() -> None:
    standing = billed([FIRST], there("v1"), price, at(0))
    elsewhere = {"v1": Hosted("v1", "Ready", "another-account")}
    assert billed(standing, elsewhere, price, at(HOUR))[0].billed_since is None
    assert billed([FIRST], elsewhere, price, at(HOUR))[0].billed_since is None


def test_what_is_not_billed_by_the_hour_has_no_cost() -> None:
    assert total(None, [FIRST], billed([FIRST], there("v1"), lambda _: None, at(0)), "USD", at(HOUR)) is None


def test_an_unknown_price_is_unknown_and_not_nothing() -> None:
    cost = total(None, [FIRST], billed([FIRST], there("v1"), unknown, at(0)), "USD", at(HOUR))
    assert cost == DeploymentCost(display="unknown", currency="USD")


def test_one_unknown_price_makes_the_sum_unknown_also_when_it_is_gone() -> None:
    both = billed([FIRST, SECOND], there("v1", "v2"), mixed, at(5 * HOUR))
    cost = total(None, [FIRST, SECOND], both, "USD", at(6 * HOUR))
    assert cost == DeploymentCost(display="unknown", currency="USD")
    first = billed(both, there("v1"), mixed, at(10 * HOUR))
    cost = total(cost, both, first, "USD", at(10 * HOUR))
    assert cost == DeploymentCost(per_hour="1.70", unpriced=True, display="1.70 USD/h", currency="USD")
    gone = billed(first, {}, mixed, at(10 * HOUR))
    cost = total(cost, first, gone, "USD", at(10 * HOUR))
    assert cost is not None
    assert (cost.per_hour, cost.since_deployed, cost.ended, cost.unpriced) == ("0.00", None, "17.0000", True)


def test_a_price_that_is_added_later_counts_from_the_beginning() -> None:
    standing = billed([FIRST], there("v1"), unknown, at(0))
    cost = total(None, [FIRST], standing, "USD", at(HOUR))
    priced = billed(standing, there("v1"), price, at(10 * HOUR))
    cost = total(cost, standing, priced, "USD", at(10 * HOUR))
    assert cost is not None
    assert (cost.per_hour, cost.since_deployed) == ("1.70", "17.00")


def test_the_basis_names_price_day_and_what_is_not_known() -> None:
    rates = [Rate("Standard", "1.70", date(2026, 11, 1)), Rate("ProvisionedManaged", None), Rate("Own", "2.00")]
    said = basis(rates, "USD")
    assert said is not None
    assert "Standard at 1.70 USD an hour, list price of 2026-11-01" in said
    assert "what an hour of ProvisionedManaged costs is not known" in said
    assert "Own at 2.00 USD an hour, list price;" in said
    assert basis([], "USD") is None


def test_hours_before_a_change_in_place_keep_their_price() -> None:
    """Azure changes capacity in place: ten units cost ten times as much from now on, and not since the first hour."""
    rates = {"units": "1.00"}
    standing = billed([FIRST], there("v1"), lambda _: Rate("ProvisionedManaged", rates["units"]), at(0))
    cost = total(None, [FIRST], standing, "USD", at(10 * HOUR))
    rates["units"] = "10.00"
    more = billed(standing, there("v1"), lambda _: Rate("ProvisionedManaged", rates["units"]), at(10 * HOUR))
    cost = total(cost, standing, more, "USD", at(10 * HOUR))
    assert cost is not None
    assert (cost.per_hour, cost.since_deployed) == ("10.00", "10.00")
    for hours in (11, 12):
        cost = total(
            cost,
            more,
            billed(more, there("v1"), lambda _: Rate("P", "10.00"), at(hours * HOUR)),
            "USD",
            at(hours * HOUR),
        )
        assert cost is not None
    assert (cost.per_hour, cost.since_deployed) == ("10.00", "30.00")


def test_money_of_two_currencies_is_no_sum() -> None:
    before = DeploymentCost(since_deployed="17.00", ended="17.0000", currency="EUR")
    cost = total(before, [FIRST], billed([FIRST], there("v1"), price, at(0)), "USD", at(HOUR))
    assert cost == DeploymentCost(per_hour="1.70", unpriced=True, display="1.70 USD/h", currency="USD")


def test_of_those_that_are_gone_without_a_price_no_sum_is_told() -> None:
    """Not 0.00, nor what the others were: the sum would be taken for the bill."""
    for ended in (None, "17.0000"):
        cost = DeploymentCost(since_deployed=None, ended=ended, unpriced=True, currency="EUR")
        assert past(cost) == DeploymentCost(since_deployed=None, ended=ended, unpriced=True, currency="EUR")
    known = DeploymentCost(since_deployed="1.00", ended="17.0049", currency="EUR")
    assert past(known) == DeploymentCost(since_deployed="17.00", ended="17.0049", currency="EUR")
    assert past(DeploymentCost(since_deployed="0.00", currency="EUR")) is None
    assert past(None) is None
