"""The dashboard "Energy flows" as code.

Takes the names of the data model, gives `grafana/dashboards/energy-flows.json`, which Grafana 12 loads.
Uses built-in panels only. Never talks to Grafana or InfluxDB.

usage: python grafana/build.py [--check]
    --check  write nothing; exit 1 when the file is not what this program would write
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from grafana_foundation_sdk.builders import barchart, bargauge, common, gauge, stat, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard, FieldColor, QueryVariable, ThresholdsConfig
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    DynamicConfigValue,
    FieldColorModeId,
    Panel,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
    VariableSort,
)

TARGET = Path(__file__).parent / "dashboards" / "energy-flows.json"
DATA_SOURCE = DataSourceRef(type_val="influxdb", uid="ess-influxdb")

# Names of Grafana's palette and no numbers: it has a shade of each for the light and the dark theme.
PV, HOME, GRID, BATTERY = "yellow", "blue", "purple", "green"
GRID_EXPORT, BATTERY_CHARGE, INVERTER = "light-purple", "semi-dark-green", "orange"

OF_SITE = '"site" =~ /^$site$/ AND $timeFilter'
OF_DEVICE = f'"device" =~ /^$device$/ AND {OF_SITE}'
OF_METER = f'"device" =~ /^$meter$/ AND {OF_SITE}'
OF_BOTH = f'("device" =~ /^$device$/ OR "device" =~ /^$meter$/) AND {OF_SITE}'
EACH_INTERVAL = "GROUP BY time($__interval) fill(null)"

# Where a point of the plot is an hour or more, quarter hours tell what minutes tell, ten times faster.
IN_MINUTES, IN_HOURS = "$__interval_ms < 3600000 AND", "$__interval_ms >= 3600000 AND"

# What is plotted, in W; `{of}` is the aggregate.
POWERS = {
    "PV": '{of}("pv")',
    "Home": '{of}("home")',
    "Grid": '{of}("grid_import") - {of}("grid_export")',
    "Battery": '{of}("battery_discharge") - {of}("battery_charge")',
}
POWER_COLOURS = {"PV": PV, "Home": HOME, "Grid": GRID, "Battery": BATTERY}
SIGNS = "Grid: buying is positive, selling negative. Battery: discharging is positive, charging negative."
LAST_HOUR = "Shows the last hour, or the chosen range if it has fixed ends."

# What an energy is called, its field in kWh, and its colour.
ENERGIES = (
    ("PV", "pv", PV),
    ("Home", "home", HOME),
    ("Bought", "grid_import", GRID),
    ("Sold", "grid_export", GRID_EXPORT),
    ("Into the battery", "battery_charge", BATTERY_CHARGE),
    ("Out of the battery", "battery_discharge", BATTERY),
)
ENERGY_FIELDS = {name: f'{{of}}("{field}")' for name, field, _ in ENERGIES}
ENERGY_COLOURS = {name: colour for name, _, colour in ENERGIES}


class InfluxQL(Dataquery):
    """One InfluxQL query of a panel, as Grafana's InfluxDB data source reads it.

    `result_format` is "time_series", with one series a column named by its alias, or "table".
    Source of the names: pkg/tsdb/influxdb/models/model_parser.go of Grafana.
    """

    def __init__(self, query: str, ref_id: str, result_format: str) -> None:
        self.query = query
        self.ref_id = ref_id
        self.result_format = result_format

    def to_json(self) -> dict[str, object]:
        """The query as a target of a panel."""
        return {
            "alias": "$col",
            "datasource": DATA_SOURCE,
            "query": self.query,
            "rawQuery": True,
            "refId": self.ref_id,
            "resultFormat": self.result_format,
        }


class Target(Builder[Dataquery]):
    """Hands an `InfluxQL` to a panel of the SDK."""

    def __init__(self, query: str, ref_id: str = "A", result_format: str = "time_series") -> None:
        self._query = InfluxQL(query, ref_id, result_format)

    def build(self) -> Dataquery:
        """The query itself."""
        return self._query


P = TypeVar("P", stat.Panel, timeseries.Panel, gauge.Panel, bargauge.Panel, barchart.Panel)


def select(columns: Mapping[str, str], aggregate: str, source: str, *clauses: str) -> str:
    """The query for expressions by their names; `{of}` in them becomes the aggregate."""
    named = ", ".join(f'{value.format(of=aggregate)} AS "{name}"' for name, value in columns.items())
    return " ".join(("SELECT", named, "FROM", source, "WHERE", *clauses))


def place(panel: P, columns_and_rows: tuple[int, int], title: str, unit: str, description: str) -> P:
    """Give a panel what every panel has; its size is on a grid 24 columns wide, filled row by row."""
    width, height = columns_and_rows
    panel.span(width).height(height).title(title).unit(unit)
    return panel.description(description).datasource(DATA_SOURCE)


def coloured(panel: P, colours: Mapping[str, str]) -> P:
    """Give each series its colour by its name."""
    for name, colour in colours.items():
        panel.override_by_name(name, [DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})])
    return panel


def one_colour(colour: str) -> FieldColor:
    """The same colour for everything in a panel."""
    return FieldColor().mode(FieldColorModeId.FIXED).fixed_color(colour)


def one_number() -> common.ReduceDataOptions:
    """One number for each series."""
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)


def live(name: str, expression: str, colour: str, source: str = '"flow"') -> stat.Panel:
    """The newest value of the last minute, or "No data" when it has none."""
    return (
        stat.Panel()
        .time_from("1m")
        .hide_time_override(True)
        .color_scheme(one_colour(colour))
        .color_mode(options.BigValueColorMode.VALUE)
        .graph_mode(options.BigValueGraphMode.NONE)
        .text_mode(options.BigValueTextMode.VALUE)
        .reduce_options(one_number())
        .with_target(Target(select({name: expression}, "last", source, OF_DEVICE)))
    )


def curves(shortest_interval: str) -> timeseries.Panel:
    """Lines over time, with a gap where data is missing."""
    return (
        timeseries.Panel()
        .interval(shortest_interval)
        .span_nulls(False)
        .line_width(1)
        .fill_opacity(10)
        .show_points(options.VisibilityMode.AUTO)
        .legend(legend())
        .tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI))
    )


def legend() -> common.VizLegendOptions:
    """The names below the plot, where a narrow screen has room for them."""
    return (
        common.VizLegendOptions()
        .display_mode(options.LegendDisplayMode.LIST)
        .placement(options.LegendPlacement.BOTTOM)
        .show_legend(True)
    )


def share(part: str, whole: str, colour: str) -> gauge.Panel:
    """An energy of the chosen range as a percentage of another one."""
    columns = {"Share": f'100 * ({part}) / {{of}}("{whole}")'}
    return (
        gauge.Panel()
        .min(0)
        .max(100)
        .decimals(0)
        .color_scheme(one_colour(colour))
        .thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps([Threshold(color=colour)]))
        .reduce_options(one_number())
        .with_target(Target(select(columns, "sum", '"rollups"."energy_15m"', OF_SITE)))
    )


def live_panels() -> list[Builder[Panel]]:
    """The first row: what flows now."""
    newest = "Newest sample of the last minute."
    charge = live("Charge", '{of}("battery_soc")', BATTERY, '"pcs"').decimals(0)
    return [
        place(live("PV", POWERS["PV"], PV), (5, 4), "PV", "watt", f"DC power of all strings. {newest}"),
        place(
            live("Home", POWERS["Home"], HOME),
            (5, 4),
            "Home",
            "watt",
            f"What the home uses: AC power of the inverter plus power at the meter. {newest}",
        ),
        place(
            live("Grid", POWERS["Grid"], GRID),
            (5, 4),
            "Grid (+ buying)",
            "watt",
            f"Power at the meter: buying is positive, selling negative. {newest}",
        ),
        place(
            live("Battery", POWERS["Battery"], BATTERY),
            (5, 4),
            "Battery (+ discharging)",
            "watt",
            f"Power of the battery: discharging is positive, charging negative. {newest}",
        ),
        place(
            charge, (4, 4), "State of charge", "percent", f"Charge as the battery's owner sees it. {newest}"
        ),
    ]


def power_panels() -> list[Builder[Panel]]:
    """Power and state of charge over time."""
    samples = select(POWERS, "mean", '"flow"', OF_DEVICE, EACH_INTERVAL)
    minutes = select(POWERS, "mean", '"rollups"."flow_1m"', IN_MINUTES, OF_DEVICE, EACH_INTERVAL)
    watts = {name: f"4000 * ({kwh_a_quarter})" for name, kwh_a_quarter in POWERS.items()}
    quarters = select(watts, "mean", '"rollups"."energy_15m"', IN_HOURS, OF_BOTH, EACH_INTERVAL)
    long_range = curves("1m").with_target(Target(minutes)).with_target(Target(quarters, "B"))
    charge = select({"Charge": '{of}("battery_soc")'}, "mean", '"rollups"."pcs_1m"', OF_DEVICE, EACH_INTERVAL)
    return [
        place(
            coloured(curves("5s").time_from("1h").with_target(Target(samples)), POWER_COLOURS),
            (24, 9),
            "Power in detail",
            "watt",
            f"Means of a few samples. {SIGNS} A gap is missing data. {LAST_HOUR}",
        ),
        place(
            coloured(long_range, POWER_COLOURS),
            (16, 9),
            "Power",
            "watt",
            f"Means of a minute or more. {SIGNS} A gap is missing data. Points of an hour or more come from"
            " energies: there the gain of a counter in an outage shows at its end.",
        ),
        place(
            curves("1m").min(0).max(100).color_scheme(one_colour(BATTERY)).with_target(Target(charge)),
            (8, 9),
            "State of charge",
            "percent",
            "Charge of the battery as its owner sees it, means of one minute or more, axis 0 to 100 %.",
        ),
    ]


def energy_panels() -> list[Builder[Panel]]:
    """Energies of the chosen range, and what follows from them."""
    chosen = select(ENERGY_FIELDS, "sum", '"rollups"."energy_15m"', OF_SITE)
    # Buckets of a day would begin at midnight UTC; those of 15 minutes keep the local midnight of each point.
    days = select(ENERGY_FIELDS, "sum", '"rollups"."energy_1d"', OF_SITE, "GROUP BY time(15m) fill(none)")
    bars = (
        bargauge.Panel()
        .orientation(options.VizOrientation.HORIZONTAL)
        .display_mode(options.BarGaugeDisplayMode.BASIC)
        .min(0)
        .decimals(1)
        .reduce_options(one_number())
        .with_target(Target(chosen))
    )
    daily = (
        barchart.Panel()
        .time_from("30d")
        .x_field("Time")
        .x_tick_label_spacing(100)
        .decimals(1)
        .legend(legend())
        .tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI))
        .with_target(Target(days, result_format="table"))
    )
    return [
        place(
            coloured(bars, ENERGY_COLOURS),
            (12, 9),
            "Energy in the chosen range",
            "kwatth",
            "Sum of the quarter hours that begin in the range, renewed every five minutes. Taken from the"
            " counters of meter and battery where there is one, else from power.",
        ),
        place(
            share('{of}("pv_to_home") + {of}("battery_to_home")', "home", HOME),
            (6, 9),
            "Self-sufficiency",
            "percent",
            "The part of the home's energy that came from PV and battery and not from the grid:"
            " (pv_to_home + battery_to_home) / home, over the quarter hours that begin in the range.",
        ),
        place(
            share('{of}("pv") - {of}("pv_to_grid")', "pv", PV),
            (6, 9),
            "Self-consumption",
            "percent",
            "The part of the PV energy that was used or stored at home and not sold:"
            " (pv - pv_to_grid) / pv, over the quarter hours that begin in the range.",
        ),
        place(
            coloured(daily, ENERGY_COLOURS),
            (24, 9),
            "Energy of each day",
            "kwatth",
            "Local days, today so far too. Shows the last 30 days, or the chosen range if it has fixed ends.",
        ),
    ]


def average_panels() -> list[Builder[Panel]]:
    """The averages of ten samples, as the continuous queries make them."""
    pcs = {"PV": '{of}("pv_power")', "Inverter": '{of}("active_power")', "Battery": '{of}("battery_power")'}
    meter = {"Grid": '{of}("active_power")'}
    from_pcs = select(pcs, "mean", '"avg10"."pcs_avg10"', OF_DEVICE, EACH_INTERVAL)
    from_meter = select(meter, "mean", '"avg10"."powermeter_avg10"', OF_METER, EACH_INTERVAL)
    panel = curves("5s").time_from("1h").with_target(Target(from_pcs)).with_target(Target(from_meter, "B"))
    return [
        place(
            coloured(panel, {"PV": PV, "Inverter": INVERTER, "Battery": BATTERY, "Grid": GRID}),
            (24, 9),
            "Averages of ten samples",
            "watt",
            "Means of the last ten samples of inverter (AC power) and meter, made by continuous queries."
            f" {SIGNS} {LAST_HOUR}",
        )
    ]


def variable(name: str, label: str, query: str) -> QueryVariable:
    """A choice above the dashboard, filled by a query; the first value is chosen at first."""
    return (
        QueryVariable(name)
        .label(label)
        .datasource(DATA_SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_DASHBOARD_LOAD)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )


def dashboard() -> str:
    """The dashboard as the JSON that Grafana loads."""
    of_site = 'WHERE "site" =~ /^$site$/'
    builder = (
        Dashboard("Energy flows")
        .uid("energy-flows")
        .description("What flows between PV, battery, home and grid.")
        .tags(["energy"])
        .timezone("")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-24h", "now")
        .refresh("10s")
        .with_variable(variable("site", "Site", 'SHOW TAG VALUES WITH KEY = "site"'))
        .with_variable(
            variable("device", "Inverter", f'SHOW TAG VALUES FROM "flow" WITH KEY = "device" {of_site}')
        )
        .with_variable(
            variable("meter", "Meter", f'SHOW TAG VALUES FROM "powermeter" WITH KEY = "device" {of_site}')
        )
    )
    for panel in (*live_panels(), *power_panels(), *energy_panels(), *average_panels()):
        builder.with_panel(panel)
    built = builder.build()
    for number, numbered in enumerate(built.panels or [], start=1):
        numbered.id_val = number
    return json.dumps(built, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def main(arguments: list[str]) -> int:
    """Write the file, or with `--check` compare it; the exit code."""
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    text = dashboard()
    if not arguments:
        TARGET.write_text(text)
        return 0
    if TARGET.is_file() and TARGET.read_text() == text:
        return 0
    print(f"{TARGET.name} is out of date; run: python grafana/build.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
