"""Names, texts, durations and instants as InfluxQL writes them.

Takes Python values, gives text that is safe inside a statement. Never talks to a server.

Grammar: https://docs.influxdata.com/influxdb/v1/query_language/spec/
"""

import re
from datetime import datetime, timedelta

_UNIT_SECONDS = {
    "w": 604800.0,
    "d": 86400.0,
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "u": 1e-6,
    "ns": 1e-9,
}
_DURATION_PART = re.compile(r"(\d+)(ms|ns|[wdhmsu])")


def identifier(name: str) -> str:
    """A name of a database, measurement, field or user, in double quotes."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def text(value: str) -> str:
    """A string, in single quotes."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def duration(value: timedelta) -> str:
    """A duration in the largest unit that holds it exactly; `0s`, which means for ever, for 0."""
    microseconds = value // timedelta(microseconds=1)
    for unit, length in (("w", 604800), ("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if microseconds and microseconds % (length * 1_000_000) == 0:
            return f"{microseconds // (length * 1_000_000)}{unit}"
    return f"{microseconds // 1000}ms" if microseconds else "0s"


def parse_duration(printed: str) -> timedelta:
    """The duration that a server prints, as `168h0m0s`.

    Raises:
        ValueError: It is no duration.
    """
    if not re.fullmatch(f"({_DURATION_PART.pattern})+", printed):
        raise ValueError(f"{printed!r} is no duration")
    return timedelta(
        seconds=sum(int(part[1]) * _UNIT_SECONDS[part[2]] for part in _DURATION_PART.finditer(printed))
    )


def instant(at: datetime) -> str:
    """A point in time, in whole seconds of Unix time."""
    return f"{int(at.timestamp())}s"
