"""The point: what every stage after decoding passes on.

Takes nothing, gives `Point`. Never does I/O.
"""

from typing import NamedTuple


class Point(NamedTuple):
    """One sample of one device, as InfluxDB will hold it.

    `tags` are (key, value) pairs sorted by key, with no empty value. Every field is a float in
    the unit that the data model gives it. `time_ns` is Unix time in ns, or None where a captured
    stream carries no stamps and nobody has set a clock.
    """

    measurement: str
    tags: tuple[tuple[str, str], ...]
    fields: dict[str, float]
    time_ns: int | None
