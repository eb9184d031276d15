"""Submeters, such as that of a heat pump: panels of the dashboards "Energy flows" and "Energy history".

Takes the field `submeter_import` of the energies, gives panels as builders. Never writes a file.

A submeter is any device that has this field, whatever its name and its measurement are; its power is computed
from its energy. A home without one sees a text, as Grafana cannot hide a panel.
"""

from grafana_foundation_sdk.models import common as options

from grafana import panels as shared
from grafana.influxql import (
    ENERGY_DAYS,
    ENERGY_HOURS,
    ENERGY_TIERS,
    OF_INTERVALS,
    OF_SITE,
    Tier,
    in_range,
    local_rows,
    over_time,
    targets,
)
from grafana.panels import FIXED_ENDS, Panel, place

_NONE = "No submeter is recorded"
# Else a single submeter fills the panel.
_TALLEST_BAR_PX = 60
_EACH = ', "device"'
_ENERGY = {"Energy": '{of}("submeter_import")'}
_WHAT = (
    "Submeters measure parts of the home, such as a heat pump; what they show is part of what the home uses."
)


def now_and_chosen() -> list[Panel]:
    """Build the power over time, and the energy of the chosen range, of each submeter."""
    half_hour_ms = 1_800_000
    quarters = Tier('"rollups"."energy_15m"', 0, half_hour_ms)
    hours = (Tier(ENERGY_HOURS, half_hour_ms, 3_600_000, "1h"), Tier(ENERGY_HOURS, 3_600_000, None))
    power = [
        *over_time({"Power": '4000 * {of}("submeter_import")'}, "mean", (quarters,), OF_SITE, _EACH),
        *over_time({"Power": '1000 * {of}("submeter_import")'}, "mean", hours, OF_SITE, _EACH),
    ]
    chosen = [f'{query} GROUP BY "device"' for query in in_range(_ENERGY, "sum", ENERGY_TIERS, OF_INTERVALS)]
    return [
        place(
            shared.curves(targets(power, alias="$tag_device"), "15m").no_value(_NONE),
            (14, 8),
            "Power of submeters",
            "watt",
            f"Means of quarter hours or hours, from the energy of each submeter. {_WHAT} {shared.GAP}",
        ),
        place(
            # With a name of its own the panel shows it also where there is but one submeter.
            shared.energy_list(targets(chosen, alias="$tag_device"))
            .display_name("${__field.labels.device}")
            .color_scheme(shared.one_colour(shared.HOME))
            .sizing(options.BarGaugeSizing.MANUAL)
            .max_viz_height(_TALLEST_BAR_PX)
            .no_value(_NONE),
            (10, 8),
            "Energy of submeters",
            shared.KWH,
            f"Sum of the quarter hours, hours or days that begin in the chosen range. {_WHAT}",
        ),
    ]


def days() -> Panel:
    """Build the bars of local days, one for each submeter."""
    rows = targets(local_rows(_ENERGY, ENERGY_DAYS, _EACH), alias="$tag_device")
    # Not a bar chart, which writes the text for no value along its axis.
    bars = (
        shared.curves(rows, "1d")
        .draw_style(options.GraphDrawStyle.BARS)
        .bar_alignment(options.BarAlignment.AFTER)
        .fill_opacity(70)
    )
    return place(
        bars.show_points(options.VisibilityMode.NEVER).axis_soft_min(0).time_from("now/M").no_value(_NONE),
        (24, 8),
        "Submeters by day",
        shared.KWH,
        f"Energy of each local day, today so far too. {_WHAT} Shows this month, {FIXED_ENDS}.",
    )
