"""Every query of every dashboard, asked of a real InfluxDB that holds a simulated year."""

import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any

import pytest

from tests.grafana.as_grafana import TimeRange, interval_ms, range_of, resolved, transformed
from tests.grafana.pages import (
    CHOSEN,
    DASHBOARDS,
    EACH_DASHBOARD,
    EACH_PANEL,
    RANGES,
    Page,
    panel,
    statements,
)
from tests.grafana.year import PAUSE_DAYS, SECOND_SITE, SITE, SUBMETER, SUBMETER_W, ZONE, Year
from tests.support.influxd import Row, as_of

OF_WHOLE = {"Savings in the chosen range ($currency)", "Data coverage over time"}
"""Panels that tell of days that begin in the range, or of hours that are over: an hour has one at most."""
SUBMETERS = {
    "Power of submeters",
    "Energy of submeters",
    "Submeters by day",
}
"""Panels of what only one of the two sites has."""


def last(year: Year, days: float) -> TimeRange:
    """What the time picker says when it shows the last days."""
    return TimeRange(year.now - timedelta(days=days), year.now)


def local_days(first: date, count: int = 1) -> TimeRange:
    """Local days from midnight to the last millisecond, as the time picker has them."""
    start, end = (datetime.combine(at, datetime.min.time(), ZONE) for at in (first, first + timedelta(count)))
    return TimeRange(start, end - timedelta(milliseconds=1))


def answers(
    year: Year, shown: dict[str, Any], time_range: TimeRange, chosen: dict[str, str] = CHOSEN
) -> list[list[Row]]:
    """The rows of each query of a panel."""
    return [year.ask(each) for each in statements(shown, time_range, chosen)]


def rows(year: Year, shown: dict[str, Any], time_range: TimeRange) -> list[Row]:
    """The rows of the one query of a panel that is for the range."""
    (found,) = (each for each in answers(year, shown, time_range) if each)
    return found


def values(row: Row) -> dict[str, Any]:
    """The columns of a row without its time, name and tags."""
    return {key: value for key, value in row.items() if key != "time" and not isinstance(value, str)}


def number(year: Year, dashboard: str, title: str, time_range: TimeRange) -> dict[str, float]:
    """The numbers of a panel that shows one of each."""
    (row,) = rows(year, panel(dashboard, title), time_range)
    return values(row)


def last_sunday(of_month: int, before: datetime) -> date:
    """The last Sunday of the month that was last before a moment: the day on which clocks change."""
    for year in (before.year, before.year - 1):
        day = date(year, of_month, 31)
        day -= timedelta(days=(day.weekday() + 1) % 7)
        if day < before.date() - timedelta(days=1):
            return day
    raise AssertionError


def table(year: Year, shown: dict[str, Any], time_range: TimeRange) -> list[Row]:
    """What a panel of a table shows, after its transformations, of a range with fixed ends."""
    return transformed(shown, rows(year, shown, time_range), ZONE)


@EACH_PANEL
@pytest.mark.parametrize("days", RANGES.values(), ids=RANGES)
def test_panel_answers(year: Year, page: Page, days: float) -> None:
    """Each panel answers with numbers in each column, in few rows, from one query for each of its series."""
    shown = page.panel
    found = answers(year, shown, range_of(shown, last(year, days), ZONE))
    if shown["title"] in OF_WHOLE and days < 1:
        assert all(len(answer) <= 1 for answer in found)
        return
    columns = [column for answer in found if answer for column in values(answer[0])]
    if shown.get("transformations", [{}])[0].get("id") == "reduce":
        columns = list(dict.fromkeys(columns))  # parts of one number
    assert columns
    assert len(set(columns)) == len(columns)
    for answer in found:
        for column in values(answer[0]) if answer else ():
            assert any(isinstance(row[column], float | int) for row in answer), column
    assert sum(map(len, found)) <= 3000 * len({row.get("source", "") for row in found[0]} or {""})


@EACH_PANEL
def test_panel_answers_for_another_site(year: Year, page: Page) -> None:
    """Each panel answers for a second site too, with what is of that site only."""
    shown = page.panel
    time_range = range_of(shown, last(year, 1), ZONE)
    found = answers(year, shown, time_range, {**CHOSEN, "site": SECOND_SITE})
    assert any(found) == (shown["title"] not in SUBMETERS) or "timeShift" in shown
    nobody = answers(year, shown, time_range, {**CHOSEN, "site": "nobody"})
    assert not any(nobody)


