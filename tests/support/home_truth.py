"""What a simulated home really did: the oracle for energies, written from DESIGN.md.

Takes the plant's state of each second, gives the flows of that second and the energies of any time. Shares
no code with the recorder. A state holds the powers of the second that ends with it.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

from recorder.simulator.plant import PlantState

PvSide = Literal["dc", "ac"]

QUARTER_SECONDS: Final = 900
_WS_PER_KWH: Final = 3_600_000


class AcSide(NamedTuple):
    """The powers that the balance starts from, W: + delivering, buying, discharging."""

    inverters: float
    grid: float
    battery: float
    pv: float


def ac_side(state: PlantState, pv_side: PvSide = "dc") -> AcSide:
    """Add up the inverters of a home; `pv_side` is where the inverter without a battery measures."""
    plain_pv_w = state.inverter_pv_power_w if pv_side == "dc" else state.inverter_power_w
    return AcSide(
        inverters=state.pcs_active_power_w + state.inverter_power_w,
        grid=state.meter_power_cw / 100,
        battery=state.battery_power_w,
        pv=sum(state.pv_powers_w) + plain_pv_w,
    )


def flows_of(powers: AcSide) -> dict[str, float]:
    """Split the powers of one moment as DESIGN.md does, W."""
    ac, grid, battery, pv = powers
    charge, discharge = max(0.0, -battery), max(0.0, battery)
    home = max(0.0, ac + grid)
    pv_to_battery = min(pv, charge)
    pv_ac = battery_ac = 0.0
    if ac >= 0:
        pv_part = pv - pv_to_battery
        if pv_part + discharge > 0:
            pv_ac = ac * pv_part / (pv_part + discharge)
            battery_ac = ac * discharge / (pv_part + discharge)
    pv_to_home = min(pv_ac, home)
    battery_to_home = min(battery_ac, home - pv_to_home)
    return {
        "home": home,
        "pv": pv,
        "grid_import": max(0.0, grid),
        "grid_export": max(0.0, -grid),
        "battery_charge": charge,
        "battery_discharge": discharge,
        "pv_to_home": pv_to_home,
        "pv_to_battery": pv_to_battery,
        "pv_to_grid": pv_ac - pv_to_home,
        "battery_to_home": battery_to_home,
        "battery_to_grid": battery_ac - battery_to_home,
        "grid_to_home": home - pv_to_home - battery_to_home,
        "grid_to_battery": charge - pv_to_battery,
        "loss": pv + battery - ac,
    }


class HomeTruth:
    """The energies of a home, kWh, by quarter of an hour of UTC.

    Args:
        pv_side: where the inverter without a battery measures its PV power.
    """

    def __init__(self, pv_side: PvSide = "dc") -> None:
        self._pv_side: PvSide = pv_side
        self._quarters: dict[int, defaultdict[str, float]] = {}

    def add(self, state: PlantState) -> dict[str, float]:
        """Take the state of one more second; return its flows, W."""
        flows = flows_of(ac_side(state, self._pv_side))
        quarter = (state.at_s - 1) // QUARTER_SECONDS * QUARTER_SECONDS
        sums = self._quarters.setdefault(quarter, defaultdict(float))
        for name, watts in flows.items():
            sums[name] += watts / _WS_PER_KWH
        sums["heat_pump"] += state.heat_pump_power_cw / 100 / _WS_PER_KWH
        sums["seconds"] += 1
        return flows

    @property
    def quarters(self) -> dict[int, dict[str, float]]:
        """Energies of each quarter of an hour, by its beginning, Unix s; `seconds` is how long it was."""
        return {at_s: dict(sums) for at_s, sums in self._quarters.items()}

    def between(self, start_s: int, end_s: int) -> dict[str, float]:
        """Energies of a time that begins and ends with a quarter of an hour, Unix s."""
        return total(sums for at_s, sums in self._quarters.items() if start_s <= at_s < end_s)


def total(parts: Iterable[dict[str, float]]) -> dict[str, float]:
    """Add up energies by name."""
    sums: defaultdict[str, float] = defaultdict(float)
    for part in parts:
        for name, value in part.items():
            sums[name] += value
    return dict(sums)


def self_sufficiency(energy: dict[str, float]) -> float | None:
    """Return the share of the home's energy that was not purchased, 0 to 1; None without a home."""
    if energy["home"] <= 0:
        return None
    return min(1.0, max(0.0, 1 - energy["grid_import"] / energy["home"]))


def self_consumption(energy: dict[str, float]) -> float | None:
    """Return the share of PV that was not exported, 0 to 1; None without PV."""
    used = energy["pv_to_home"] + energy["pv_to_battery"] + energy["pv_to_grid"]
    return 1 - energy["pv_to_grid"] / used if used > 0 else None
