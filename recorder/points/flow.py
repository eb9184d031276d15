"""The energy balance: where the power of one moment comes from and goes to.

Takes a PCS point and the meter point beside it, gives a `flow` point. Never does I/O.

Definitions, all in W and not negative but for `loss`. P is the PCS's AC power, M the meter's power.

    home              = P + M, not below 0
    pv                = the PV strings, on the DC side
    grid_import       = M where it is positive       grid_export       = -M where it is negative
    battery_discharge = B where it is positive       battery_charge    = -B where it is negative
    loss              = pv + B - P                   the inverter's own use; briefly negative in transients

PV serves the home first, then the battery, then the grid:

    pv_to_home      = min(pv, home)
    pv_to_battery   = min(what is left of pv, battery_charge)
    battery_to_home = min(battery_discharge, what the home still needs)
    battery_to_grid = min(what is left of battery_discharge, what pv cannot have exported)

and the rest follows, so that what arrives adds up exactly:

    grid_to_home    = home - pv_to_home - battery_to_home
    grid_to_battery = battery_charge - pv_to_battery
    pv_to_grid      = grid_export - battery_to_grid
"""

from typing import Final

from recorder.points.point import Point

FLOW_FIELDS: Final = (
    "home",
    "pv",
    "grid_import",
    "grid_export",
    "battery_charge",
    "battery_discharge",
    "pv_to_home",
    "pv_to_battery",
    "pv_to_grid",
    "battery_to_home",
    "battery_to_grid",
    "grid_to_home",
    "grid_to_battery",
    "loss",
)
DEFAULT_METER_MAX_AGE_SECONDS: Final = 5.0

# The balance is computed in whole steps of the meter's resolution, 0.01 W, so that it is exact.
_STEPS_PER_WATT: Final = 100


def balance(
    pcs_active_power_w: float, pv_power_w: float, battery_power_w: float, meter_active_power_w: float
) -> dict[str, float]:
    """Split the power of one moment by the definitions above.

    Args:
        pcs_active_power_w: AC output of the PCS; negative where it charges the battery from the grid.
        pv_power_w: both strings, DC.
        battery_power_w: discharging positive, DC.
        meter_active_power_w: buying positive.

    Returns:
        The value of every one of `FLOW_FIELDS`, in W.
    """
    ac, pv, battery, meter = (
        round(power * _STEPS_PER_WATT)
        for power in (pcs_active_power_w, pv_power_w, battery_power_w, meter_active_power_w)
    )
    loss = pv + battery - ac
    pv = max(0, pv)
    home = max(0, ac + meter)
    charge, discharge = max(0, -battery), max(0, battery)
    export = max(0, -meter)

    pv_to_home = min(pv, home)
    pv_to_battery = min(pv - pv_to_home, charge)
    battery_to_home = min(discharge, home - pv_to_home)
    pv_left = pv - pv_to_home - pv_to_battery
    battery_to_grid = min(discharge - battery_to_home, max(0, export - pv_left))
    parts = {
        "pv_to_home": pv_to_home,
        "pv_to_battery": pv_to_battery,
        "pv_to_grid": export - battery_to_grid,
        "battery_to_home": battery_to_home,
        "battery_to_grid": battery_to_grid,
        "grid_to_home": home - pv_to_home - battery_to_home,
        "grid_to_battery": charge - pv_to_battery,
    }
    watts = {name: steps / _STEPS_PER_WATT for name, steps in parts.items()}
    return {
        # Totals are the sums of their parts as floats, so that they agree to the last bit.
        "home": watts["pv_to_home"] + watts["battery_to_home"] + watts["grid_to_home"],
        "pv": pv / _STEPS_PER_WATT,
        "grid_import": max(0, meter) / _STEPS_PER_WATT,
        "grid_export": watts["pv_to_grid"] + watts["battery_to_grid"],
        "battery_charge": watts["pv_to_battery"] + watts["grid_to_battery"],
        "battery_discharge": discharge / _STEPS_PER_WATT,
        **watts,
        "loss": loss / _STEPS_PER_WATT,
    }


class FlowBalance:
    """Joins a site's PCS points with its meter's, whichever streams they come from.

    Args:
        meter_max_age_seconds: how far a meter point may be from the PCS point that it is joined to.
    """

    def __init__(self, meter_max_age_seconds: float = DEFAULT_METER_MAX_AGE_SECONDS) -> None:
        self._max_age_ns = round(meter_max_age_seconds * 1e9)
        self._meter: tuple[int, float] | None = None

    @property
    def meter(self) -> tuple[int, float] | None:
        """The meter's latest point, which the next one of the PCS is joined to: Unix ns, and W."""
        return self._meter

    def resume(self, meter: tuple[int, float] | None) -> None:
        """Go on from where the balance of the same site stood."""
        self._meter = meter

    def clock_was_set(self, by_ns: int) -> None:
        """Learn that the clock that times are by was set forward by so many ns."""
        if self._meter is not None:
            self._meter = (self._meter[0] + by_ns, self._meter[1])

    def feed(self, point: Point) -> Point | None:
        """Take any point of the site, and give the `flow` point where it allows one."""
        if point.time_ns is None:
            return None
        fields = point.fields
        if point.measurement == "powermeter" and "active_power" in fields:
            self._meter = (point.time_ns, fields["active_power"])
        if point.measurement != "pcs" or self._meter is None:
            return None
        meter_time_ns, meter_active_power_w = self._meter
        if abs(point.time_ns - meter_time_ns) > self._max_age_ns:
            return None
        if not fields.keys() >= {"active_power", "pv_power", "battery_power"}:
            return None
        flow = balance(
            fields["active_power"], fields["pv_power"], fields["battery_power"], meter_active_power_w
        )
        return Point("flow", point.tags, flow, point.time_ns)