@EACH_PANEL
def test_a_year_reads_only_what_it_needs(year: Year, page: Page) -> None:
    """The queries of a panel that are not for the range read no block of data."""
    shown = page.panel
    time_range = range_of(shown, last(year, 365), ZONE)
    milliseconds = interval_ms(shown, time_range)
    for target, statement in zip(shown["targets"], statements(shown, time_range), strict=True):
        bounds = re.findall(r"\$__interval_ms (>=|<) (\d+)", target["query"])
        wanted = all((sign == "<") == (milliseconds < int(bound)) for sign, bound in bounds)
        lines = year.ask(f"EXPLAIN ANALYZE {statement}")
        read = sum(
            int(n) for row in lines for n in re.findall(r"blocks_decoded: (\d+)", row["EXPLAIN ANALYZE"])
        )
        cursors = sum(
            int(n) for row in lines for n in re.findall(r"cursor_ref: (\d+)", row["EXPLAIN ANALYZE"])
        )
        assert wanted or (read, cursors) == (0, 0)
        # A year of minutes is 525,600 values of a field, a block holds 1,000.
        assert read < 2000


@EACH_DASHBOARD
def test_variable_offers_what_was_recorded(year: Year, name: str) -> None:
    """Each choice above a dashboard is filled from the tags of the data."""
    offered = {"site": {SITE, SECOND_SITE}, "device": {"pcs"}, "meter": {"meter"}}
    for variable in DASHBOARDS[name]["templating"]["list"]:
        if variable["type"] == "query":
            query = resolved(variable["query"], last(year, 1), CHOSEN)
            found = {row["value"] for row in year.ask(query)}
            assert found == offered[variable["name"]]


def days_to_check(year: Year) -> Iterator[tuple[date, int]]:
    """Days with their hours: an ordinary one, one with a pause, and both on which clocks change."""
    yield (year.now - timedelta(days=100)).date(), 24
    yield (year.now - timedelta(days=PAUSE_DAYS)).date(), 24
    yield last_sunday(3, year.now), 23
    yield last_sunday(10, year.now), 25


def test_energy_of_a_day_is_the_plants(year: Year) -> None:
    """Days of 23, 24 and 25 hours have the plant's energies, to a step of the counters."""
    for day, hours in days_to_check(year):
        start, end = local_days(day)
        assert round((end.timestamp() - start.timestamp()) / 3600) == hours
        (row,) = table(year, panel("energy-history", "Days"), TimeRange(start, end))
        assert row["Time"] == start.timestamp() * 1e9
        truth = year.truth.day(day)
        assert row["PV"] == pytest.approx(truth["pv"], abs=1e-6)
        assert row["Home"] == pytest.approx(truth["home"], abs=1e-6)
        assert row["Bought"] == pytest.approx(truth["bought"], abs=0.011)
        assert row["Sold"] == pytest.approx(-truth["sold"], abs=0.011)


def test_months_and_years_are_sums_of_the_plant(year: Year) -> None:
    """Whole months are the sum of their days, by local time, and a year that of its months."""
    full = last(year, 365)
    months = transformed(
        panel("energy-history", "Months"), rows(year, panel("energy-history", "Months"), full), ZONE
    )
    by_name = {row["Time"]: row for row in months}
    first = (year.now - timedelta(days=120)).astimezone(ZONE).date().replace(day=1)
    following = (first + timedelta(days=31)).replace(day=1)
    truth = year.truth.energy(*(datetime.combine(at, datetime.min.time(), ZONE) for at in (first, following)))
    month = by_name[f"{first:%Y-%m}"]
    assert month["Home"] == pytest.approx(truth["home"], abs=1e-5)
    assert month["PV"] == pytest.approx(truth["pv"], abs=1e-5)
    assert month["Bought"] == pytest.approx(truth["bought"], abs=0.011)
    assert month["Sold"] == pytest.approx(-truth["sold"], abs=0.011)
    years = transformed(
        panel("energy-history", "Years"), rows(year, panel("energy-history", "Years"), full), ZONE
    )
    assert sum(row["Home"] for row in years) == pytest.approx(sum(row["Home"] for row in months))
    assert {row["Time"] for row in years} == {name[:4] for name in by_name}


