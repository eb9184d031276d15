"""What a day saved: figures by hand, days of 23 and 25 hours, changes of price, and what always holds."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.tariffs.model import Tariffs, parse_tariffs
from recorder.tariffs.savings import STEP, Quarter, Savings, midnight, savings

ZONE = ZoneInfo("Europe/Berlin")
ORDINARY, SPRING, AUTUMN = date(2026, 6, 10), date(2026, 3, 29), date(2026, 10, 25)
FLAT = "  - {valid_from: 2020-01-01, import_price: 0.3, feed_in_price: 0.08}"

energies = st.floats(0, 20, allow_nan=False).map(lambda value: round(value, 6))
days_of_energies = st.lists(st.tuples(energies, energies, energies), min_size=96, max_size=96)


def tariffs(lines: str) -> Tariffs:
    """A file with these tariffs."""
    return parse_tariffs(f"currency: EUR\ntariffs:\n{lines}", "t.yaml", {})


def quarters(day: date, energy: Sequence[tuple[float, float, float]] | None = None) -> list[Quarter]:
    """All quarters of a local day, each with 1 kWh of the home, 0.5 bought, 0.25 sold unless given."""
    begin, end = midnight(day, ZONE), midnight(day + timedelta(days=1), ZONE)
    count = int((end - begin).total_seconds()) // 900
    energy = energy or [(1.0, 0.5, 0.25)] * count
    return [Quarter(begin + number * timedelta(minutes=15), *energy[number]) for number in range(count)]


def of_day(
    lines: str, day: date = ORDINARY, energy: Sequence[tuple[float, float, float]] | None = None
) -> Savings:
    """The savings of one day."""
    (found,) = savings(quarters(day, energy), tariffs(lines), ZONE)
    assert found.day == day
    return found


@pytest.mark.parametrize(("day", "count"), [(ORDINARY, 96), (SPRING, 92), (AUTUMN, 100)])
def test_flat_prices_are_prices_by_energy(day: date, count: int) -> None:
    """With one price each amount is energy by price, on days of 24, 23 and 25 hours."""
    found = of_day(FLAT, day)
    assert found.cost_without_system == Decimal("0.3") * count
    assert found.import_cost == Decimal("0.15") * count
    assert found.feed_in_income == Decimal("0.02") * count
    assert found.saved == Decimal("0.17") * count


@pytest.mark.parametrize(("day", "night"), [(ORDINARY, 12), (SPRING, 8), (AUTUMN, 16)])
def test_window_is_as_long_as_the_clock_shows_it(day: date, night: int) -> None:
    """From 01:00 to 04:00 are three hours; two where clocks go forward, four where they go back."""
    window = "windows: [{between: 01:00-04:00, import_price: 1}]"
    found = of_day(f"  - {{valid_from: 2020-01-01, import_price: 0, {window}}}", day)
    assert found.cost_without_system == night


def test_window_begins_and_ends_on_quarters() -> None:
    """From 01:15 to 02:00 are three quarters of an hour."""
    window = "windows: [{between: 01:15-02:00, import_price: 1}]"
    assert of_day(f"  - {{valid_from: 2020-01-01, import_price: 0, {window}}}").cost_without_system == 3


def test_base_fee_is_a_days_part_of_its_month() -> None:
    """The fee of a month is spread over its days, paid with or without a system, and saves nothing."""
    lines = "  - {valid_from: 2020-01-01, import_price: 0, base_fee_per_month: 14}"
    found = of_day(lines, date(2026, 2, 3))
    assert found.cost_without_system == found.import_cost == Decimal("0.5")
    assert found.saved == 0


def test_price_changes_at_midnight() -> None:
    """The last quarter of a day has the old price, the first one of the next day the new one."""
    changed = tariffs(f"{FLAT}\n  - {{valid_from: 2026-06-11, import_price: 0.4}}")
    both = [*quarters(ORDINARY), *quarters(ORDINARY + timedelta(days=1))]
    before, after = savings(both, changed, ZONE)
    assert (before.import_cost, after.import_cost) == (Decimal("14.4"), Decimal("19.2"))


@pytest.mark.parametrize(("at", "old"), [("13:00", 52), ("00:15", 1), ("23:45", 95)])
def test_price_changes_within_a_day(at: str, old: int) -> None:
    """A tariff that begins at a quarter of an hour holds from there on."""
    changed = f"{FLAT}\n  - {{valid_from: 2026-06-10 {at}, import_price: 0.4}}"
    assert of_day(changed).import_cost == old * Decimal("0.15") + (96 - old) * Decimal("0.2")


def test_price_that_changes_in_the_doubled_hour_changes_once() -> None:
    """Where 02:30 comes twice a tariff begins at the first one, and holds through the second 02:00."""
    changed = f"{FLAT}\n  - {{valid_from: 2026-10-25 02:30, import_price: 0.4}}"
    assert of_day(changed, AUTUMN).import_cost == 10 * Decimal("0.15") + 90 * Decimal("0.2")


def test_day_before_the_first_tariff_has_no_savings() -> None:
    """Where no tariff holds nothing is claimed, and of the day in which one begins only what it covers."""
    begins = "  - {valid_from: 2026-06-10 12:00, import_price: 0.4}"
    assert list(savings(quarters(date(2026, 6, 9)), tariffs(begins), ZONE)) == []
    assert of_day(begins).import_cost == 48 * Decimal("0.2")


def test_amount_is_rounded_once_a_day() -> None:
    """Amounts far below a step of rounding are not lost quarter by quarter."""
    tiny = [(0.000001, 0.0, 0.0)] * 96
    assert of_day(FLAT, energy=tiny).cost_without_system == Decimal("0.000029")


@pytest.mark.parametrize(("home", "rounded"), [(0.000005, "0.000002"), (0.000015, "0.000004")])
def test_half_a_step_goes_to_the_even_neighbour(home: float, rounded: str) -> None:
    """1.5 millionths are 2, 4.5 are 4: an energy is the decimal that is written, so that a half is one."""
    half = [(home, 0.0, 0.0)] + [(0.0, 0.0, 0.0)] * 95
    assert of_day(FLAT, energy=half).cost_without_system == Decimal(rounded)


@given(days_of_energies)
def test_amounts_add_up(energy: list[tuple[float, float, float]]) -> None:
    """What was saved is the cost without the system, less what was bought, plus what was earned; exactly."""
    found = of_day(FLAT, energy=energy)
    exact = sum(
        Decimal("0.3") * (Decimal(repr(home)) - Decimal(repr(bought))) + Decimal("0.08") * Decimal(repr(sold))
        for home, bought, sold in energy
    )
    assert abs(found.saved - exact) <= 3 * STEP / 2
    assert found.saved == found.cost_without_system - found.import_cost + found.feed_in_income


def clock(quarter: int) -> str:
    """The time at which a quarter of an hour of a day begins."""
    return f"{quarter // 4:02}:{quarter % 4 * 15:02}"


@given(days_of_energies, st.integers(0, 95))
def test_a_change_to_the_same_prices_changes_nothing(
    energy: list[tuple[float, float, float]], quarter: int
) -> None:
    """Where a tariff is cut in two, or a window has the prices of the rest, the amounts stay."""
    again = FLAT.replace("2020-01-01", f"2026-06-10 {clock(quarter)}")
    window = f"windows: [{{between: {clock(quarter)}-24:00, import_price: 0.3, feed_in_price: 0.08}}]"
    assert of_day(f"{FLAT}\n{again}", energy=energy) == of_day(FLAT, energy=energy)
    assert of_day(FLAT.replace("}", f", {window}}}"), energy=energy) == of_day(FLAT, energy=energy)


@given(days_of_energies, st.integers(1, 94), st.integers(0, 95))
def test_a_window_over_midnight_is_its_two_parts(
    energy: list[tuple[float, float, float]], morning: int, later: int
) -> None:
    """A window from evening to morning costs what one of the evening and one of the morning cost."""
    until, since = clock(morning), clock(min(95, morning + 1 + later))
    whole = f"{{between: {since}-{until}, import_price: 0.2}}"
    parts = f"{{between: {since}-24:00, import_price: 0.2}}, {{between: 00:00-{until}, import_price: 0.2}}"
    one, two = (FLAT.replace("}", f", windows: [{each}]}}") for each in (whole, parts))
    assert of_day(one, energy=energy) == of_day(two, energy=energy)


@given(st.lists(st.tuples(st.integers(0, 30 * 96 - 1), energies), unique_by=lambda item: item[0], min_size=1))
def test_days_with_gaps_are_told_apart(found: list[tuple[int, float]]) -> None:
    """Each local day that has a quarter has amounts, of its own quarters, whatever is missing."""
    begin = datetime(2026, 3, 15, tzinfo=UTC)
    known = [Quarter(begin + n * timedelta(minutes=15), kwh, 0.0, 0.0) for n, kwh in sorted(found)]
    days = list(savings(known, tariffs(FLAT), ZONE))
    assert [each.day for each in days] == sorted({quarter.begin.astimezone(ZONE).date() for quarter in known})
    exact = sum((Decimal(repr(quarter.home)) * Decimal("0.3") for quarter in known), Decimal(0))
    total = sum((each.cost_without_system for each in days), Decimal(0))
    assert abs(total - exact) <= len(days) * STEP / 2
