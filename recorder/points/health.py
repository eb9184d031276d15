"""The recorder's own state as points of the `recorder` measurement.

Takes figures, gives points. Never does I/O.

    tags                   fields
    device, site           sample_age (s)
    site, source=NAME      connections, undecidable_buses, clock_offset (s), every name in `recorder.counts`,
                           connections_accepted, connections_refused_address, connections_refused_site,
                           connections_refused_full, connections_hung_up, and connections_throttled, which
                           counts pauses; each is 0 until it occurs
    site, source=writer    queue_points, queue_bytes, queue_age (s), dropped, damaged, rejected,
                           written, retries, dead_letters, late_seconds (s), backfills
    site, source=recorder  started: 1 at the moment of each start; clock_set: by how many s the recorder's own
                           clock was set, at that moment; and nothing else
"""

from collections.abc import Mapping
from typing import Final

from recorder.counts import MEANINGS
from recorder.points.point import Point

MEASUREMENT: Final = "recorder"


def sample_age_point(site: str, device: str, age_seconds: float, now_ns: int) -> Point:
    """Tell how old the newest sample of a device is, or since when the recorder has waited for one."""
    return Point(MEASUREMENT, (("device", device), ("site", site)), {"sample_age": age_seconds}, now_ns)


def source_point(site: str, source: str, figures: Mapping[str, float], now_ns: int) -> Point:
    """Tell what a source counted since the recorder started; what never occurred is 0."""
    fields = {name: float(figures.get(name, 0)) for name in (*MEANINGS, *figures)}
    return Point(MEASUREMENT, (("site", site), ("source", source)), fields, now_ns)


def writer_point(site: str, figures: Mapping[str, float], now_ns: int) -> Point:
    """Tell how full the queue is and what the writer did since the recorder started."""
    fields = {name: float(value) for name, value in figures.items()}
    return Point(MEASUREMENT, (("site", site), ("source", "writer")), fields, now_ns)


def start_point(site: str, now_ns: int) -> Point:
    """Tell that the recorder was started, for the annotations of the dashboards."""
    return Point(MEASUREMENT, (("site", site), ("source", "recorder")), {"started": 1.0}, now_ns)


def clock_point(site: str, by_seconds: float, now_ns: int) -> Point:
    """Tell that the recorder's own clock was set."""
    return Point(MEASUREMENT, (("site", site), ("source", "recorder")), {"clock_set": by_seconds}, now_ns)