def test_months_of_the_year_before_are_a_year_earlier(year: Year) -> None:
    """The panel beside the months ends a year before the other one ends."""
    this, before = (
        range_of(panel("energy-history", title), last(year, 1), ZONE)
        for title in ("Months", "Months, a year before")
    )
    assert before.end.year == this.end.astimezone(ZONE).year - 1
    assert (before.start.month, before.start.day) == (1, 1)


@pytest.mark.parametrize("dashboard", ["energy-flows", "energy-history"])
def test_shares_of_a_month_are_the_plants(year: Year, dashboard: str) -> None:
    """Self-sufficiency and self-consumption of a month follow from the plant's energies."""
    first = (year.now - timedelta(days=150)).astimezone(ZONE).date().replace(day=1)
    month = local_days(first, ((first + timedelta(days=31)).replace(day=1) - first).days)
    truth = year.truth.energy(*month)
    sufficiency = number(year, dashboard, "Self-sufficiency", month)["Share"]
    consumption = number(year, dashboard, "Self-consumption", month)["Share"]
    assert sufficiency == pytest.approx(100 * (1 - truth["bought"] / truth["home"]), abs=0.1)
    assert consumption == pytest.approx(100 * (1 - truth["pv_to_grid"] / truth["pv_given"]), abs=0.1)


def test_a_share_of_nothing_is_nothing(year: Year) -> None:
    """At night, without PV energy, self-consumption is empty and not 100 %."""
    midnight = local_days((year.now - timedelta(days=50)).date()).start
    night = TimeRange(midnight, midnight + timedelta(hours=2))
    assert not any(answers(year, panel("energy-flows", "Self-consumption"), night))


def chosen_energy(year: Year, time_range: TimeRange) -> Row:
    """What "Energy in the chosen range" shows."""
    shown = panel("energy-flows", "Energy in the chosen range")
    parts = [row for answer in answers(year, shown, time_range) for row in answer]
    (row,) = transformed(shown, parts, ZONE)
    return row


def test_energy_of_the_range_is_the_plants(year: Year) -> None:
    """Energies of a day, a month and a year are the plant's, whichever data they are read from."""
    today = local_days((year.now - timedelta(days=1)).date()).end + timedelta(milliseconds=1)
    for days in (1, 30, 364):
        start = datetime.combine(today.date() - timedelta(days=days), datetime.min.time(), ZONE)
        truth = year.truth.energy(start, today)
        # The end may be the last millisecond of a day, or the first moment after it.
        shown = chosen_energy(year, TimeRange(start, today - timedelta(milliseconds=days % 2)))
        assert shown["Home"] == pytest.approx(truth["home"], rel=1e-6)
        assert shown["PV"] == pytest.approx(truth["pv"], rel=1e-6)
        assert shown["Bought"] == pytest.approx(truth["bought"], abs=0.011)
        assert shown["Sold"] == pytest.approx(truth["sold"], abs=0.011)
        assert shown["Charged"] == pytest.approx(truth["charged"], abs=0.11)
        assert shown["Discharged"] == pytest.approx(truth["discharged"], abs=0.11)


def test_hours_of_a_day_stand_in_order(year: Year) -> None:
    """The heat map has a row a day and hours from 00 to 23; an hour that a day lacks is empty."""
    day = last_sunday(3, year.now)
    shown = panel("energy-history", "When the home uses energy")
    start, end = local_days(day - timedelta(days=1), 3)
    # The range begins at noon, so that the first hour it meets is not 00.
    found = transformed(shown, rows(year, shown, TimeRange(start + timedelta(hours=12), end)), ZONE)
    assert list(found[0]) == ["Time", *(f"{hour:02}" for hour in range(24))]
    # Grafana draws a cell before its time, so that of a day is its end.
    assert [row["Time"].date() for row in found] == [day + timedelta(days=off) for off in (0, 1, 2)]
    assert [hour for hour in found[1] if found[1][hour] is None] == ["02"]
    noon = datetime.combine(day, datetime.min.time(), ZONE).replace(hour=12)
    truth = year.truth.energy(noon, noon.replace(hour=13))
    assert found[1]["12"] == pytest.approx(truth["home"], abs=1e-6)


