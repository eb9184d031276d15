"""What the dashboards' panels share: colours, units, placing, kinds of panels, variables.

Takes queries and texts, gives builders of the library. Never writes a file.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from grafana_foundation_sdk.builders import (
    barchart,
    bargauge,
    canvas,
    common,
    gauge,
    heatmap,
    stat,
    timeseries,
)
from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DashboardLink,
    FieldColor,
    QueryVariable,
    TextBoxVariable,
    ThresholdsConfig,
)
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    RangeMap,
    Threshold,
    ThresholdsMode,
    ValueMappingResult,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.dashboard import DashboardRangeMapOptions as RangeMapOptions

from grafana.annotations import annotations
from grafana.influxql import DATA_SOURCE, Target

# Names of Grafana's palette and no numbers: it has a shade of each for the light and the dark theme.
PV, HOME, GRID, BATTERY = "yellow", "blue", "purple", "green"
GRID_EXPORT, BATTERY_CHARGE, INVERTER = "light-purple", "semi-dark-green", "orange"
NEUTRAL, WARNING, BAD = "text", "orange", "red"
# What is good has no colour where the area beyond a limit has one.
CLEAR = "transparent"

# Grafana's own kWh turns into Wh and MWh beside each other; its W into mW where a power is next to nothing.
KWH = "suffix:kWh"
_NO_POWER = (-1, 1, "0 W")

# What stands in place of a number of now, when there is none.
NOTHING_NEW = "No fresh data"
# More characters than the names of months and years have; with 0 Grafana shortens each to "...".
_LABEL_CHARACTERS = 20

SIGNS = "Grid: buying is positive, selling negative. Battery: discharging is positive, charging negative."
GAP = "A gap is missing data."
FIXED_ENDS = "or the chosen range if it has fixed ends"
NEAR_LIMITS = "A limit comes into view when the curve gets near."
FROM_COUNTERS = "Taken from the counters of meter and battery where there is one, else from power."

Panel = (
    stat.Panel
    | timeseries.Panel
    | gauge.Panel
    | bargauge.Panel
    | barchart.Panel
    | canvas.Panel
    | heatmap.Panel
)
P = TypeVar(
    "P",
    stat.Panel,
    timeseries.Panel,
    gauge.Panel,
    bargauge.Panel,
    barchart.Panel,
    canvas.Panel,
    heatmap.Panel,
)


class Limits:
    """The thresholds of a panel: a colour from each value on, the first one below all of them."""

    def __init__(self, below: str = NEUTRAL, *steps: tuple[float, str]) -> None:
        self._steps = [
            Threshold(color=below),
            *(Threshold(value=value, color=colour) for value, colour in steps),
        ]

    @property
    def builder(self) -> ThresholdsConfig:
        """The thresholds as the library takes them."""
        return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(self._steps)


NO_LIMITS = Limits()


def place(  # noqa: PLR0913, PLR0917 - what every panel has
    panel: P,
    columns_and_rows: tuple[int, int],
    title: str,
    unit: str,
    description: str,
    limits: Limits = NO_LIMITS,
) -> P:
    """Give a panel what every panel has; its size is on a grid 24 columns wide, filled row by row."""
    width, height = columns_and_rows
    panel.span(width).height(height).title(title).unit(unit).thresholds(limits.builder)
    if unit == "watt":
        panel.mappings([_range_map(*_NO_POWER)])
    return panel.description(description).datasource(DATA_SOURCE)


def coloured(panel: P, colours: Mapping[str, str]) -> P:
    """Give each series its colour by its name."""
    for name, colour in colours.items():
        panel.override_by_name(name, [DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})])
    return panel


def one_colour(colour: str) -> FieldColor:
    """The same colour for everything in a panel."""
    return FieldColor().mode(FieldColorModeId.FIXED).fixed_color(colour)


def by_limits() -> FieldColor:
    """The colour of the threshold that a value has reached."""
    return FieldColor().mode(FieldColorModeId.THRESHOLDS)


def asking(panel: P, targets: Sequence[Target]) -> P:
    """Give a panel its queries."""
    for target in targets:
        panel.with_target(target)
    return panel


def one_number() -> common.ReduceDataOptions:
    """One number for each series."""
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)


def number(targets: Sequence[Target], colour: FieldColor) -> stat.Panel:
    """A number, large; a plot 1000 points wide decides where it is read."""
    panel = (
        stat.Panel()
        .max_data_points(1000)
        .color_scheme(colour)
        .color_mode(options.BigValueColorMode.VALUE)
        .graph_mode(options.BigValueGraphMode.NONE)
        .text_mode(options.BigValueTextMode.AUTO)
        .reduce_options(one_number())
    )
    return asking(panel, targets)


def live(targets: Sequence[Target], colour: FieldColor) -> stat.Panel:
    """Build a number of the last minute, or a text where that has none."""
    return number(targets, colour).time_from("1m").hide_time_override(True).no_value(NOTHING_NEW)


def curves(targets: Sequence[Target], shortest_interval: str = "5s") -> timeseries.Panel:
    """Lines over time, with a gap where data is missing."""
    panel = (
        timeseries.Panel()
        .interval(shortest_interval)
        .span_nulls(False)
        .line_width(1)
        .fill_opacity(10)
        .show_points(options.VisibilityMode.AUTO)
        .legend(legend())
        .tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI))
    )
    return asking(panel, targets)


def lines(targets: Sequence[Target]) -> timeseries.Panel:
    """Curves of what is never near 0, which an area down to the axis would only blur."""
    return curves(targets).fill_opacity(0)


def with_limit_lines(panel: timeseries.Panel) -> timeseries.Panel:
    """Draw the thresholds as dashed lines, and what is beyond them as areas."""
    return panel.thresholds_style(
        common.GraphThresholdsStyleConfig().mode(options.GraphThresholdsStyleMode.DASHED_AND_AREA)
    )


def legend() -> common.VizLegendOptions:
    """The names below the plot, where a narrow screen has room for them."""
    return (
        common.VizLegendOptions()
        .display_mode(options.LegendDisplayMode.LIST)
        .placement(options.LegendPlacement.BOTTOM)
        .show_legend(True)
    )


def energy_list(targets: Sequence[Target]) -> bargauge.Panel:
    """Energies as horizontal bars with their numbers."""
    panel = (
        bargauge.Panel()
        .max_data_points(1000)
        .orientation(options.VizOrientation.HORIZONTAL)
        .display_mode(options.BarGaugeDisplayMode.BASIC)
        .min(0)
        .decimals(1)
        .reduce_options(one_number())
    )
    return asking(panel, targets)


def bars(targets: Sequence[Target]) -> barchart.Panel:
    """Build a group of bars for each day, month or year; `Time` names the group."""
    panel = (
        barchart.Panel()
        .x_field("Time")
        .x_tick_label_spacing(100)
        .x_tick_label_max_length(_LABEL_CHARACTERS)
        .decimals(1)
        .legend(legend())
        .tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI))
    )
    return asking(panel, targets)


def share(targets: Sequence[Target], colour: str) -> gauge.Panel:
    """A percentage of the chosen range, shown as 0 to 100 % whatever rounding and gaps make of it."""
    panel = (
        gauge.Panel()
        .max_data_points(1000)
        .min(0)
        .max(100)
        .decimals(0)
        .color_scheme(one_colour(colour))
        .mappings([_range_map(None, 0, "0 %"), _range_map(100, None, "100 %")])
        .reduce_options(one_number())
    )
    return asking(panel, targets)


def grouped_by_time(panel: barchart.Panel, time_format: str, columns: Sequence[str]) -> barchart.Panel:
    """Sum rows of days into months or years, for which InfluxQL has no bucket, but Grafana a format.

    The format is that of moment.js and follows the time zone of the dashboard. What it gives is a name: with
    the unit of the panel Grafana would read the year 2025 as 2.025 kWh.
    """
    sums = {name: {"operation": "aggregate", "aggregations": ["sum"]} for name in columns}
    steps = [
        transformation("formatTime", timeField="Time", outputFormat=time_format, useTimezone=True),
        transformation("groupBy", fields={"Time": {"operation": "groupby", "aggregations": []}, **sums}),
        transformation("renameByRegex", regex=r"(.*) \(sum\)", renamePattern="$1"),
    ]
    return panel.transformations(steps).override_by_name("Time", [DynamicConfigValue("unit", "string")])


def added() -> list[DataTransformerConfig]:
    """Return the steps that add numbers of the same name, which come in parts from several queries."""
    sums = {"Last *": {"operation": "aggregate", "aggregations": ["sum"]}}
    return [
        transformation("reduce", reducers=["lastNotNull"], mode="seriesToRows"),
        transformation("groupBy", fields={"Field": {"operation": "groupby", "aggregations": []}, **sums}),
        transformation("rowsToFields"),
    ]


def transformation(name: str, **settings: object) -> DataTransformerConfig:
    """One transformation, by the name that Grafana gives it."""
    return DataTransformerConfig(id_val=name, options=settings)


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


_OF_SITE = 'WHERE "site" =~ /^${site:regex}$/'
SITE = ("site", "Site", 'SHOW TAG VALUES WITH KEY = "site"')
DEVICE = ("device", "Inverter", f'SHOW TAG VALUES FROM "pcs" WITH KEY = "device" {_OF_SITE}')
METER = ("meter", "Meter", f'SHOW TAG VALUES FROM "powermeter" WITH KEY = "device" {_OF_SITE}')


class Heading(NamedTuple):
    """What a dashboard is, without its panels.

    `variables` are filled by a query (name, label, query), `inputs` are typed in (name, label, default).
    """

    uid: str
    title: str
    description: str
    time_range: tuple[str, str]
    refresh: str
    variables: Sequence[tuple[str, str, str]]
    inputs: Sequence[tuple[str, str, str]] = ()


def dashboard(heading: Heading, panels: Sequence[Panel]) -> Dashboard:
    """A dashboard with what all of them share; it follows the time zone of its Grafana."""
    links = DashboardLink("Dashboards").type(DashboardLinkType.DASHBOARDS).tags(["energy"])
    builder = (
        Dashboard(heading.title)
        .uid(heading.uid)
        .description(heading.description)
        .tags(["energy"])
        .timezone("")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time(*heading.time_range)
        .refresh(heading.refresh)
        .link(links.as_dropdown(True).include_vars(True).keep_time(True).icon("external link"))
        .annotations(list(annotations()))
    )
    for name, label, query in heading.variables:
        builder.with_variable(variable(name, label, query))
    for name, label, default in heading.inputs:
        chosen = VariableOption(selected=True, text=default, value=default)
        builder.with_variable(TextBoxVariable(name).label(label).default_value(default).current(chosen))
    for panel in panels:
        builder.with_panel(panel)
    return builder


def not_negative(panel: P) -> P:
    """Show a power below 0 as 0 W."""
    return panel.mappings([_range_map(None, 1, "0 W")])


def _range_map(start: float | None, end: float | None, text: str) -> RangeMap:
    return RangeMap(
        options=RangeMapOptions(from_val=start, to=end, result=ValueMappingResult(text=text, index=0))
    )
