"""The energy balance of a site: where the power of one moment comes from and goes to.

Takes the points of a site's devices, returns `flow` points. What a device is, and which of its fields is
which quantity, is in its profile. Never does I/O.

Definitions, all in W and not negative but for `loss`. P is the AC power of all inverters and batteries
(positive when delivering), M the grid power (positive when buying), B the battery power (positive when
discharging). PV and B are measured on the DC side of a hybrid inverter.

    home              = P + M, at least 0
    pv                = PV, at least 0
    grid_import       = M where it is positive       grid_export       = -M where it is negative
    battery_discharge = B where it is positive       battery_charge    = -B where it is negative
    loss              = PV + B - P                   what inverters use; briefly negative in transients

The battery is charged from PV first, the rest is charged from the grid:

    pv_to_battery   = min(pv, battery_charge)
    grid_to_battery = battery_charge - pv_to_battery

P >= 0 is divided between PV and battery in the ratio (pv - pv_to_battery) : battery_discharge, into pv_ac
and battery_ac. They supply the home in this order, and what is left of them is exported; the grid supplies
the rest of the home. So `grid_to_home` is the purchased power. Where P < 0 the inverters draw AC power, and
the grid supplies the home:

    pv_to_home      = min(pv_ac, home)
    battery_to_home = min(battery_ac, home - pv_to_home)
    grid_to_home    = home - pv_to_home - battery_to_home
    battery_to_grid = min(battery_ac - battery_to_home, grid_export)
    pv_to_grid      = grid_export - battery_to_grid
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from recorder.points.point import Point
from recorder.profiles.model import POWER_SOURCES, Profile

MEASUREMENT: Final = "flow"
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

# An inverter that fell silent with less power than this has switched itself off, as at dusk.
_ASLEEP_BELOW_W: Final = 50.0
# An inverter that has not spoken for so long after the start is not there, or is off.
_WAIT_FOR_FIRST_NS: Final = 30 * 10**9
# The balance is computed in whole steps of the meter's resolution, 0.01 W, so that it is exact.
_STEPS_PER_WATT: Final = 100


def balance(
    ac_power_w: float, pv_power_w: float, battery_power_w: float, grid_power_w: float
) -> dict[str, float]:
    """Split the power of one moment by the definitions above.

    Args:
        ac_power_w: AC power of all inverters and batteries; negative where they draw power.
        pv_power_w: PV, DC where the inverter measures it there.
        battery_power_w: discharging positive.
        grid_power_w: buying positive.

    Returns:
        The value of every one of `FLOW_FIELDS`, in W.
    """
    ac, pv = round(ac_power_w * _STEPS_PER_WATT), round(pv_power_w * _STEPS_PER_WATT)
    battery, grid = round(battery_power_w * _STEPS_PER_WATT), round(grid_power_w * _STEPS_PER_WATT)
    loss = pv + battery - ac
    pv = max(0, pv)
    home = max(0, ac + grid)
    charge, discharge = (0, battery) if battery > 0 else (-battery, 0)
    bought, export = (grid, 0) if grid > 0 else (0, -grid)

    pv_to_battery = min(charge, pv)
    delivered = max(0, ac)
    pv_left = pv - pv_to_battery
    # Where neither has power left, what is delivered is the battery's: devices are read at different moments.
    pv_ac = round(delivered * pv_left / (pv_left + discharge)) if pv_left else 0
    battery_ac = delivered - pv_ac
    pv_to_home = min(home, pv_ac)
    battery_to_home = min(battery_ac, home - pv_to_home)
    battery_to_grid = min(battery_ac - battery_to_home, export)
    pv_to_home_w = pv_to_home / _STEPS_PER_WATT
    pv_to_battery_w = pv_to_battery / _STEPS_PER_WATT
    pv_to_grid_w = (export - battery_to_grid) / _STEPS_PER_WATT
    battery_to_home_w = battery_to_home / _STEPS_PER_WATT
    battery_to_grid_w = battery_to_grid / _STEPS_PER_WATT
    grid_to_home_w = (home - pv_to_home - battery_to_home) / _STEPS_PER_WATT
    grid_to_battery_w = (charge - pv_to_battery) / _STEPS_PER_WATT
    return {
        # Totals are the sums of their parts as floats, so that they agree to the last bit.
        "home": pv_to_home_w + battery_to_home_w + grid_to_home_w,
        "pv": pv / _STEPS_PER_WATT,
        "grid_import": bought / _STEPS_PER_WATT,
        "grid_export": pv_to_grid_w + battery_to_grid_w,
        "battery_charge": pv_to_battery_w + grid_to_battery_w,
        "battery_discharge": discharge / _STEPS_PER_WATT,
        "pv_to_home": pv_to_home_w,
        "pv_to_battery": pv_to_battery_w,
        "pv_to_grid": pv_to_grid_w,
        "battery_to_home": battery_to_home_w,
        "battery_to_grid": battery_to_grid_w,
        "grid_to_home": grid_to_home_w,
        "grid_to_battery": grid_to_battery_w,
        "loss": loss / _STEPS_PER_WATT,
    }


def self_sufficiency(purchased: float | None, home: float | None) -> float | None:
    """Return the part of the home's energy that was not purchased, 0 to 1; None without any energy.

    Purchased energy counts whether it goes to the home at once or into the battery. Both in one unit.
    """
    if purchased is None or home is None or home <= 0:
        return None
    return min(1.0, max(0.0, 1.0 - purchased / home))


def self_consumption(
    pv_to_home: float | None, pv_to_battery: float | None, pv_to_grid: float | None
) -> float | None:
    """Return the part of the PV energy that was not sold, 0 to 1; None without any. All in one unit."""
    if pv_to_home is None or pv_to_grid is None:
        return None
    used = pv_to_home + (pv_to_battery or 0.0) + pv_to_grid
    return min(1.0, max(0.0, 1.0 - pv_to_grid / used)) if used > 0 else None


class _Delivery(NamedTuple):
    """What one inverter or battery said last, W; the time is Unix ns."""

    time_ns: int
    ac_w: float
    pv_w: float
    battery_w: float

    @property
    def is_idle(self) -> bool:
        """Whether so little power flows that an inverter may switch itself off next."""
        return abs(self.ac_w) < _ASLEEP_BELOW_W


class FlowState(NamedTuple):
    """Where the balance of a site is: the latest of each inverter and of the grid, and its first moment."""

    deliveries: tuple[tuple[str, "_Delivery"], ...]
    grid: tuple[int, float] | None
    first_ns: int | None


class FlowBalance:
    """Joins a site's inverters and batteries with its grid meter, whichever streams they come from.

    Exactly one grid meter counts, the first of the devices that has the role. The points of `flow` have the
    device tag of the first inverter or battery of the devices, or of the grid meter where there is none, so
    that a site has one series.

    Args:
        site: the `site` tag.
        profiles: the devices, in the order of the settings.
        max_age_seconds: how far apart in time two points may be that make one balance.
    """

    def __init__(
        self,
        site: str,
        profiles: Sequence[Profile],
        max_age_seconds: float = DEFAULT_METER_MAX_AGE_SECONDS,
    ) -> None:
        self._max_age_ns = round(max_age_seconds * 1e9)
        sources = [one for one in profiles if one.role in POWER_SOURCES]
        meters = [one for one in profiles if one.role == "grid_meter"]
        self._sources = {one.device: _fields_of(one) for one in sources}
        self._grid_device = meters[0].device if meters else ""
        self._grid_field = meters[0].field_of("grid_power") if meters else ""
        device = next((one.device for one in (*sources, *meters)), "")
        self.tags = (("device", device), ("site", site))
        self._deliveries: dict[str, _Delivery] = {}
        self._grid: tuple[int, float] | None = None
        self._first_ns: int | None = None

    @property
    def state(self) -> FlowState:
        """Where the balance is: what it returns depends on this and on what comes."""
        deliveries = tuple(sorted(self._deliveries.items()))
        return FlowState(deliveries, self._grid, self._waiting_since())

    def resume(self, state: FlowState) -> None:
        """Go on from where the balance of the same site was."""
        self._deliveries = dict(state.deliveries)
        self._grid, self._first_ns = state.grid, state.first_ns

    def clock_was_set(self, by_ns: int) -> None:
        """Move what is remembered to the time of a clock that was set forward by `by_ns`."""
        if self._grid is not None:
            self._grid = (self._grid[0] + by_ns, self._grid[1])
        self._deliveries = {
            device: delivery._replace(time_ns=delivery.time_ns + by_ns)
            for device, delivery in self._deliveries.items()
        }
        if self._first_ns is not None:
            self._first_ns += by_ns

    def feed(self, device: str, fields: dict[str, float], time_ns: int) -> Point | None:
        """Take a point of a device, and return the `flow` point where it allows one."""
        if self._first_ns is None:
            self._first_ns = time_ns
        source = self._sources.get(device)
        if source is not None:
            delivery = source.delivery(fields, time_ns)
            if delivery is None:
                return None
            self._deliveries[device] = delivery
        elif device == self._grid_device:
            grid_w = fields.get(self._grid_field)
            if grid_w is None:
                return None
            self._grid = (time_ns, grid_w)
            if any(
                abs(time_ns - delivery.time_ns) <= self._max_age_ns for delivery in self._deliveries.values()
            ):
                # The next point of that inverter makes the balance.
                return None
        else:
            return None
        return self._balance(time_ns)

    def may_be_asleep(self, device: str) -> bool:
        """Return whether a silent device may have switched itself off, as an inverter does at night."""
        source, delivery = self._sources.get(device), self._deliveries.get(device)
        return source is not None and source.may_sleep and (delivery is None or delivery.is_idle)

    def _balance(self, time_ns: int) -> Point | None:
        if self._grid is None or abs(time_ns - self._grid[0]) > self._max_age_ns:
            return None
        ac_w = pv_w = battery_w = 0.0
        for device, source in self._sources.items():
            delivery = self._deliveries.get(device)
            if delivery is not None and abs(time_ns - delivery.time_ns) <= self._max_age_ns:
                ac_w += delivery.ac_w
                pv_w += delivery.pv_w
                battery_w += delivery.battery_w
            elif not source.may_sleep or not self._is_asleep(delivery, time_ns):
                # Its power is not known, and so is the home's.
                return None
        return Point(MEASUREMENT, self.tags, balance(ac_w, pv_w, battery_w, self._grid[1]), time_ns)

    def _is_asleep(self, delivery: _Delivery | None, time_ns: int) -> bool:
        """Return whether a silent inverter has switched itself off; one that never spoke is off too."""
        if delivery is None:
            return abs(time_ns - (self._first_ns or 0)) >= _WAIT_FOR_FIRST_NS
        return delivery.is_idle

    def _waiting_since(self) -> int | None:
        """Return the first moment, while it still matters: until every inverter has spoken."""
        return self._first_ns if self._deliveries.keys() < self._sources.keys() else None


class _SourceFields(NamedTuple):
    """The fields of an inverter or battery; an empty name is a quantity that it does not know.

    One without a battery may switch itself off at night; one with a battery is never taken for off.
    """

    ac: str
    pv: str
    battery: str
    has_pv: bool
    known: tuple[str, ...]
    may_sleep: bool

    def delivery(self, fields: dict[str, float], time_ns: int) -> _Delivery | None:
        """Return what a point says, or None where one of the known quantities is missing."""
        for name in self.known:
            if name not in fields:
                return None
        battery_w = fields[self.battery] if self.battery else 0.0
        pv_w = fields[self.pv] if self.pv else 0.0
        ac_w = fields[self.ac] if self.ac else pv_w + battery_w
        if self.has_pv and not self.pv:
            # A plain inverter that measures its output only.
            pv_w = ac_w - battery_w
        elif not self.has_pv and not self.battery:
            battery_w = ac_w
        return _Delivery(time_ns, ac_w, pv_w, battery_w)


def _fields_of(profile: Profile) -> _SourceFields:
    ac, pv, battery = (profile.field_of(name) for name in ("ac_power", "pv_power", "battery_power"))
    known = tuple(name for name in (ac, pv, battery) if name)
    return _SourceFields(ac, pv, battery, profile.role != "battery", known, profile.role == "inverter")
