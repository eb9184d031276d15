"""The newest point of each device, and its text for those who look on.

Takes points as they are made, gives them back as plain values. Never does I/O, keeps one point a series.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from recorder.points.energy import MEASUREMENT as ENERGY_MEASUREMENT
from recorder.points.health import MEASUREMENT as HEALTH_MEASUREMENT
from recorder.points.point import Point

STALE_AFTER_SECONDS: Final = 5.0
"""A point that is older is no longer what is going on: both buses are polled each second."""

# What says nothing of this moment: the recorder's own state, and energies.
_NO_SAMPLES: Final = frozenset({HEALTH_MEASUREMENT, ENERGY_MEASUREMENT})


class Live:
    """What each series' newest point is.

    Args:
        site: the recorder's own, which is known even before it has sent anything.
        quantities: measurement and field of each quantity that a device of a profile knows.
    """

    def __init__(self, site: str, quantities: Mapping[str, tuple[str, str]] | None = None) -> None:
        self.site = site
        self.quantities = dict(quantities or {})
        self._newest: dict[tuple[str, str, str], tuple[float, dict[str, float]]] = {}

    @property
    def sites(self) -> list[str]:
        """The sites that were seen, and the recorder's own, in order."""
        return sorted({self.site, *(site for site, _, _ in self._newest)})

    def observe(self, points: Sequence[Point]) -> list[Point]:
        """Take points, and give those that are samples of a device with a time."""
        samples = [
            point for point in points if point.measurement not in _NO_SAMPLES and point.time_ns is not None
        ]
        for point in samples:
            assert point.time_ns is not None
            key = _key_of(point)
            time_s = point.time_ns / 1e9
            known = self._newest.get(key)
            if known is None or time_s >= known[0]:
                self._newest[key] = (time_s, point.fields)
        return samples

    def clock_was_set(self, by_seconds: float) -> None:
        """Learn that our clock was set: points are as old as before, and what comes now is newer."""
        self._newest = {key: (time_s + by_seconds, fields) for key, (time_s, fields) in self._newest.items()}

    def newest(self, site: str, measurement: str) -> tuple[float, dict[str, float]] | None:
        """Give time (Unix s) and fields of the newest point of a measurement: of the first device by name."""
        keys = [key for key in self._newest if key[:2] == (site, measurement)]
        return self._newest[min(keys)] if keys else None

    def points(self, site: str | None = None) -> list[dict[str, Any]]:
        """Give the newest points, by site, measurement and device."""
        return [
            {**_names(key), "time": _time(time_s), "fields": fields}
            for key, (time_s, fields) in sorted(self._newest.items(), key=lambda item: item[0])
            if site in {None, key[0]}
        ]

    def latest(self, now_s: float, site: str | None = None) -> dict[str, Any]:
        """Give the answer of `/api/v1/latest`."""
        points = [{**point, **freshness(now_s - point["time"])} for point in self.points(site)]
        return {
            "time": _time(now_s),
            "site": self.site,
            "sites": self.sites,
            "stale_after_seconds": STALE_AFTER_SECONDS,
            "state_of_charge": ".".join(self.quantities["soc"]) if "soc" in self.quantities else None,
            "points": points,
        }


def freshness(age_seconds: float) -> dict[str, Any]:
    """Give an age as the answers tell it."""
    age_seconds = round(max(0.0, age_seconds), 3)
    return {"age_seconds": age_seconds, "stale": age_seconds > STALE_AFTER_SECONDS}


def point_of(point: Point) -> dict[str, Any]:
    """Give a point with a time as plain values."""
    return {**_names(_key_of(point)), "time": _time((point.time_ns or 0) / 1e9), "fields": point.fields}


def text_of(value: object) -> str:
    """Give JSON in one line, as short as it can be."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _key_of(point: Point) -> tuple[str, str, str]:
    tags = dict(point.tags)
    return tags.get("site", ""), point.measurement, tags.get("device", "")


def _names(key: tuple[str, str, str]) -> dict[str, Any]:
    site, measurement, device = key
    return {"site": site, "device": device, "measurement": measurement}


def _time(unix_s: float) -> float:
    return round(unix_s, 3)