def test_highest_charge_is_told_as_the_owner_sees_it(year: Year) -> None:
    """The plant's upper limit of 95 % is 90.5 % on the battery's own scale, and shown as 95 %."""
    found = rows(year, panel("battery-and-pv", "State of charge"), last(year, 1))
    limits = {row["Highest allowed"] for row in found} - {None}
    assert limits
    assert all(limit == pytest.approx(95, abs=0.06) for limit in limits)


def test_battery_figures_are_the_plants(year: Year) -> None:
    """Round trip, usable energy, cycles and inverter efficiency of a year are those built into the plant."""
    whole = last(year, 364)
    truth = year.truth.energy(*whole)
    trip = number(year, "battery-and-pv", "Round-trip efficiency", whole)["Efficiency"]
    assert trip == pytest.approx(100 * truth["discharged"] / truth["charged"], abs=0.2)
    # 6.4 kWh, of which discharging gives 96 %.
    assert number(year, "battery-and-pv", "Usable energy", whole)["Usable"] == pytest.approx(
        6.4 * 0.96, rel=0.03
    )
    cycles = number(year, "battery-and-pv", "Cycles in the range", whole)["Cycles"]
    assert cycles == pytest.approx(truth["discharged"] / 6.4, rel=0.01)
    assert 94 < number(year, "battery-and-pv", "Inverter efficiency", whole)["Efficiency"] < 97
    lost = number(year, "battery-and-pv", "Lost in the inverter", whole)["Lost"]
    assert lost == pytest.approx(truth["lost"], rel=0.01)


def test_power_is_the_same_from_all_data(year: Year) -> None:
    """The mean home power of a day is the plant's, from minutes, quarter hours and hours."""
    shown = panel("energy-flows", "Power")
    day = local_days((year.now - timedelta(days=10)).date())
    truth = year.truth.day(day.start.date())["home"] * 1000 / 24
    for milliseconds in (60_000, 900_000, 3_600_000):
        found = [
            row
            for target in shown["targets"]
            for row in year.ask(resolved(target["query"], day, CHOSEN, milliseconds))
        ]
        assert len(found) == 86_400_000 // milliseconds
        assert sum(row["Home"] for row in found) / len(found) == pytest.approx(truth, rel=1e-6)


def test_live_numbers_are_the_plants(year: Year) -> None:
    """Numbers of now and the flow picture are those of the last second, with the right signs."""
    span = year.truth.spans[-1]
    now = last(year, 1)
    shown: dict[str, float] = {}
    for title in ("PV", "Home", "Grid (+ buying)", "Battery (+ discharging)"):
        where = panel("energy-flows", title)
        shown |= values(rows(year, where, range_of(where, now, ZONE))[0])
    expected = {"PV": span.pv_w, "Home": span.home_w, "Grid": span.meter_w, "Battery": span.battery_w}
    assert shown == pytest.approx(expected)
    picture = panel("energy-flows", "Flow picture")
    flows, totals = (values(answer[0]) for answer in answers(year, picture, range_of(picture, now, ZONE)))
    assert totals["Home power"] == pytest.approx(span.home_w)
    into_home = sum(watts for name, watts in flows.items() if name.endswith("_to_home"))
    assert into_home == pytest.approx(span.home_w)


def test_old_data_is_not_shown_as_live(year: Year) -> None:
    """A number of now is empty when the newest sample is older than a minute."""
    where = panel("energy-flows", "PV")
    later = year.now + timedelta(minutes=2)
    assert not any(answers(year, where, range_of(where, TimeRange(year.now, later), ZONE)))


def test_a_number_before_a_name_is_escaped_by_the_format_only(year: Year) -> None:
    """Grafana leaves a site that begins with a number as it is, unless the format says otherwise."""
    query = 'SHOW TAG VALUES FROM "pcs_1m" WITH KEY = "device" WHERE "site" =~ /^{}$/'
    with_format = resolved(query.format("${site:regex}"), last(year, 1), CHOSEN)
    assert "24\\/7" in with_format
    assert "24/7" in resolved(query.format("$site"), last(year, 1), CHOSEN)


def test_range_that_ends_at_midnight_has_no_bar_of_the_next_day(year: Year) -> None:
    """A range of two days from midnight to midnight has two bars, also of savings, and 48 hours."""
    start, _ = local_days((year.now - timedelta(days=12)).date(), 2)
    two_days = TimeRange(start, start + timedelta(days=2))
    for dashboard, title in (
        ("energy-history", "Days"),
        ("energy-history", "Savings of days ($currency)"),
        ("battery-and-pv", "Charged and discharged"),
        ("grid", "Bought and sold"),
    ):
        assert len(rows(year, panel(dashboard, title), two_days)) == 2
    assert len(rows(year, panel("energy-history", "When energy is bought"), two_days)) == 48


