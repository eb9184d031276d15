"""Savings of the simulated year, against what the plant's truth costs by the same prices."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import NamedTuple

import pytest

from tests.grafana.as_grafana import TimeRange, transformed
from tests.grafana.pages import panel
from tests.grafana.test_year import days_to_check, last, local_days, number, rows, table
from tests.grafana.year import TARIFF_CHANGE_DAYS, ZONE, Truth, Year

RANGE, DAYS, MONTHS, YEARS = (
    f"Savings {of} ($currency)" for of in ("in the chosen range", "of days", "of months", "of years")
)
# A counter's step is 0.01 kWh: a day's first and last one, and those at which the price changes, may be off.
TOLERANCE = 0.012


class Amounts(NamedTuple):
    """What the prices of `tariff_text` make of the truth, in EUR; with floats, quarter by quarter."""

    without: float
    bought: float
    sold: float


def changed_at(year: Year) -> datetime:
    """When the prices changed."""
    day = (year.now - timedelta(days=TARIFF_CHANGE_DAYS)).astimezone(ZONE).date()
    return datetime.combine(day, datetime.min.time(), ZONE).replace(hour=13)


def price(year: Year, at: datetime) -> tuple[float, float]:
    """Of a bought and of a sold kWh at a moment."""
    if at.timestamp() < changed_at(year).timestamp():
        return 0.33, 0.08
    begun = at - timedelta(hours=6)  # a night belongs to the day on which it began
    night = at.hour >= 22 or at.hour < 6
    return (0.25 if night and begun.weekday() < 5 else 0.36), 0.07


def quarters(day: date) -> Iterator[datetime]:
    """When the quarters of an hour of a local day begin."""
    begin, following = (
        datetime.combine(at, datetime.min.time(), ZONE).timestamp() for at in (day, day + timedelta(days=1))
    )
    for at in range(round(begin), round(following), 900):
        yield datetime.fromtimestamp(at, ZONE)


def truth_of(year: Year, day: date) -> Amounts:
    """The amounts of a local day."""
    start, end = (moment.timestamp() for moment in local_days(day))
    near = [span for span in year.truth.spans if start - 900 <= span.start_s <= end]
    truth = Truth(near, year.truth.end_s)
    month = (day.replace(day=1) + timedelta(days=32)).replace(day=1) - day.replace(day=1)
    before = datetime.combine(day, datetime.min.time(), ZONE) < changed_at(year)
    fee = (12 if before else 15) / month.days
    without, bought, sold = fee, fee, 0.0
    for at in quarters(day):
        energy = truth.energy(at, datetime.fromtimestamp(at.timestamp() + 900, ZONE))
        of_import, of_export = price(year, at)
        without += energy["home"] * of_import
        bought += energy["bought"] * of_import
        sold += energy["sold"] * of_export
    return Amounts(without, bought, sold)


def days(year: Year) -> Iterator[tuple[date, int]]:
    """The days that are checked for energies, and those around the change of prices: one of each weekday."""
    yield from days_to_check(year)
    for offset in range(-1, 7):
        yield changed_at(year).date() + timedelta(days=offset), 24


def test_savings_of_a_day_are_the_plants(year: Year) -> None:
    """Days of 23, 24 and 25 hours, and days around a change of prices, have the amounts of the truth."""
    for day, _ in days(year):
        truth = truth_of(year, day)
        (row,) = table(year, panel("energy-history", DAYS), local_days(day))
        assert row["Time"] == local_days(day).start.timestamp() * 1e9
        assert row["Paid for buying"] == pytest.approx(-truth.bought, abs=TOLERANCE)
        assert row["Earned by selling"] == pytest.approx(truth.sold, abs=TOLERANCE)
        saved = truth.without - truth.bought + truth.sold
        assert row["Saved"] == pytest.approx(saved, abs=2 * TOLERANCE)
        assert abs(truth.bought) > 10 * TOLERANCE or abs(truth.sold) > 10 * TOLERANCE


def test_savings_of_a_range_are_those_of_its_days(year: Year) -> None:
    """The number of a week is the sum of its days, and what it would have cost is the home's energy."""
    first = changed_at(year).date() - timedelta(days=3)
    week = TimeRange(local_days(first).start, local_days(first, 7).end)
    shown = number(year, "energy-history", RANGE, week)
    truths = [truth_of(year, first + timedelta(days=offset)) for offset in range(7)]
    assert shown["Without the system"] == pytest.approx(-sum(each.without for each in truths), abs=1e-4)
    assert shown["Paid for buying"] == pytest.approx(-sum(each.bought for each in truths), abs=7 * TOLERANCE)
    each_day = table(year, panel("energy-history", DAYS), week)
    assert shown["Saved"] == pytest.approx(sum(row["Saved"] for row in each_day))
    assert shown["Saved"] == pytest.approx(
        shown["Paid for buying"] + shown["Earned by selling"] - shown["Without the system"]
    )


def test_months_and_years_are_sums_of_days(year: Year) -> None:
    """Months and years are the sums of their local days."""
    full = last(year, 365)
    sums = []
    for title in (DAYS, MONTHS, YEARS):
        shown = panel("energy-history", title)
        sums.append(sum(row["Saved"] for row in transformed(shown, rows(year, shown, full), ZONE)))
    assert sums[1:] == pytest.approx([sums[0], sums[0]])
    assert sums[0] == pytest.approx(number(year, "energy-history", RANGE, full)["Saved"])
