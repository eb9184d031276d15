"""Where the sun stands, and what falls on a tilted surface under a clear sky.

Takes a Unix time and a place, gives irradiance in W/m2. Never knows of clouds. The position follows
the low-precision formulas of the Astronomical Almanac (0.01 degrees), the direct beam the air-mass
law of Meinel, and the air mass Kasten and Young.
"""

from math import asin, atan2, cos, degrees, radians, sin
from typing import NamedTuple

_UNIX_DAYS_AT_J2000 = 10957.5
_OBLIQUITY = radians(23.439)


class SunVector(NamedTuple):
    """The direction of the sun as a unit vector: to the east, to the north and up."""

    east: float
    north: float
    up: float


def sun_vector(epoch_seconds: float, latitude_deg: float, longitude_deg: float) -> SunVector:
    """Give the direction of the sun at a Unix time and a place (north and east positive)."""
    days = epoch_seconds / 86400 - _UNIX_DAYS_AT_J2000
    anomaly = radians(357.528 + 0.9856003 * days)
    longitude = radians(280.46 + 0.9856474 * days + 1.915 * sin(anomaly) + 0.02 * sin(2 * anomaly))
    declination = asin(sin(_OBLIQUITY) * sin(longitude))
    right_ascension = atan2(cos(_OBLIQUITY) * sin(longitude), cos(longitude))
    sidereal_hours = 18.697374558 + 24.06570982441908 * days
    hour_angle = radians(sidereal_hours * 15 % 360 + longitude_deg) - right_ascension
    latitude = radians(latitude_deg)
    return SunVector(
        east=-cos(declination) * sin(hour_angle),
        north=cos(latitude) * sin(declination) - sin(latitude) * cos(declination) * cos(hour_angle),
        up=sin(latitude) * sin(declination) + cos(latitude) * cos(declination) * cos(hour_angle),
    )


def clear_sky_irradiance(sun: SunVector, tilt_deg: float, azimuth_deg: float) -> tuple[float, float]:
    """Give the direct and the diffuse irradiance on a surface, both W/m2, 0 while the sun is down.

    Args:
        sun: the direction of the sun.
        tilt_deg: of the surface, 0 lies flat.
        azimuth_deg: where it looks, clockwise from north.
    """
    if sun.up <= 0:
        return 0.0, 0.0
    air_mass = 1 / (sun.up + 0.50572 * (degrees(asin(sun.up)) + 6.07995) ** -1.6364)
    beam = 1353 * 0.7 ** (air_mass**0.678)
    tilt, azimuth = radians(tilt_deg), radians(azimuth_deg)
    towards = sun.east * sin(tilt) * sin(azimuth) + sun.north * sin(tilt) * cos(azimuth) + sun.up * cos(tilt)
    diffuse = 110 * sun.up**0.5 * (1 + cos(tilt)) / 2
    return beam * max(0.0, towards), diffuse