def test_energy_of_the_range_includes_the_current_quarter_hour(year: Year) -> None:
    """At 14:41 the energies of the last hours go up to 14:41, wherever the last quarter hour began."""
    for minutes in (0, 3, 11):
        end = year.now - timedelta(minutes=minutes)
        start = end.replace(minute=0) - timedelta(hours=1)
        shown = chosen_energy_at(year, TimeRange(start, end))
        truth = year.truth.energy(start, end)
        assert shown["Home"] == pytest.approx(truth["home"], abs=0.001)
        assert shown["PV"] == pytest.approx(truth["pv"], abs=0.001)


def chosen_energy_at(year: Year, time_range: TimeRange) -> Row:
    """What "Energy in the chosen range" showed at the end of the range."""
    shown = panel("energy-flows", "Energy in the chosen range")
    then = [as_of(time_range.end, each) for each in statements(shown, time_range)]
    (row,) = transformed(shown, [row for each in then for row in year.server.query(each, "ess")], ZONE)
    return row


def test_energy_today_is_that_of_today(year: Year) -> None:
    """Energy today is the same whichever range is chosen, and none is shown before today has some."""
    shown = panel("energy-flows", "Energy today")
    assert "timeFrom" not in shown
    midnight = local_days(year.now.astimezone(ZONE).date()).start
    truth = year.truth.energy(midnight, year.now.replace(minute=30))
    for time_range in (last(year, 1), local_days((year.now - timedelta(days=200)).date())):
        (row,) = rows(year, shown, time_range)
        assert row["Home"] == pytest.approx(truth["home"], rel=0.05)
        assert row["Bought"] == pytest.approx(truth["bought"], abs=0.05)
    tomorrow = year.now + timedelta(days=1)
    asked = statements(shown, last(year, 1))
    assert not any(year.server.query(as_of(tomorrow, each), "ess") for each in asked)


@pytest.mark.parametrize(
    ("dashboard", "title"),
    [
        ("energy-flows", "Power"),
        ("energy-flows", "State of charge over time"),
        ("energy-flows", "Averages of ten samples"),
        ("battery-and-pv", "Battery power"),
        ("battery-and-pv", "Voltage of the strings"),
        ("grid", "Frequency"),
        ("recorder", "Sample age"),
    ],
)
@pytest.mark.parametrize("hours", [1, 2, 4])
def test_short_range_of_last_year_has_curves(year: Year, dashboard: str, title: str, hours: int) -> None:
    """Two hours of half a year ago, when no sample is kept any more, are read from minutes."""
    noon = local_days((year.now - timedelta(days=180)).date()).start + timedelta(hours=12)
    shown = panel(dashboard, title)
    found = [
        row
        for answer in answers(year, shown, TimeRange(noon, noon + timedelta(hours=hours)))
        for row in answer
    ]
    assert any(isinstance(value, float | int) for row in found for value in values(row).values())


def test_nights_do_not_lower_the_voltage_of_a_year(year: Year) -> None:
    """In a year the voltage of a string is that of its hours with light."""
    shown = panel("battery-and-pv", "Voltage of the strings")
    found = [row for answer in answers(year, shown, last(year, 365)) for row in answer]
    volts = [value for row in found for value in values(row).values() if value is not None]
    assert len(volts) > 700
    assert min(volts) > 50


def test_submeter_is_shown_by_its_device(year: Year) -> None:
    """Power, energy of a day and bars of days of a submeter are those of its constant power."""
    day = local_days((year.now - timedelta(days=3)).date())
    power = rows(year, panel("energy-flows", "Power of submeters"), day)
    assert {row["device"] for row in power} == {SUBMETER}
    assert {row["Power"] for row in power} == {SUBMETER_W}
    (chosen,) = rows(year, panel("energy-flows", "Energy of submeters"), day)
    assert chosen["Energy"] == pytest.approx(SUBMETER_W * 24 / 1000)
    (bar,) = rows(year, panel("energy-history", "Submeters by day"), day)
    assert (bar["device"], bar["time"]) == (SUBMETER, day.start.timestamp() * 1e9)
