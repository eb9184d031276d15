"""The dashboard "Grid": voltages within EN 50160, frequency, import and export, imbalance.

Takes the names of the data model, gives the dashboard as a builder. Never writes a file.
"""

from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.models import common as options

from grafana import panels as shared
from grafana.influxql import (
    ENERGY_DAYS,
    OF_METER,
    Target,
    extreme_tiers,
    gauge_tiers,
    in_range,
    local_rows,
    over_time,
    select,
    table,
    targets,
)
from grafana.panels import GRID, Panel, place

# EN 50160: 230 V -10 % +10 %, 50 Hz -1 % +1 %, unbalance up to 2 %.
_LEAST_V, _MOST_V, _LEAST_HZ, _MOST_HZ, _MOST_UNBALANCE = 207, 253, 49.5, 50.5, 2
_PHASE_COLOURS = {"L1": GRID, "L2": "green", "L3": "orange"}
_VOLTAGE_BAND = shared.Limits(shared.BAD, (_LEAST_V, shared.CLEAR), (_MOST_V, shared.BAD))
_FREQUENCY_BAND = shared.Limits(shared.BAD, (_LEAST_HZ, shared.CLEAR), (_MOST_HZ, shared.BAD))
_VOLTAGES = shared.Limits(shared.BAD, (_LEAST_V, "green"), (_MOST_V, shared.BAD))
_FREQUENCIES = shared.Limits(shared.BAD, (_LEAST_HZ, "green"), (_MOST_HZ, shared.BAD))


def dashboard() -> Dashboard:
    """The dashboard with all of its panels."""
    heading = shared.Heading(
        "grid",
        "Grid",
        "Voltages, frequency, import and export.",
        ("now-24h", "now"),
        "1m",
        (shared.SITE, shared.METER),
    )
    return shared.dashboard(heading, [*_voltages(), *_frequency(), *_power()])


def _plot(columns: dict[str, str]) -> list[Target]:
    return targets(over_time(columns, "mean", gauge_tiers("powermeter"), OF_METER))


def _phases(columns: dict[str, str], limits: tuple[float, float]) -> timeseries.Panel:
    """Curves of the phases, on an axis that holds both limits and a little more."""
    least, most = limits
    margin = (most - least) / 20
    return shared.lines(_plot(columns)).axis_soft_min(least - margin).axis_soft_max(most + margin)


def _extreme(aggregate: str, suffix: str) -> list[Target]:
    fields = {phase: f'{{of}}("voltage_{phase.lower()}_{suffix}")' for phase in _PHASE_COLOURS}
    return targets(in_range(fields, aggregate, extreme_tiers("powermeter"), OF_METER))


def _voltages() -> list[Panel]:
    volts = {phase: f'{{of}}("voltage_{phase.lower()}")' for phase in _PHASE_COLOURS}
    mean = '({of}("voltage_l1") + {of}("voltage_l2") + {of}("voltage_l3"))'
    apart = {phase: f'300 * {{of}}("voltage_{phase.lower()}") / {mean} - 100' for phase in _PHASE_COLOURS}
    return [
        place(
            shared.with_limit_lines(shared.coloured(_phases(volts, (_LEAST_V, _MOST_V)), _PHASE_COLOURS)),
            (24, 10),
            "Voltage of the phases",
            "volt",
            f"Each phase to neutral. Lines at the limits of EN 50160, {_LEAST_V} V and {_MOST_V} V (230 V"
            " -10 % and"
            f" +10 %). {shared.GAP}",
            _VOLTAGE_BAND,
        ),
        place(
            shared.number(_extreme("min", "min"), shared.by_limits()).decimals(1),
            (12, 5),
            "Lowest voltage",
            "volt",
            f"The lowest sample of each phase in the chosen range; red outside {_LEAST_V} to {_MOST_V} V.",
            _VOLTAGES,
        ),
        place(
            shared.number(_extreme("max", "max"), shared.by_limits()).decimals(1),
            (12, 5),
            "Highest voltage",
            "volt",
            f"The highest sample of each phase in the chosen range; red outside {_LEAST_V} to {_MOST_V} V.",
            _VOLTAGES,
        ),
        place(
            shared.with_limit_lines(
                shared.coloured(_phases(apart, (-_MOST_UNBALANCE, _MOST_UNBALANCE)), _PHASE_COLOURS)
            ),
            (24, 8),
            "Imbalance",
            "percent",
            "How far the voltage of each phase is from the mean of the three; lines at 2 %, the limit of"
            " EN 50160 for"
            f" unbalance, which this comes near to, as the meter does not tell angles. {shared.GAP}",
            shared.Limits(shared.BAD, (-_MOST_UNBALANCE, shared.CLEAR), (_MOST_UNBALANCE, shared.BAD)),
        ),
    ]


def _frequency() -> list[Panel]:
    now = Target(select({"Frequency": '{of}("frequency")'}, "last", '"powermeter"', OF_METER))
    return [
        place(
            shared.with_limit_lines(
                shared.lines(_plot({"Frequency": '{of}("frequency")'})).color_scheme(shared.one_colour(GRID))
            ).decimals(3),
            (18, 8),
            "Frequency",
            "hertz",
            f"Frequency of the grid. Lines at {_LEAST_HZ} and {_MOST_HZ} Hz (EN 50160: 50 Hz -1 % and +1"
            f" %). {shared.NEAR_LIMITS} {shared.GAP}",
            _FREQUENCY_BAND,
        ),
        place(
            shared.live([now], shared.by_limits()).decimals(2),
            (6, 8),
            "Frequency now",
            "hertz",
            "Newest sample of the last minute.",
            _FREQUENCIES,
        ),
    ]


def _power() -> list[Panel]:
    days = {"Bought": '{of}("grid_import")', "Sold": '-1 * {of}("grid_export")'}
    readings = {"Bought": '{of}("active_import")', "Sold": '{of}("active_export")'}
    peaks = {"Bought": '{of}("active_power_max")'}
    colours = {"Bought": GRID, "Sold": shared.GRID_EXPORT}
    return [
        place(
            shared.coloured(shared.curves(_plot({"Grid": '{of}("active_power")'})), {"Grid": GRID}),
            (24, 9),
            "Power at the meter",
            "watt",
            f"Buying is positive, selling negative. {shared.GAP}",
        ),
        place(
            shared.coloured(shared.bars(table(local_rows(days, ENERGY_DAYS))).time_from("30d"), colours),
            (12, 9),
            "Bought and sold",
            shared.KWH,
            "Energy of each local day by the meter's counters; sold energy is below zero. Shows the last"
            f" 30 days, {shared.FIXED_ENDS}.",
        ),
        shared.not_negative(
            place(
                shared.number(
                    targets(in_range(peaks, "max", extreme_tiers("powermeter"), OF_METER)),
                    shared.one_colour(GRID),
                ),
                (6, 9),
                "Highest power bought",
                "watt",
                "The highest sample at the meter in the chosen range; 0 W where nothing was bought.",
            )
        ),
        place(
            shared.coloured(
                shared.number(
                    [Target(select(readings, "last", '"rollups"."powermeter_1m"', OF_METER))],
                    shared.one_colour(GRID),
                )
                .decimals(2)
                .orientation(options.VizOrientation.HORIZONTAL),
                colours,
            ),
            (6, 9),
            "Meter readings",
            shared.KWH,
            "What the meter's counters say at the end of the chosen range, to compare with its display.",
        ),
    ]
