"""The dashboard "Energy flows": what flows now, today and in the chosen range.

Takes the names of the data model, gives the dashboard as a builder. Never writes a file.
"""

from grafana_foundation_sdk.builders import stat
from grafana_foundation_sdk.builders.dashboard import Dashboard

from grafana import panels as shared
from grafana.influxql import (
    ENERGY_DAYS,
    ENERGY_TIERS,
    FLOW_HOURS,
    FLOW_MINUTES,
    FLOW_QUARTERS,
    FLOW_SAMPLES,
    OF_DEVICE,
    OF_INTERVALS,
    OF_METER,
    OF_TODAY,
    TODAY,
    Target,
    average_tiers,
    gauge_tiers,
    in_range,
    over_time,
    select,
    select_from,
    targets,
    up_to_now,
)
from grafana.pages import submeters
from grafana.pages.flow_picture import flow_picture
from grafana.panels import BATTERY, GRID, HOME, INVERTER, PV, Panel, place

# What is plotted, in W; `{of}` is the aggregate.
POWERS = {
    "PV": '{of}("pv")',
    "Home": '{of}("home")',
    "Grid": '{of}("grid_import") - {of}("grid_export")',
    "Battery": '{of}("battery_discharge") - {of}("battery_charge")',
}
# The same from kWh of quarter hours; counters count in steps too coarse for a curve.
POWERS_OF_QUARTERS = {
    "PV": '4000 * {of}("pv")',
    "Home": '4000 * {of}("home")',
    "Grid": '4000 * ({of}("grid_import_integrated") - {of}("grid_export_integrated"))',
    "Battery": '4000 * ({of}("battery_discharge_integrated") - {of}("battery_charge_integrated"))',
}
COLOURS = {"PV": PV, "Home": HOME, "Grid": GRID, "Battery": BATTERY}

# What an energy is called, its field in kWh, and its colour.
ENERGIES = (
    ("PV", "pv", PV),
    ("Home", "home", HOME),
    ("Bought", "grid_import", GRID),
    ("Sold", "grid_export", shared.GRID_EXPORT),
    ("Charged", "battery_charge", shared.BATTERY_CHARGE),
    ("Discharged", "battery_discharge", BATTERY),
)
ENERGY_FIELDS = {name: f'{{of}}("{field}")' for name, field, _ in ENERGIES}
ENERGY_COLOURS = {name: colour for name, _, colour in ENERGIES}


def dashboard() -> Dashboard:
    """The dashboard with all of its panels."""
    heading = shared.Heading(
        "energy-flows",
        "Energy flows",
        "What flows between PV, battery, home and grid.",
        ("now-24h", "now"),
        "10s",
        (shared.SITE, shared.DEVICE, shared.METER),
    )
    return shared.dashboard(
        heading, [*_now(), *_over_time(), *_energies(), *submeters.now_and_chosen(), _averages()]
    )


def shares(size: tuple[int, int]) -> list[Panel]:
    """Build self-sufficiency and self-consumption of the chosen range; `size` as `place` takes it."""
    from_grid = {"purchased": '{of}("grid_import")', "home": '{of}("home")'}
    of_pv = {
        "sold": '{of}("pv_to_grid")',
        "pv": '({of}("pv_to_home") + {of}("pv_to_battery") + {of}("pv_to_grid"))',
    }
    sufficiency = _ratio('100 * (1 - "purchased" / "home")', "home", from_grid)
    consumption = _ratio('100 * (1 - "sold" / "pv")', "pv", of_pv)
    return [
        place(
            shared.share(sufficiency, HOME),
            size,
            "Self-sufficiency",
            "percent",
            "The part of the home's energy that was not purchased: 1 - purchased / home, limited to 0 to"
            " 100 %. Energy that was purchased to charge the battery counts as purchased. Empty where nothing"
            " was used.",
            shared.Limits(HOME),
        ),
        place(
            shared.share(consumption, PV),
            size,
            "Self-consumption",
            "percent",
            "The part of the PV energy that was used or stored at home: 1 - PV to grid / (PV to home + PV to"
            " battery + PV to grid). Empty where the sun gave nothing.",
            shared.Limits(PV),
        ),
    ]


def _ratio(expression: str, whole: str, parts: dict[str, str]) -> list[Target]:
    # A ratio to nothing is nothing: InfluxQL would make it 0, and so 100 % of it.
    queries = [
        select_from(rows, f'{expression} AS "Share"', f'"{whole}" > 0')
        for rows in in_range(parts, "sum", ENERGY_TIERS, OF_INTERVALS)
    ]
    return targets(queries)


def _live(name: str, expression: str, colour: str, source: str = '"flow"') -> stat.Panel:
    query = Target(select({name: expression}, "last", source, OF_DEVICE))
    return shared.live([query], shared.one_colour(colour))


