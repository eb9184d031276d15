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
DAYS = 28
DAY_MINUTES = 1440

HEALTHY: dict[str, float] = {
    "silent_seconds": 0,
    "samples_seconds": RECENT_SECONDS,
    "day_minutes": DAY_MINUTES,
    "days": DAYS,
    "bright_days": DAYS,
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
    "sold_kwh": 0,
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
"""Counters are what a step gains; `string` of the last five days and `usual` of those before are W.

Samples, minutes of the day and hours of strings go as far back as `samples_seconds`, `day_minutes` and `days`
say. Of the days on which string 1 gives `string`, so many are bright enough.
"""

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
    "sold_kwh": 1.1,
    "sold": 1000.5,
    "charging": 49.5,
    "room": 10.5,
    "string": 599,
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
        "sold_kwh": 2,
        "sold": 1000,
        "charging": 40,
        "room": 11,
        "string": 600,
        "warm": 45,
        "cold": 0,
        "loss": 406,
    },
    "other side": {
        "l1": 206.9,
        "l2": 253.1,
        "l3": 206.9,
        "hertz": 50.51,
        "string": 1401,
        "loss": -151,
        "damaged": 1,
    },
    "other limit": {"l1": 207, "l2": 253, "l3": 207, "hertz": 50.5, "string": 1400, "loss": -150},
    "third way": {"rejected": 1},
    "silent": {"silent_seconds": 301},
    "spoke": {"silent_seconds": 170},
    "charges": {"sold": 2000, "charging": 50, "room": 20},
    "full": {"sold": 2000, "room": 10},
    "dark": {"pv": 200, "string": 45, "usual": 100},
    # A mean of few minutes, a day or a habit that is not known yet: nothing to raise an alarm by.
    "began": {
        **{
            name: _FIRES[name] for name in ("l1", "l2", "l3", "watts", "charge", "sold_kwh", "loss", "string")
        },
        "samples_seconds": 6 * 60,
        "day_minutes": 1320,
        "days": 18,
    },
    "winter": {"charge": 4.5, "sold_kwh": 0.9},
    "few bright days": {"string": 0, "bright_days": 3},
    "one phase": {"l2": 0, "l3": 0},
    "few errors": {"crc_errors": 0.05, "frames": 1},
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
            measured = age < chosen["samples_seconds"]
            yield from (("", line) for line in _samples(site, tag, chosen, now, age, measured=measured))
        if site == "mended":
            for age in range(RECENT_SECONDS, BEFORE_SECONDS, STEP_SECONDS):
                yield from (("", line) for line in _samples(site, tag, {**HEALTHY, **_FIRES}, now, age))
        for hours in range(24 * int(chosen["days"])):
            yield from (("rollups", line) for line in _hour(tag, chosen, now, hours, site == "mended"))
        for minutes in range(int(chosen["day_minutes"])):
            yield from (("rollups", line) for line in _minute(tag, chosen, now, minutes))


def _samples(
    site: str, tag: str, chosen: Mapping[str, float], now: datetime, age: int, *, measured: bool = True
) -> Iterator[str]:
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
        "grid_import": chosen["watts"],
        "grid_export": chosen["sold"],
        "battery_charge": chosen["charging"],
        "battery_discharge": 0.0,
        "pv": chosen["pv"],
        "loss": chosen["loss"],
    }
    yield f"recorder,device=pcs,site={tag} sample_age={chosen['age']} {stamp}"
    yield f"recorder,site={tag},source=writer {_text(writer)} {stamp}"
    yield f"recorder,site={tag},source=pcs {_text(source)} {stamp}"
    if not measured:
        return
    yield f"powermeter,device=meter,site={tag} {_text(meter)} {stamp}"
    yield f"pcs,device=pcs,site={tag} {_text(pcs)} {stamp}"
    yield f"flow,device=pcs,site={tag} {_text(flow)} {stamp}"


def _hour(tag: str, chosen: Mapping[str, float], now: datetime, hours: int, lopsided: bool) -> Iterator[str]:
    """An hour; a lopsided roof gave half as much in the week left out, and before the weeks that count."""
    days = hours // 24
    string = chosen["string"] if days < 5 else chosen["usual"]
    if lopsided and (5 <= days < 12 or days >= 26):
        string /= 2
    pv = chosen["pv"] if days >= 5 or days < chosen["bright_days"] else 0
    stamp = round((now.timestamp() - 3600 * hours) * 1e9)
    volts = {f"voltage_l{phase}": chosen[f"l{phase}"] for phase in (1, 2, 3)}
    yield f"pcs_1h,device=pcs,site={tag} pv_power={pv},pv1_power={string} {stamp}"
    yield f"powermeter_1h,device=meter,site={tag} {_text(volts)} {stamp}"


def _minute(tag: str, chosen: Mapping[str, float], now: datetime, minutes: int) -> Iterator[str]:
    stamp = round((now.timestamp() - 60 * minutes) * 1e9)
    yield f"pcs_1m,device=pcs,site={tag} battery_soc={chosen['charge']} {stamp}"
    yield f"flow_1m,device=pcs,site={tag} grid_export={chosen['sold_kwh'] * 60_000 / DAY_MINUTES} {stamp}"


def _text(values: Mapping[str, float]) -> str:
    return ",".join(f"{name}={float(value)}" for name, value in values.items())
