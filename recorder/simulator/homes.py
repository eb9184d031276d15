"""The homes that the simulator can be: what is built into each, and which devices are polled.

Takes a name, gives settings of a plant and the devices on its buses. Never more than data.
"""

from dataclasses import dataclass
from typing import Final

from recorder.simulator.plant import PlantSettings, PvString
from recorder.simulator.polls import INVERTER_DEVICE, METER_DEVICE, PCS_DEVICE, TWO_METERS, PolledDevice

_PANELS: Final = PvString(4200, 30, 190, 360)


@dataclass(frozen=True, slots=True)
class Home:
    """One kind of home. `devices` are in the order in which they are polled."""

    description: str
    settings: PlantSettings
    devices: tuple[PolledDevice, ...]


HOMES: Final[dict[str, Home]] = {
    "ess": Home("LG ESS", PlantSettings(), (METER_DEVICE, PCS_DEVICE)),
    "heat-pump": Home(
        "LG ESS, and a heat pump behind a meter of its own",
        PlantSettings(heat_pump_w=2400),
        (*TWO_METERS, PCS_DEVICE),
    ),
    "two-inverters": Home(
        "LG ESS, a second inverter, one grid meter",
        PlantSettings(inverter=_PANELS),
        (METER_DEVICE, PCS_DEVICE, INVERTER_DEVICE),
    ),
    "pv": Home(
        "PV inverter and grid meter",
        PlantSettings(hybrid=False, inverter=_PANELS),
        (METER_DEVICE, INVERTER_DEVICE),
    ),
    "meter": Home("grid meter alone", PlantSettings(hybrid=False), (METER_DEVICE,)),
    "night-charge": Home(
        "LG ESS that charges from the grid at night",
        PlantSettings(night_charge_w=1800, conversion_loss=0.06),
        (METER_DEVICE, PCS_DEVICE),
    ),
}
