"""The recorder's configuration for each home that the simulator can be."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from recorder.profiles.model import Profile
from recorder.profiles.parse import parse_profile
from recorder.simulator.homes import HOMES
from recorder.simulator.polls import Device

_SHIPPED = Path(__file__).parents[2] / "config" / "profiles"
_FILES: dict[Device, Path] = {
    "pcs": _SHIPPED / "lg-ess-gen1-pcs.yaml",
    "powermeter": _SHIPPED / "abb-b2x.yaml",
    "heat_pump": _SHIPPED / "abb-b2x.yaml",
    "inverter": Path(__file__).parent / "inverter.yaml",
}


def profiles_of(home: str) -> Sequence[Profile]:
    """The profile of each device of a home, with its own unit and measurement."""
    profiles = []
    for device in HOMES[home].devices:
        path = _FILES[device.name]
        profile = parse_profile(path.read_text(), path.name)
        profiles.append(replace(profile, unit=device.unit, device=device.name, measurement=device.name))
    return profiles
