"""The dashboard "Energy flows": what flows now, today and in the chosen range.

Takes the names of the data model, gives the dashboard as a builder. Never writes a file.
"""

from grafana_foundation_sdk.builders import stat
from grafana_foundation_sdk.builders.dashboard import Dashboard

from grafana import panels as shared
from grafana.influxql import (
    ENERGY_TIERS,
    FLOW_HOURS,
    FLOW_MINUTES,
    FLOW_QUARTERS,
    FLOW_SAMPLES,
    OF_DEVICE,
    OF_METER,
    OF_SITE,
    Target,
    gauge_tiers,
    in_range,
    over_time,
    select,
    select_from,
    targets,
)
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
    return shared.dashboard(heading, [*_now(), *_over_time(), *_energies(), _averages()])


def shares(size: tuple[int, int]) -> list[Panel]:
    """Self-sufficiency and self-consumption of the chosen range; `size` as `place` takes it."""
    from_grid = {
        "bought": '{of}("grid_import")',
        "stored": '{of}("grid_to_battery")',
        "home": '{of}("home")',
    }
    sold = {"sold": '{of}("grid_export")', "pv": '{of}("pv")'}
    sufficiency = _ratio('100 * (1 - ("bought" - "stored") / "home")', "home", from_grid)
    consumption = _ratio('100 * (1 - "sold" / "pv")', "pv", sold)
    return [
        place(
            shared.share(sufficiency, HOME),
            size,
            "Self-sufficiency",
            "percent",
            "The part of the home's energy that did not come from the grid: 1 - (bought - charged from the"
            " grid) / home, within 0 and 100 %. Empty where nothing was used.",
            shared.Limits(HOME),
        ),
        place(
            shared.share(consumption, PV),
            size,
            "Self-consumption",
            "percent",
            "The part of the PV energy that was used or stored at home: 1 - sold / PV, within 0 and 100 %."
            " Empty where the sun gave nothing.",
            shared.Limits(PV),
        ),
    ]


def _ratio(expression: str, whole: str, parts: dict[str, str]) -> list[Target]:
    # A ratio to nothing is nothing: InfluxQL would make it 0, and so 100 % of it.
    queries = [
        select_from(rows, f'{expression} AS "Share"', f'"{whole}" > 0')
        for rows in in_range(parts, "sum", ENERGY_TIERS, OF_SITE)
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
        *over_time(POWERS, "mean", (FLOW_SAMPLES, *FLOW_MINUTES), OF_DEVICE),
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
    chosen = targets(in_range(ENERGY_FIELDS, "sum", ENERGY_TIERS, OF_SITE))
    today = [Target(select(ENERGY_FIELDS, "sum", '"rollups"."energy_15m"', OF_SITE))]
    return [
        place(
            shared.coloured(shared.energy_list(today).time_from("now/d"), ENERGY_COLOURS),
            (12, 9),
            "Energy today",
            shared.KWH,
            f"Since midnight, renewed every five minutes. {shared.FROM_COUNTERS}",
        ),
        place(
            shared.coloured(shared.energy_list(chosen), ENERGY_COLOURS),
            (12, 9),
            "Energy in the chosen range",
            shared.KWH,
            "Sum of the quarter hours that begin in the range; of hours from a month on, of days from a"
            " year on."
            f" {shared.FROM_COUNTERS}",
        ),
        *shares((12, 8)),
    ]


def _averages() -> Panel:
    pcs = {"PV": '{of}("pv_power")', "Inverter": '{of}("active_power")', "Battery": '{of}("battery_power")'}
    each = "GROUP BY time($__interval) fill(null)"
    queries = [
        select(pcs, "mean", '"avg10"."pcs_avg10"', OF_DEVICE, each),
        select({"Grid": '{of}("active_power")'}, "mean", '"avg10"."powermeter_avg10"', OF_METER, each),
    ]
    panel = shared.curves(targets(queries)).time_from("1h")
    return place(
        shared.coloured(panel, {"PV": PV, "Inverter": INVERTER, "Battery": BATTERY, "Grid": GRID}),
        (24, 9),
        "Averages of ten samples",
        "watt",
        "Means of the last ten samples of inverter (AC power) and meter, made by continuous queries."
        f" {shared.SIGNS} {shared.GAP} Shows the last hour, {shared.FIXED_ENDS}.",
    )
