"""A point as one line of InfluxDB line protocol.

Takes a `Point`, gives bytes without a newline at the end. Never lets a name or a tag value end the
line, open another field or start a comment, and never writes an integer: one integer written first
would make every later float of that field a type conflict.

Grammar: https://docs.influxdata.com/influxdb/v1/write_protocols/line_protocol_reference/
"""

from functools import lru_cache
from math import isfinite

from recorder.points.point import Point

# A backslash can not be written safely in front of a separator or at the end, so it becomes a slash.
_CLEANED = {**dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), " "), ord("\\"): "/"}
_MEASUREMENT_ESCAPES = str.maketrans({",": "\\,", " ": "\\ "})
_KEY_ESCAPES = str.maketrans({",": "\\,", " ": "\\ ", "=": "\\="})


def cleaned(name: str) -> str:
    """The name as InfluxDB will hold it: control characters become spaces, backslashes slashes.

    A lone surrogate, which UTF-8 can not carry, becomes a question mark.
    """
    return name.translate(_CLEANED).encode("utf-8", "replace").decode("utf-8")


def cleaned_measurement(name: str) -> str:
    """As `cleaned`; a hash in front, which would make the line a comment, becomes an underscore."""
    name = cleaned(name)
    return "_" + name[1:] if name.startswith("#") else name


def to_line(point: Point) -> bytes:
    """One line of line protocol, UTF-8, time in ns.

    Fields that are not finite are left out: InfluxDB has no NaN and no infinity.

    Raises:
        ValueError: The point has no time, no finite field, or an empty name.
    """
    measurement, tags, fields, time_ns = point
    if time_ns is None:
        raise ValueError(f"a point of {measurement!r} has no time")
    if not all(map(isfinite, fields.values())):
        fields = {name: value for name, value in fields.items() if isfinite(value)}
    if not fields:
        raise ValueError(f"a point of {measurement!r} has no finite field")
    return (_template(measurement, tags, tuple(fields)) % (*map(float, fields.values()), time_ns)).encode()


@lru_cache(maxsize=16384)
def _template(measurement: str, tags: tuple[tuple[str, str], ...], names: tuple[str, ...]) -> str:
    """The line of points that differ in values and time only, for the `%` operator."""
    series = _series(measurement, tags).replace("%", "%%")
    keys = [_field_key(name).replace("%", "%%") for name in names]
    return f"{series} {','.join([f'{key}=%r' for key in keys])} %d"


@lru_cache(maxsize=16384)
def _series(measurement: str, tags: tuple[tuple[str, str], ...]) -> str:
    if not measurement or not all(key for key, _ in tags):
        raise ValueError("a measurement and a tag need a name")
    series = cleaned_measurement(measurement).translate(_MEASUREMENT_ESCAPES)
    for key, value in tags:
        if value:
            series += f",{cleaned(key).translate(_KEY_ESCAPES)}={cleaned(value).translate(_KEY_ESCAPES)}"
    return series


@lru_cache(maxsize=16384)
def _field_key(name: str) -> str:
    if not name:
        raise ValueError("a field needs a name")
    return cleaned(name).translate(_KEY_ESCAPES)
