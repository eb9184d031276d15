"""Sites in InfluxDB that make alert rules fire, or just not.

Takes the moment that counts as now, gives lines by retention policy. Each site has the values of a healthy
home, `HEALTHY`, but for those that `SITES` names.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime

STEP_SECONDS = 10
RECENT_SECONDS = 65 * 60
BEFORE_SECONDS = 100 * 60
"""Site "mended" had all that fires from so long ago until `RECENT_SECONDS` ago."""
DAYS = 18

HEALTHY: dict[str, float] = {
    "silent_seconds": 0,
    "age": 1,
    "queue_age": 0,
    "late": 0,
    "refused": 0,
    "dropped": 0,
    "damaged": 0,
    "rejected": 0,
    "crc_errors": 0,
    "frames": 100,
    "l1": 230,
    "l2": 230,
    "l3": 230,
    "hertz": 50,
    "watts": 500,
    "charge": 60,
    "sold": 0,
    "charging": 0,
    "room": 40,
    "string": 1000,
    "usual": 1000,
    "pv": 2000,
    "warm": 25,
    "cold": 20,
    "loss": 30,
}
"""Counters are what a step gains, `string` of today and `usual` of the days before are W of string 1."""

_FIRES = {
    "age": 120.5,
    "queue_age": 120.5,
    "late": 1,
    "refused": 1,
    "dropped": 1,
    "crc_errors": 1.01,
    "frames": 98.99,
    "l1": 253.1,
    "l2": 206.9,
    "l3": 253.1,
    "hertz": 49.49,
    "watts": 8000.5,
    "charge": 4.5,
    "sold": 1000.5,
    "charging": 49.5,
    "room": 10.5,
    "string": 1301,
    "warm": 45.5,
    "cold": -0.5,
    "loss": 401 + 7.425,
}
SITES: dict[str, Mapping[str, float]] = {
    "healthy": {},
    "mended": {},
    "fires": _FIRES,
    "limit": {
        "age": 120,
        "queue_age": 120,
        "crc_errors": 1,
        "frames": 99,
        "l1": 253,
        "l2": 207,
        "l3": 253,
        "hertz": 49.5,
        "watts": 8000,
        "charge": 5,
        "sold": 1000,
        "charging": 40,
        "room": 11,
        "string": 1300,
        "warm": 45,
        "cold": 0,
        "loss": 406,
    },
    "other side": {
        "l1": 206.9,
        "l2": 253.1,
        "l3": 206.9,
        "hertz": 50.51,
        "string": 699,
        "loss": -151,
        "damaged": 1,
    },
    "other limit": {"l1": 207, "l2": 253, "l3": 207, "hertz": 50.5, "string": 700, "loss": -150},
    "third way": {"rejected": 1},
    "silent": {"silent_seconds": 301},
    "spoke": {"silent_seconds": 180},
    "charges": {"sold": 2000, "charging": 50, "room": 20},
    "full": {"sold": 2000, "room": 10},
    "dark": {"pv": 100, "string": 90, "usual": 50},
}
RESTARTED = "healthy"
"""The site whose counters fell to 0 half an hour ago."""


def lines(now: datetime) -> Iterator[tuple[str, str]]:
    """Retention policy and line of each point."""
    for site, values in SITES.items():
        tag = site.replace(" ", "\\ ")
        chosen = {**HEALTHY, **values}
        recent = range(int(chosen["silent_seconds"]), RECENT_SECONDS, STEP_SECONDS)
        for age in recent:
            yield from (("", line) for line in _samples(site, tag, chosen, now, age))
        if site == "mended":
            for age in range(RECENT_SECONDS, BEFORE_SECONDS, STEP_SECONDS):
                yield from (("", line) for line in _samples(site, tag, {**HEALTHY, **_FIRES}, now, age))
        for hours in range(24 * DAYS):
            yield "rollups", _hour(tag, chosen, now, hours, lopsided=site == "mended")


def _samples(site: str, tag: str, chosen: Mapping[str, float], now: datetime, age: int) -> Iterator[str]:
    stamp = round((now.timestamp() - age) * 1e9)
    steps = (BEFORE_SECONDS - age) // STEP_SECONDS
    lost = 0.0 if site == RESTARTED and age < RECENT_SECONDS / 2 else 7.0
    counted = {
        "dead_letters": lost + steps * chosen["refused"],
        **{name: lost + steps * chosen[name] for name in ("dropped", "damaged", "rejected")},
    }
    writer = {
        "queue_points": 3.0,
        "queue_age": chosen["queue_age"],
        "late_seconds": chosen["late"],
        **counted,
    }
    source = {name: lost + steps * chosen[name] for name in ("crc_errors", "frames")}
    meter = {
        "active_power": chosen["watts"],
        "frequency": chosen["hertz"],
        **{f"voltage_l{phase}": chosen[f"l{phase}"] for phase in (1, 2, 3)},
    }
    pcs = {
        "battery_soc": chosen["charge"],
        "battery_soc_max": 95.0,
        "battery_soc_raw": 95.0 - chosen["room"],
        "battery_temperature_max": chosen["warm"],
        "battery_temperature_min": chosen["cold"],
    }
    flow = {
        "grid_export": chosen["sold"],
        "battery_charge": chosen["charging"],
        "battery_discharge": 0.0,
        "pv": chosen["pv"],
        "loss": chosen["loss"],
    }
    yield f"recorder,device=pcs,site={tag} sample_age={chosen['age']} {stamp}"
    yield f"recorder,site={tag},source=writer {_text(writer)} {stamp}"
    yield f"recorder,site={tag},source=pcs {_text(source)} {stamp}"
    yield f"powermeter,device=meter,site={tag} {_text(meter)} {stamp}"
    yield f"pcs,device=pcs,site={tag} {_text(pcs)} {stamp}"
    yield f"flow,device=pcs,site={tag} {_text(flow)} {stamp}"


def _hour(tag: str, chosen: Mapping[str, float], now: datetime, hours: int, *, lopsided: bool) -> str:
    """An hour of the strings; before the two weeks that count, a lopsided roof gave half as much."""
    string = chosen["string"] if hours < 24 else chosen["usual"]
    if lopsided and hours >= 24 * 15:
        string /= 2
    stamp = round((now.timestamp() - 3600 * hours) * 1e9)
    return f"pcs_1h,device=pcs,site={tag} pv_power={chosen['pv']},pv1_power={string} {stamp}"


def _text(values: Mapping[str, float]) -> str:
    return ",".join(f"{name}={float(value)}" for name, value in values.items())
