"""What the system saved: panels of the dashboard "Energy history".

Takes the names of `savings_1d`, gives panels as builders. Never writes a file.

Amounts are in the currency of the tariff file, which stands above the dashboard as `$currency`: InfluxDB
holds numbers only.
"""

from grafana import panels as shared
from grafana.influxql import OF_INTERVALS, Target, local_rows, select, table
from grafana.panels import FIXED_ENDS, Panel, place

_DAYS = '"rollups"."savings_1d"'
_AMOUNTS = {
    "Saved": '{of}("saved")',
    "Earned by selling": '{of}("feed_in_income")',
    "Paid for buying": '-1 * {of}("import_cost")',
}
_COLOURS = {"Saved": "green", "Earned by selling": shared.GRID_EXPORT, "Paid for buying": shared.GRID}
_MEANING = (
    "Saved: what the home's energy would have cost if all of it had been bought, less what was paid, plus"
    " what was earned. By the tariff file of the recorder; docs/tariffs.md has the definitions."
)


def panels() -> list[Panel]:
    """Amounts of the chosen range, and of days, months and years."""
    whole = {**_AMOUNTS, "Without the system": '-1 * {of}("cost_without_system")'}
    chosen = shared.number([Target(select(whole, "sum", _DAYS, OF_INTERVALS))], shared.one_colour("green"))
    days, months, years = (
        shared.coloured(shared.bars(table(local_rows(_AMOUNTS, _DAYS))), _COLOURS).decimals(2)
        for _ in range(3)
    )
    return [
        place(
            shared.coloured(
                chosen.decimals(2).no_value("No day begins in the range"),
                {**_COLOURS, "Without the system": shared.NEUTRAL},
            ),
            (24, 6),
            "Savings in the chosen range ($currency)",
            "none",
            f"Sum of the local days that begin in the range; what is paid is below zero. {_MEANING}",
        ),
        place(
            days.time_from("now/M"),
            (24, 9),
            "Savings of days ($currency)",
            "none",
            f"Each local day, today so far too; what is paid is below zero. Shows this month, {FIXED_ENDS}."
            f" {_MEANING}",
        ),
        place(
            shared.grouped_by_time(months.time_from("now/y"), "YYYY-MM", list(_AMOUNTS)),
            (12, 9),
            "Savings of months ($currency)",
            "none",
            f"Each month; what is paid is below zero. Shows this year, {FIXED_ENDS}. {_MEANING}",
        ),
        place(
            shared.grouped_by_time(years.time_from("10y"), "YYYY", list(_AMOUNTS)),
            (12, 9),
            "Savings of years ($currency)",
            "none",
            f"Each year; what is paid is below zero. Shows ten years, {FIXED_ENDS}. {_MEANING}",
        ),
    ]
