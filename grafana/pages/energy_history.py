"""The dashboard "Energy history": days, months and years, when energy is used, and how sure the figures are.

Takes the names of the data model, gives the dashboard as a builder. Never writes a file.

Days, months and years are sums of `energy_1d`, whose points carry the local midnight at which a day begins;
Grafana's own transformations make months and years of them.
"""

from grafana_foundation_sdk.builders import barchart, heatmap
from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.models import heatmap as heatmap_options

from grafana import panels as shared
from grafana.influxql import (
    ENERGY_DAYS,
    ENERGY_HOURS,
    ENERGY_TIERS,
    OF_INTERVALS,
    OF_SITE_ALWAYS,
    Target,
    Tier,
    in_range,
    local_rows,
    select,
    select_from,
    table,
    targets,
)
from grafana.pages import savings, submeters
from grafana.pages.energy_flows import ENERGY_COLOURS, shares
from grafana.panels import FIXED_ENDS, HOME, Panel, place, transformation

_BARS = {
    "PV": '{of}("pv")',
    "Home": '{of}("home")',
    "Bought": '{of}("grid_import")',
    "Sold": '-1 * {of}("grid_export")',
}
_COUNTED = {
    "Bought": "grid_import",
    "Sold": "grid_export",
    "Charged": "battery_charge",
    "Discharged": "battery_discharge",
}
# Grafana takes the time of a row of a heat map as the end of its cells: that is hour 24 of the day.
_DAY = "YYYY-MM-DD"
_SOLD = "Sold energy is below zero."
_COVERED_HOURS, _START = '"rollups"."flow_1h"', "${__from}ms"
# Not Grafana's filter, some ms later than `__from`: InfluxDB finds nothing where a piece begins before it.
_RANGE = f"time >= {_START} AND time < ${{__to}}ms"
_WHOLE_HOURS = f"{_RANGE} AND time < now() - 1h"
_NO_HOUR = "Known once an hour of the range is over"
_COVERAGE = '100 * mean("covered") AS "Coverage"'


def dashboard() -> Dashboard:
    """The dashboard with all of its panels."""
    heading = shared.Heading(
        "energy-history",
        "Energy history",
        "Energy of days, months and years.",
        ("now-1y", "now"),
        "5m",
        (shared.SITE,),
        (("currency", "Currency", "EUR"),),
    )
    return shared.dashboard(
        heading, [*_bars(), *shares((12, 7)), *savings.panels(), *_when(), submeters.days(), *_certainty()]
    )


def _of_days(columns: dict[str, str]) -> barchart.Panel:
    """Bars of local days, each energy in its colour."""
    colours = {name: ENERGY_COLOURS[name] for name in columns}
    return shared.coloured(shared.bars(table(local_rows(columns, ENERGY_DAYS))), colours)


def _bars() -> list[Panel]:
    days, months, before, years = (_of_days(_BARS) for _ in range(4))
    return [
        place(
            days.time_from("now/M"),
            (24, 9),
            "Days",
            shared.KWH,
            f"Energy of each local day, today so far too. {_SOLD} Shows this month, {FIXED_ENDS}."
            f" {shared.FROM_COUNTERS}",
        ),
        place(
            shared.grouped_by_time(months.time_from("now/y"), "YYYY-MM", list(_BARS)),
            (12, 9),
            "Months",
            shared.KWH,
            f"Energy of each month. {_SOLD} Shows this year, {FIXED_ENDS}.",
        ),
        place(
            shared.grouped_by_time(
                before.time_from("now/y").time_shift("1y").hide_time_override(True), "YYYY-MM", list(_BARS)
            ),
            (12, 9),
            "Months, a year before",
            shared.KWH,
            f"The same months of the year before, up to the same day. {_SOLD}",
        ),
        place(
            shared.grouped_by_time(years.time_from("10y"), "YYYY", list(_BARS)),
            (24, 8),
            "Years",
            shared.KWH,
            f"Energy of each year. {_SOLD} Shows ten years, {FIXED_ENDS}.",
        ),
    ]


def _when() -> list[Panel]:
    month = f"Shows this month, {FIXED_ENDS}."
    return [
        place(
            _hours_by_day("home", "Blues"),
            (12, 11),
            "When the home uses energy",
            shared.KWH,
            f"Energy of the home in each hour of each day, local time; empty where no data is. {month}",
        ),
        place(
            _hours_by_day("grid_import", "Purples"),
            (12, 11),
            "When energy is bought",
            shared.KWH,
            f"Energy from the grid in each hour of each day, local time; empty where no data is. {month}",
        ),
    ]


