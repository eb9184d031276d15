"""The dashboard "Battery and PV": strings, charge, temperature, efficiencies, usable energy, cycles.

Takes the names of the data model, gives the dashboard as a builder. Never writes a file.
"""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue

from grafana import panels as shared
from grafana.influxql import (
    ENERGY_DAYS,
    ENERGY_TIERS,
    OF_DEVICE,
    OF_INTERVALS,
    Target,
    Tier,
    gauge_tiers,
    in_range,
    local_rows,
    over_time,
    select,
    select_from,
    table,
    targets,
)
from grafana.panels import BATTERY, INVERTER, PV, Panel, place

_STRINGS = {"String 1": PV, "String 2": "orange"}
_VOLTAGES = {"String 1": "pv1_voltage", "String 2": "pv2_voltage"}
# A string below this voltage is dark, or was for most of an hour.
_DARK_V = 50
_NOMINAL = ("capacity", "Nominal capacity (kWh)", "6.4")
# Below this output, in W, the inverter's own use and the steps of its registers decide, not its efficiency.
_LEAST_OUTPUT_W = 300


def dashboard() -> Dashboard:
    """The dashboard with all of its panels."""
    heading = shared.Heading(
        "battery-and-pv",
        "Battery and PV",
        "The strings, the battery and the inverter.",
        ("now-24h", "now"),
        "1m",
        (shared.SITE, shared.DEVICE),
        inputs=(_NOMINAL,),
    )
    return shared.dashboard(heading, [*_strings(), *_battery(), *_health(), *_inverter()])


def _plot(columns: dict[str, str], of: str = OF_DEVICE) -> list[Target]:
    return targets(over_time(columns, "mean", gauge_tiers("pcs"), of))


def _strings() -> list[Panel]:
    watts = {"String 1": '{of}("pv1_power")', "String 2": '{of}("pv2_power")'}
    return [
        place(
            shared.coloured(shared.curves(_plot(watts)), _STRINGS),
            (12, 9),
            "Power of the strings",
            "watt",
            f"DC power of each PV string. Strings that face alike should look alike. {shared.GAP}",
        ),
        place(
            shared.coloured(shared.lines(_voltages()), _STRINGS),
            (12, 9),
            "Voltage of the strings",
            "volt",
            "DC voltage of each PV string; it comes with the light, before the power does. From eight days on"
            f" means of the hours with light: nights are gaps there, and do not lower the mean. {shared.GAP}",
        ),
    ]


def _voltages() -> list[Target]:
    """Return the queries for both strings; each has hours of its own in which it is dark."""
    tiers = gauge_tiers("pcs")
    hours = [tier for tier in tiers if tier.source.endswith('_1h"')]
    volts = {name: f'{{of}}("{field}")' for name, field in _VOLTAGES.items()}
    queries = over_time(volts, "mean", [tier for tier in tiers if tier not in hours], OF_DEVICE)
    for name, field in _VOLTAGES.items():
        light = f'"{field}" > {_DARK_V} AND {OF_DEVICE}'
        queries += over_time({name: volts[name]}, "mean", hours, light)
    return targets(queries)


def _battery() -> list[Panel]:
    # The limit is told as the battery has it, of which 4.5 % are the owner's 0 and 95 % the owner's 100 %.
    charge = _plot(
        {"Charge": '{of}("battery_soc")', "Highest allowed": '({of}("battery_soc_max") - 4.5) / 0.905'}
    )
    heat = _plot({"Warmest": '{of}("battery_temperature_max")', "Coolest": '{of}("battery_temperature_min")'})
    days = {
        "Discharged": '{of}("battery_discharge")',
        "Charged": '-1 * {of}("battery_charge")',
    }
    colours = {"Discharged": BATTERY, "Charged": shared.BATTERY_CHARGE}
    return [
        place(
            shared.coloured(
                shared.curves(charge).min(0).max(100), {"Charge": BATTERY, "Highest allowed": shared.NEUTRAL}
            ).override_by_name("Highest allowed", [DynamicConfigValue("custom.fillOpacity", 0)]),
            (12, 9),
            "State of charge",
            "percent",
            "Charge as the owner sees it, and up to where the battery may be charged. Orange below 10 %."
            f" {shared.GAP}",
            shared.Limits(shared.WARNING, (10, BATTERY)),
        ),
        place(
            shared.coloured(shared.curves(_plot({"Battery": '{of}("battery_power")'})), {"Battery": BATTERY}),
            (12, 9),
            "Battery power",
            "watt",
            f"Discharging is positive, charging negative. {shared.GAP}",
        ),
        place(
            shared.with_limit_lines(
                shared.coloured(shared.lines(heat), {"Warmest": "red", "Coolest": "light-blue"})
            ),
            (12, 9),
            "Temperature of the battery",
            "celsius",
            "The warmest and the coolest place in the battery; lines at 0, 40 and 50 °C."
            f" {shared.NEAR_LIMITS} {shared.GAP}",
            shared.Limits(shared.WARNING, (0, shared.CLEAR), (40, shared.WARNING), (50, shared.BAD)),
        ),
        place(
            shared.coloured(shared.bars(table(local_rows(days, ENERGY_DAYS))).time_from("30d"), colours),
            (12, 9),
            "Charged and discharged",
            shared.KWH,
            "Energy of each local day by the battery's counters; charging is below zero. Shows the last 30"
            f" days, {shared.FIXED_ENDS}.",
        ),
    ]