def _now() -> list[Panel]:
    newest = "Newest sample of the last minute."
    charge = shared.live(
        [Target(select({"Charge": '{of}("battery_soc")'}, "last", '"pcs"', OF_DEVICE))], shared.by_limits()
    )
    return [
        place(_live("PV", POWERS["PV"], PV), (5, 4), "PV", "watt", f"DC power of all strings. {newest}"),
        place(
            _live("Home", POWERS["Home"], HOME),
            (5, 4),
            "Home",
            "watt",
            f"What the home uses: AC power of the inverter plus power at the meter. {newest}",
        ),
        place(
            _live("Grid", POWERS["Grid"], GRID),
            (5, 4),
            "Grid (+ buying)",
            "watt",
            f"Power at the meter: buying is positive, selling negative. {newest}",
        ),
        place(
            _live("Battery", POWERS["Battery"], BATTERY),
            (5, 4),
            "Battery (+ discharging)",
            "watt",
            f"Power of the battery: discharging is positive, charging negative. {newest}",
        ),
        place(
            charge.decimals(0),
            (4, 4),
            "State of charge",
            "percent",
            f"Charge as the battery's owner sees it; orange below 10 %. {newest}",
            shared.Limits(shared.WARNING, (10, BATTERY)),
        ),
    ]


def _over_time() -> list[Panel]:
    by_interval = [
        *over_time(POWERS, "mean", (*FLOW_SAMPLES, *FLOW_MINUTES), OF_DEVICE),
        *over_time(POWERS_OF_QUARTERS, "mean", (FLOW_QUARTERS,), OF_DEVICE),
        *over_time(POWERS, "mean", FLOW_HOURS, OF_DEVICE),
    ]
    charge = over_time({"Charge": '{of}("battery_soc")'}, "mean", gauge_tiers("pcs"), OF_DEVICE)
    power = shared.coloured(shared.curves(targets(by_interval)), COLOURS)
    soc = shared.curves(targets(charge)).min(0).max(100).color_scheme(shared.one_colour(BATTERY))
    return [
        place(
            flow_picture(),
            (10, 12),
            "Flow picture",
            "watt",
            "What flows where: a line is as wide as its power (full at 5 kW), its arrow shows the way, and"
            " it is thin"
            " without an arrow where nothing flows. Newest sample of the last minute.",
        ),
        place(
            power,
            (14, 12),
            "Power",
            "watt",
            f"Means of samples, minutes, quarter hours or hours, by the range. {shared.SIGNS} {shared.GAP}",
        ),
        place(
            soc,
            (24, 7),
            "State of charge over time",
            "percent",
            f"Charge of the battery as its owner sees it, axis 0 to 100 %; orange below 10 %. {shared.GAP}",
            shared.Limits(shared.WARNING, (10, BATTERY)),
        ),
    ]


def _energies() -> list[Panel]:
    chosen = shared.energy_list(targets(up_to_now(ENERGY_FIELDS)))
    # What is counted and what is integrated are series of their own, each with its newest day.
    days = select(ENERGY_FIELDS, "last", ENERGY_DAYS, OF_TODAY, "GROUP BY *")
    today = select_from(days, ", ".join(f'sum("{name}") AS "{name}"' for name in ENERGY_FIELDS), TODAY)
    return [
        place(
            shared.coloured(shared.energy_list([Target(today)]), ENERGY_COLOURS),
            (12, 9),
            "Energy today",
            shared.KWH,
            f"Since midnight, whatever range is chosen; renewed every five minutes. {shared.FROM_COUNTERS}",
        ),
        place(
            shared.coloured(chosen.transformations(shared.added()), ENERGY_COLOURS),
            (12, 9),
            "Energy in the chosen range",
            shared.KWH,
            "Sum of the quarter hours that begin in the range, the current one included; of hours from two"
            f" weeks on, of days from a year on. {shared.FROM_COUNTERS}",
        ),
        *shares((12, 8)),
    ]


def _averages() -> Panel:
    pcs = {"PV": '{of}("pv_power")', "Inverter": '{of}("active_power")', "Battery": '{of}("battery_power")'}
    grid = {"Grid": '{of}("active_power")'}
    queries = [
        *over_time(pcs, "mean", average_tiers("pcs"), OF_DEVICE),
        *over_time(grid, "mean", average_tiers("powermeter"), OF_METER),
    ]
    panel = shared.curves(targets(queries)).time_from("1h")
    return place(
        shared.coloured(panel, {"PV": PV, "Inverter": INVERTER, "Battery": BATTERY, "Grid": GRID}),
        (24, 9),
        "Averages of ten samples",
        "watt",
        "Means of the last ten samples of inverter (AC power) and meter, made by continuous queries."
        " Longer ranges than 16 hours and those older than 30 days show means of minutes or hours."
        f" {shared.SIGNS} {shared.GAP} Shows the last hour, {shared.FIXED_ENDS}.",
    )