def _hours_by_day(field: str, scheme: str) -> heatmap.Panel:
    """Rows of hours are made a matrix: a column an hour, 00 to 23, a row a day."""
    hours = [f"{hour:02}" for hour in range(24)]
    colours = heatmap.HeatmapColorOptions().mode(heatmap_options.HeatmapColorMode.SCHEME).scheme(scheme)
    panel = (
        heatmap.Panel()
        .time_from("now/M")
        .calculate(False)
        .color(colours.steps(32))
        .cell_values(heatmap.CellValues().unit(shared.KWH).decimals(1))
        .cell_gap(1)
        .show_legend()
        .transformations(
            [
                transformation(
                    "formatTime",
                    timeField="Time",
                    outputFormat=f"[day=]{_DAY}[_24] [hour=]HH",
                    useTimezone=True,
                ),
                transformation("extractFields", source="Time", format="kvp", keepTime=False, replace=False),
                # A matrix takes over the name that the data source gave its values, so each hour would be
                # called "Energy". A calculated field has no such name.
                transformation(
                    "calculateField",
                    mode="binary",
                    binary={"left": "Energy", "operator": "*", "right": "1"},
                    alias="Value",
                    replaceFields=False,
                ),
                transformation(
                    "groupingToMatrix",
                    rowField="day",
                    columnField="hour",
                    valueField="Value",
                    emptyValue="null",
                ),
                transformation(
                    "convertFieldType",
                    conversions=[
                        {"targetField": "day\\hour", "destinationType": "time", "dateFormat": f"{_DAY}_HH"}
                    ],
                ),
                # Hours come in the order in which the range meets them; the axis wants them from 00 on.
                transformation(
                    "organize",
                    indexByName={"day\\hour": 0, **{hour: n for n, hour in enumerate(hours, start=1)}},
                    excludeByName={},
                    renameByName={"day\\hour": "Time"},
                ),
            ]
        )
    )
    return shared.asking(panel, table(local_rows({"Energy": f'{{of}}("{field}")'}, ENERGY_HOURS)))


def _coverage() -> list[str]:
    """Return the queries for the part of the range that has data, in percent.

    A minute or an hour without data counts as 0, however long nothing was recorded. What is not over yet does
    not count. Pieces begin with the range, as the first one would else be cut.
    """
    minutes, hours = Tier('"rollups"."flow_1m"', 0, 900_000), Tier(_COVERED_HOURS, 900_000, None)
    over = f"{_RANGE} AND time < now() - 2m"
    known = select(
        {"home": 'last("home")'},
        "",
        minutes.source,
        f"{minutes.condition} AND {OF_SITE_ALWAYS} AND {over} GROUP BY time(1m) fill(none)",
    )
    each = select_from(known, 'count("home") AS "covered"', f"{over} GROUP BY time(1m, {_START}) fill(0)")
    return [
        select_from(each, _COVERAGE, over),
        select_from(_covered_hours(f"{hours.condition} AND"), _COVERAGE, _WHOLE_HOURS),
    ]


def _coverage_over_time() -> str:
    each = f"{_WHOLE_HOURS} GROUP BY time($__interval, {_START}) fill(null)"
    return select_from(_covered_hours(""), _COVERAGE, each)


def _covered_hours(condition: str) -> str:
    where = f"{condition} {OF_SITE_ALWAYS} AND {_WHOLE_HOURS} GROUP BY time(1h, {_START}) fill(0)"
    return select({"covered": 'max("coverage")'}, "", _COVERED_HOURS, where.strip())


def _certainty() -> list[Panel]:
    # A ratio to nothing is 0 for InfluxQL, so that a counter that stands still has no deviation.
    off = {
        name: f'100 * ({{of}}("{field}_integrated") - {{of}}("{field}")) / {{of}}("{field}")'
        for name, field in _COUNTED.items()
    }
    kwh = {name: f'{{of}}("{field}_integrated") - {{of}}("{field}")' for name, field in _COUNTED.items()}
    limits = shared.Limits(shared.BAD, (95, shared.WARNING), (99, "green"))
    coverage = shared.curves([Target(_coverage_over_time())], "1d").min(0).max(100).no_value(_NO_HOUR)
    return [
        place(
            shared.number(targets(_coverage()), shared.by_limits()).decimals(1).no_value("0 %"),
            (6, 8),
            "Data coverage",
            "percent",
            "Minutes of the chosen range that have data, up to now; energies from power lack the others."
            " Longer ranges than a week are measured by their hours.",
            limits,
        ),
        place(
            coverage.color_scheme(shared.one_colour(HOME)),
            (18, 8),
            "Data coverage over time",
            "percent",
            "Minutes with data of each 24 hours from the start of the range on, or of longer pieces in a long"
            " range; 0 % where nothing was recorded.",
            limits,
        ),
        place(
            shared.number(
                targets(in_range(off, "sum", ENERGY_TIERS, OF_INTERVALS)), shared.by_limits()
            ).decimals(1),
            (24, 6),
            "Deviation from the counters",
            "percent",
            "How far energy integrated from power is from what the counters of meter and battery say, in"
            " the chosen"
            " range: negative where samples are missing. The counters are the truth; 0 % also where a"
            " counter stands.",
            shared.Limits(
                shared.BAD, (-10, shared.WARNING), (-3, "green"), (3, shared.WARNING), (10, shared.BAD)
            ),
        ),
        place(
            _of_days(kwh).time_from("now/M"),
            (24, 8),
            "Deviation from the counters, by day",
            shared.KWH,
            "Energy integrated from power less that of the counters, on each local day. Shows this month,"
            f" {FIXED_ENDS}.",
        ),
    ]