def _health() -> list[Panel]:
    flows = {"out": '{of}("battery_discharge")', "in": '{of}("battery_charge")'}
    trip = [
        select_from(rows, '100 * "out" / "in" AS "Efficiency"', '"in" > 0')
        for rows in in_range(flows, "sum", ENERGY_TIERS, OF_INTERVALS)
    ]
    cycles = in_range({"Cycles": '{of}("battery_discharge") / $capacity'}, "sum", ENERGY_TIERS, OF_INTERVALS)
    so_far = select(
        {"Cycles": '{of}("battery_energy_discharged") / $capacity'}, "last", '"rollups"."pcs_1m"', OF_DEVICE
    )
    battery = shared.one_colour(BATTERY)
    return [
        place(
            shared.number(targets(trip), battery).decimals(1).time_from("90d"),
            (7, 6),
            "Round-trip efficiency",
            "percent",
            "Energy out of the battery over energy into it, by its counters, in the last 90 days, or in the"
            " chosen range if that has fixed ends. What is still stored counts as lost: a day tells nothing.",
        ),
        place(
            shared.number(targets(_usable()), battery).decimals(2).time_from("14d"),
            (6, 6),
            "Usable energy",
            shared.KWH,
            "What 100 % of charge gives: energy of all quarter hours that did nothing but discharge and lack"
            f" no minute, over the charge that they took. Shows the last 14 days, {shared.FIXED_ENDS}.",
        ),
        place(
            shared.number(targets(cycles), battery).decimals(1),
            (6, 6),
            "Cycles in the range",
            "none",
            "Full cycles in the chosen range: energy out of the battery over the nominal capacity above.",
        ),
        place(
            shared.number([Target(so_far)], battery).decimals(0),
            (5, 6),
            "Cycles so far",
            "none",
            "Full cycles of the battery's life: its counter of discharged energy over the nominal capacity"
            " above.",
        ),
    ]


def _usable() -> list[str]:
    """Return the queries for what 100 % of charge gives, from times that did nothing but discharge.

    Quarter hours that lack a minute do not count, as nobody knows what was discharged in it. Minutes of more
    than a month are too many to read; there whole hours are taken.
    """
    minutes = Tier('"rollups"."pcs_1m"', 0, 3_600_000)
    of_quarters = {
        "kwh": 'sum("battery_power") / 60000',
        "fall": 'max("battery_soc_maximum") - min("battery_soc_min")',
        "minutes": 'count("battery_power")',
    }
    discharging = f'"battery_power" > 0 AND {minutes.condition} AND {OF_DEVICE} GROUP BY time(15m) fill(none)'
    quarters = select(of_quarters, "", minutes.source, discharging)
    hours = Tier('"rollups"."pcs_1h"', 3_600_000, None)
    of_hours = {"kwh": '"battery_power" / 1000', "fall": '"battery_soc_maximum" - "battery_soc_min"'}
    discharged = select(
        of_hours, "", hours.source, f'"battery_power_min" > 0 AND {hours.condition} AND {OF_DEVICE}'
    )
    usable = '100 * sum("kwh") / sum("fall") AS "Usable"'
    return [
        select_from(quarters, usable, '"minutes" >= 15 AND "fall" > 0'),
        select_from(discharged, usable, '"fall" > 3'),
    ]


def _inverter() -> list[Panel]:
    ratio = {"Efficiency": '100 * {of}("active_power") / ({of}("pv_power") + {of}("battery_power"))'}
    busy = f'"active_power" > {_LEAST_OUTPUT_W} AND {OF_DEVICE}'
    curve = targets(over_time(ratio, "mean", gauge_tiers("pcs"), busy))
    loss = in_range({"Lost": '{of}("loss")'}, "sum", ENERGY_TIERS, OF_INTERVALS)
    hours = Tier('"rollups"."pcs_1h"', 15 * 60_000, None)
    minutes = Tier('"rollups"."pcs_1m"', 0, 15 * 60_000)
    limits = shared.Limits(shared.BAD, (85, shared.WARNING), (90, BATTERY))
    return [
        place(
            shared.lines(curve).color_scheme(shared.one_colour(INVERTER)),
            (12, 8),
            "Inverter efficiency over time",
            "percent",
            "AC power over the DC power of strings and battery, where it gives more than"
            f" {_LEAST_OUTPUT_W} W."
            " A gap is missing data, or less power than that.",
            limits,
        ),
        place(
            shared.number(
                targets(in_range(ratio, "mean", (minutes, hours), busy)), shared.by_limits()
            ).decimals(1),
            (6, 8),
            "Inverter efficiency",
            "percent",
            f"AC energy over DC energy in the chosen range, while it gave more than {_LEAST_OUTPUT_W} W.",
            limits,
        ),
        place(
            shared.number(targets(loss), shared.one_colour(INVERTER)).decimals(1),
            (6, 8),
            "Lost in the inverter",
            shared.KWH,
            "What the inverter turned into heat in the chosen range, standby included: DC energy less AC"
            " energy.",
        ),
    ]
