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
    OF_SITE,
    Target,
    Tier,
    in_range,
    local_rows,
    over_time,
    select,
    targets,
)
from grafana.pages import savings
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
_SOLD = "Sold energy is below zero."


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
    return shared.dashboard(heading, [*_bars(), *shares((12, 7)), *savings.panels(), *_when(), *_certainty()])


def _of_days(columns: dict[str, str]) -> barchart.Panel:
    """Bars of local days, each energy in its colour."""
    colours = {name: ENERGY_COLOURS[name] for name in columns}
    return shared.coloured(shared.bars(local_rows(columns, ENERGY_DAYS)), colours)


def _bars() -> list[Panel]:
    days, months, before, years = (_of_days(_BARS) for _ in range(4))
    by_month = shared.grouped_by_time("YYYY-MM", list(_BARS))
    by_year = shared.grouped_by_time("YYYY", list(_BARS))
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
            months.time_from("now/y").transformations(by_month),
            (12, 9),
            "Months",
            shared.KWH,
            f"Energy of each month. {_SOLD} Shows this year, {FIXED_ENDS}.",
        ),
        place(
            before.time_from("now/y").time_shift("1y").transformations(by_month),
            (12, 9),
            "Months, a year before",
            shared.KWH,
            f"The same months of the year before, up to the same day. {_SOLD}",
        ),
        place(
            years.time_from("10y").transformations(by_year),
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
        .cell_gap(1)
        .show_legend()
        .transformations(
            [
                transformation(
                    "formatTime",
                    timeField="Time",
                    outputFormat="[day=]YYYY-MM-DD [hour=]HH",
                    useTimezone=True,
                ),
                transformation("extractFields", source="Time", format="kvp", keepTime=False, replace=False),
                transformation(
                    "groupingToMatrix",
                    rowField="day",
                    columnField="hour",
                    valueField="Energy",
                    emptyValue="null",
                ),
                transformation(
                    "convertFieldType",
                    conversions=[
                        {"targetField": "day\\hour", "destinationType": "time", "dateFormat": "YYYY-MM-DD"}
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
    return shared.asking(panel, local_rows({"Energy": f'{{of}}("{field}")'}, ENERGY_HOURS))


def _certainty() -> list[Panel]:
    hours = '"rollups"."flow_1h"'
    covered = select(
        {"Coverage": '100 * 3600000 * {of}("coverage") / (${{__to}} - ${{__from}})'}, "sum", hours, OF_SITE
    )
    # A day is the least that a bucket of this plot is long, so that hours fill it.
    each = over_time(
        {"Coverage": '100 * 3600000 * {of}("coverage") / $__interval_ms'},
        "sum",
        (Tier(hours, 1, None),),
        OF_SITE,
    )
    off = {
        name: f'100 * ({{of}}("{field}_integrated") / {{of}}("{field}") - 1)'
        for name, field in _COUNTED.items()
    }
    kwh = {name: f'{{of}}("{field}_integrated") - {{of}}("{field}")' for name, field in _COUNTED.items()}
    limits = shared.Limits(shared.BAD, (95, shared.WARNING), (99, "green"))
    coverage = shared.curves(targets(each), "1d").min(0).max(100)
    return [
        place(
            shared.number([Target(covered)], shared.by_limits()).decimals(1),
            (6, 8),
            "Data coverage",
            "percent",
            "Minutes of the chosen range that have data; energies from power lack the others.",
            limits,
        ),
        place(
            coverage.color_scheme(shared.one_colour(HOME)),
            (18, 8),
            "Data coverage over time",
            "percent",
            "Minutes with data of each day (UTC), or of longer pieces in a long range; the first and the last"
            " piece may be cut by the range. A gap is a piece without any data.",
            limits,
        ),
        place(
            shared.number(targets(in_range(off, "sum", ENERGY_TIERS, OF_SITE)), shared.by_limits()).decimals(
                1
            ),
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
