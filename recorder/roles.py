"""Which devices a site has, and whether their roles make an energy balance.

Takes settings and profiles, returns a site's devices and what is wrong with their roles. An energy balance
needs exactly one grid meter; inverters, batteries and submeters are as many as there are. Never does I/O.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from recorder.profiles.model import Profile
from recorder.settings import Settings

_MOST_NAMED_SITES: Final = 3


class RoleProblem(NamedTuple):
    """What is wrong with the roles of a site's devices, and what to do about it."""

    what: str
    remedy: str


def devices_of(settings: Settings, profiles: Sequence[Profile], site: str) -> list[Profile]:
    """Return the devices that a site may have, in the order of the settings.

    Args:
        settings: those that name the devices.
        profiles: the profile of each device, in the same order.
        site: the name of the site.
    """
    return [
        profile
        for device, profile in zip(settings.devices, profiles, strict=True)
        if device.sites is None or site in device.sites
    ]


def role_problems(settings: Settings, profiles: Sequence[Profile]) -> Iterator[RoleProblem]:
    """Yield what keeps sites from an energy balance; sites with the same devices are named together."""
    sites: dict[tuple[Profile, ...], list[str]] = {}
    for site in sorted(settings.site_names):
        sites.setdefault(tuple(devices_of(settings, profiles, site)), []).append(site)
    for devices, names in sites.items():
        yield from _problems_of_site(devices, _named(names))


def _problems_of_site(devices: Sequence[Profile], site: str) -> Iterator[RoleProblem]:
    meters = [one for one in devices if one.role == "grid_meter"]
    if not meters and any(one.role != "other" for one in devices):
        yield RoleProblem(
            f"{site} has no device with role grid_meter: no energy flows and no energies are recorded",
            "add the profile of the meter at the grid connection to `devices`, "
            "or set role: grid_meter for the device that is this meter",
        )
    if len(meters) > 1:
        names = ", ".join(one.device for one in meters)
        yield RoleProblem(
            f"{site} has {len(meters)} devices with role grid_meter ({names}): only {meters[0].device} "
            "counts as the grid",
            "set role: submeter for meters that measure a part of the home, or name the sites of each meter "
            "with `sites` (docs/energy-flow.md)",
        )
    if meters and not meters[0].field_of("grid_power"):
        yield RoleProblem(
            f"{meters[0].device} of {site} has role grid_meter, and its profile has no quantity grid_power",
            f"name the field of the power in `quantities` of the profile {meters[0].name}",
        )


def _named(sites: Sequence[str]) -> str:
    named, more = ", ".join(sites[:_MOST_NAMED_SITES]), len(sites) - _MOST_NAMED_SITES
    text = f"site {named}" if len(sites) == 1 else f"each of the sites {named}"
    return f"{text} and {more} more" if more > 0 else text


def inferred_role_note(profile: Profile) -> str:
    """Return the lines to add to a profile without a role, whose role was inferred; empty if it has one."""
    if not profile.is_role_inferred:
        return ""
    fields = [
        f"pv_power: {{field: {field}, side: {profile.pv_side}}}"
        if quantity == "pv_power"
        else f"{quantity}: {field}"
        for quantity, field in profile.quantities
    ]
    quantities = f"quantities: {{{', '.join(fields)}}}" if fields else ""
    return " and ".join(part for part in (f"role: {profile.role}", quantities) if part)
