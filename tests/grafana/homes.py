"""Homes of which every minute and every fault is known: what their recorders would have written.

Takes a home with its faults and a span of time, gives lines of line protocol, one sample a minute, and one
each ten seconds around faults. Shares no code with the recorder: weather, battery and balance are its own.

A fault says which rules have to fire for it. Everything else that happens here (dusk, winter, snow, restarts,
gaps, bursts, a roof to the east and one to the west) has to leave the rules quiet.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import cos, pi
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from recorder.simulator.noise import SmoothNoise, seeded
from recorder.simulator.sun import clear_sky_irradiance, sun_vector

ZONE = ZoneInfo("Europe/Berlin")
BEGIN = datetime(2026, 3, 1, tzinfo=ZONE)
"""When the recorders start for the first time."""
FINE_BEFORE_S, FINE_AFTER_S = 900, 5400
"""So long around the begin and the end of a fault there is a sample each ten seconds."""

_BATTERY_WH, _BATTERY_W, _LEAST_SOC, _MOST_SOC = 6400.0, 3000.0, 4.0, 95.0
_STANDBY_W, _LOSS_SHARE = 14.0, 0.035
_FRAMES_A_SECOND = 8


class Roof(NamedTuple):
    """A string of panels."""

    peak_w: float
    tilt_deg: float
    azimuth_deg: float


@dataclass(frozen=True)
class Fault:
    """Something that happens from `at` on, for so long.

    `value` is what it sets or adds, by its kind; `which` is the string, phase or device that it concerns.
    `expects` has the uids of the rules that have to fire, `allows` of those that may as well.
    """

    kind: str
    at: datetime
    lasts: timedelta
    value: float = 0.0
    which: int = 0
    expects: tuple[str, ...] = ()
    allows: tuple[str, ...] = ()

    @property
    def start_s(self) -> int:
        """When it begins, Unix s."""
        return int(self.at.timestamp())

    @property
    def end_s(self) -> int:
        """When it ends, Unix s; in hours that pass, whatever clocks do."""
        return self.start_s + int(self.lasts.total_seconds())


@dataclass(frozen=True)
class Home:
    """A home: where it is, its roofs (none: a meter alone), phases that its meter has, and its faults."""

    name: str
    title: str
    roofs: tuple[Roof, Roof] | None
    phases: int
    faults: Sequence[Fault]
    latitude_deg: float = 51.2
    longitude_deg: float = 9.8
    dark_winter: bool = False

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices whose samples the recorder waits for."""
        return ("pcs", "meter") if self.roofs else ("meter",)


class Point(NamedTuple):
    """A point: measurement, tags and fields."""

    measurement: str
    tags: str
    fields: dict[str, float]

    @property
    def text(self) -> str:
        """The point as line protocol, but for its time."""
        fields = ",".join(f"{name}={value:.6g}" for name, value in self.fields.items())
        return f"{self.measurement},{self.tags} {fields}"


@dataclass
class _Run:
    """What a recorder counts since it started, and the newest sample of each device, Unix s."""

    started_s: int
    counts: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(
            ("frames", "crc_errors", "dead_letters", "dropped", "damaged", "rejected"), 0.0
        )
    )
    newest_s: dict[str, int] = field(default_factory=dict)


class Life:
    """A home from its first minute on.

    `notable` has the moments, Unix s, at which a value came near a limit without any fault.
    """

    def __init__(self, home: Home, end: datetime) -> None:
        self.home = home
        self.begin_s, self.end_s = int(BEGIN.timestamp()), int(end.timestamp())
        self.faults = [fault for fault in home.faults if fault.start_s < self.end_s]
        self.notable: set[int] = set()
        self._edges = sorted({edge for fault in self.faults for edge in (fault.start_s, fault.end_s)})
        self._day, self._runs = -1, list[tuple[int, int, float]]()
        self._noise = {
            name: SmoothNoise(f"{home.name}/{name}", seconds)
            for name, seconds in (
                ("weather", 2 * 86_400), ("hours", 9000), ("clouds", 900),
                ("base", 1800), ("grid", 1800),
            )
        }  # fmt: skip
        self._soc = 40.0
        self._battery_c = 15.0

    def lines(self) -> Iterator[str]:
        """Every point that the recorder writes, in order of time.

        Far from faults nothing changes for five minutes, of which each has its samples.
        """
        run = _Run(self.begin_s)
        at_s = self.begin_s + 7
        while at_s < self.end_s:
            step_s = 10 if self._is_fine(at_s) or self._is_fine(at_s + 300) else 300
            now = {(one.kind, one.which): one for one in self.faults if one.start_s <= at_s < one.end_s}
            kinds = {kind for kind, _ in now}
            # The plant goes on while nobody records it.
            measured = list(self._measured(at_s, step_s, now, run))
            if kinds & {"recorder down", "restart"}:
                run = _Run(at_s + step_s)
            else:
                texts = [point.text for point in (*measured, *self._health(at_s, step_s, now, run))]
                for stamp_s in range(at_s, at_s + step_s, 60):
                    yield from (f"{text} {stamp_s}000000000" for text in texts)
            at_s += step_s

    def _is_fine(self, at_s: int) -> bool:
        place = bisect_right(self._edges, at_s)
        near = self._edges[max(0, place - 1) : place + 1]
        first = at_s < self.begin_s + 3 * 3600
        return first or any(edge - FINE_BEFORE_S <= at_s < edge + FINE_AFTER_S for edge in near)

    def _measured(
        self, at_s: int, step_s: int, now: dict[tuple[str, int], Fault], run: _Run
    ) -> Iterator[Point]:
        """What inverter and meter deliver in a step."""
        home = self.home
        load_w = self._load(at_s) + (now["load", 0].value if ("load", 0) in now else 0.0)
        strings_w = self._strings(at_s, now)
        pv_w, pcs_w, battery_w = sum(strings_w), 0.0, 0.0
        if home.roofs:
            battery_w = self._battery(at_s, step_s, load_w, pv_w, now)
            pcs_w = pv_w + battery_w - _STANDBY_W - _LOSS_SHARE * (pv_w + abs(battery_w))
        meter_w = load_w - pcs_w
        down = {
            device for device in (0, 1) if ("controller down", 0) in now or ("device down", device) in now
        }
        if home.roofs and 0 not in down:
            run.newest_s["pcs"] = at_s
            run.counts["frames"] += step_s
            soc_raw = 4.5 + 0.905 * self._soc
            celsius = now["celsius", 0].value if ("celsius", 0) in now else self._battery_c
            yield Point(
                "pcs",
                f"device=pcs,site={home.name}",
                {
                    "pv1_power": strings_w[0], "pv_power": pv_w, "battery_soc": self._soc,
                    "battery_soc_max": 4.5 + 0.905 * _MOST_SOC, "battery_soc_raw": soc_raw,
                    "battery_temperature_max": celsius + 0.4, "battery_temperature_min": celsius - 0.4,
                },
            )  # fmt: skip
        if 1 not in down:
            run.newest_s["meter"] = at_s
            run.counts["frames"] += step_s * (_FRAMES_A_SECOND - 1)
            volts = self._volts(at_s, meter_w, now)
            hertz = (
                now["hertz", 0].value if ("hertz", 0) in now else 49.97 + 0.06 * self._noise["grid"].at(at_s)
            )
            yield Point("powermeter", f"device=meter,site={home.name}", {**volts, "frequency": hertz})
        if not down:
            read_pv_w = pv_w * now["pv misread", 0].value if ("pv misread", 0) in now else pv_w
            loss_w = read_pv_w + battery_w - pcs_w if home.roofs else 0.0
            if ("transient", 0) in now:
                loss_w = now["transient", 0].value
            flow = {
                "grid_import": max(0.0, meter_w), "grid_export": max(0.0, -meter_w),
                "battery_charge": max(0.0, -battery_w), "battery_discharge": max(0.0, battery_w),
                "pv": read_pv_w, "loss": loss_w,
            }  # fmt: skip
            yield Point("flow", f"device={home.devices[0]},site={home.name}", flow)
            if meter_w > 6000 or self._battery_c > 40 or self._battery_c < 5:
                self.notable.add(at_s // 60 * 60)

    def _load(self, at_s: int) -> float:
        """What the home draws, W: some appliances a day, over a base that drifts."""
        day, second = divmod(at_s + 3600, 86_400)
        if day != self._day:
            random = seeded(self.home.name, "day", day)
            self._day, self._runs = day, []
            for _ in range(12):
                start, power_w = random.randrange(6 * 3600, 23 * 3600), random.uniform(300, 3500)
                self._runs.append(
                    (start, start + int(random.uniform(0.2, 1.2) * 3_600_000 / power_w), power_w)
                )
        base_w = 120 + 250 * self._noise["base"].at(at_s)
        return base_w + sum(power_w for start, end, power_w in self._runs if start <= second < end)

    def _strings(self, at_s: int, now: dict[tuple[str, int], Fault]) -> tuple[float, float]:
        if not self.home.roofs:
            return 0.0, 0.0
        sun = sun_vector(at_s, self.home.latitude_deg, self.home.longitude_deg)
        if sun.up <= 0:
            return 0.0, 0.0
        noise = {name: self._noise[name].at(at_s) for name in ("weather", "hours", "clouds")}
        cover = 1.3 * noise["weather"] + 0.5 * noise["hours"] + 0.3 * noise["clouds"] - 0.6
        moment = datetime.fromtimestamp(at_s, ZONE)
        if self.home.dark_winter and moment.month in {11, 12, 1, 2}:
            cover += 0.45
        cover = 0.0 if ("clear", 0) in now else min(1.0, max(0.0, cover))
        powers = []
        for number, roof in enumerate(self.home.roofs, start=1):
            direct, diffuse = clear_sky_irradiance(sun, roof.tilt_deg, roof.azimuth_deg)
            light = (1 - 0.95 * cover) * direct + (1 + 0.5 * cover) * diffuse
            part = 1.0
            for kind in ("snow", "string dead"):
                part *= now[kind, number].value if (kind, number) in now else 1.0
            powers.append(float(int(roof.peak_w * light / 1000 * 0.86 * part)))
        return powers[0], powers[1]

    def _battery(
        self, at_s: int, step_s: int, load_w: float, pv_w: float, now: dict[tuple[str, int], Fault]
    ) -> float:
        """Power of the battery, + discharging; it covers what the home lacks and takes what is left."""
        if ("battery stuck", 0) in now:
            # It was emptied, and takes nothing.
            self._soc = now["battery stuck", 0].value
            return 0.0
        wanted_w = (load_w + _STANDBY_W + _LOSS_SHARE * pv_w - pv_w) / (1 - _LOSS_SHARE)
        above_wh = (self._soc - _LEAST_SOC) / 100 * _BATTERY_WH
        below_wh = (_MOST_SOC - self._soc) / 100 * _BATTERY_WH
        power_w = min(wanted_w, _BATTERY_W, max(0.0, above_wh * 3600 / step_s))
        power_w = float(int(max(power_w, -_BATTERY_W, -max(0.0, below_wh * 3600 / step_s))))
        self._soc -= power_w * step_s / 36 / _BATTERY_WH
        year = at_s / 86_400 % 365.25 / 365.25
        target_c = 16 - 6 * cos(2 * pi * year) + abs(power_w) / 300
        self._battery_c += (target_c - self._battery_c) * min(1.0, step_s / 7200)
        return power_w

    def _volts(self, at_s: int, meter_w: float, now: dict[tuple[str, int], Fault]) -> dict[str, float]:
        volts = {}
        grid_v = 228 + 8 * self._noise["grid"].at(at_s)
        for phase in (1, 2, 3):
            value = grid_v + phase - (meter_w / 1000 if phase == 1 else 0)
            if phase > self.home.phases:
                value = 0.0
            elif ("volts", phase) in now:
                value = now["volts", phase].value
            elif not 212 < value < 248:
                self.notable.add(at_s // 60 * 60)
            volts[f"voltage_l{phase}"] = value
        return volts

    def _health(
        self, at_s: int, step_s: int, now: dict[tuple[str, int], Fault], run: _Run
    ) -> Iterator[Point]:
        """What the recorder says of itself."""
        site, counts = f"site={self.home.name}", run.counts
        frames = step_s * _FRAMES_A_SECOND
        if ("crc", 0) in now:
            counts["crc_errors"] += frames * now["crc", 0].value
        counts["crc_errors"] += at_s % 7200 < step_s
        for kind in ("dead_letters", "dropped", "damaged", "rejected"):
            if (kind, 0) in now and at_s - now[kind, 0].start_s < step_s:
                counts[kind] += now[kind, 0].value
        for device in self.home.devices:
            age = at_s - run.newest_s.get(device, run.started_s)
            yield Point("recorder", f"device={device},{site}", {"sample_age": max(0, age)})
        of_source = {name: counts[name] for name in ("frames", "crc_errors")}
        yield Point("recorder", f"{site},source=pcs", of_source)
        of_writer = {name: counts[name] for name in ("dead_letters", "dropped", "damaged", "rejected")}
        queue_age = now["queue age", 0].value if ("queue age", 0) in now else 1.0
        if ("influxdb down", 0) in now:
            queue_age = at_s - now["influxdb down", 0].start_s
        late = now["late", 0].value if ("late", 0) in now else 0.0
        writer = {"queue_points": 9, "queue_age": queue_age, "late_seconds": late, **of_writer}
        yield Point("recorder", f"{site},source=writer", writer)


def faults(*rows: tuple[Any, ...]) -> tuple[Fault, ...]:
    """Faults by kind, local time, duration, and the rest of `Fault` by name."""
    made = []
    for kind, at, minutes, *rest in rows:
        moment = datetime.fromisoformat(at).replace(tzinfo=ZONE)
        made.append(Fault(kind, moment, timedelta(minutes=minutes), **(rest[0] if rest else {})))
    return tuple(made)


_HOUR, _DAY = 60, 1440
SILENT, STALE = ("ess-recorder-silent",), ("ess-no-fresh-sample",)

EAST_WEST = Home(
    "east_west",
    "LG ESS, roofs east and west",
    (Roof(3100, 35, 90), Roof(3100, 35, 270)),
    3,
    faults(
        ("controller down", "2026-03-20 11:00", 1.6),
        ("restart", "2026-03-21 12:00", 0.3),
        ("influxdb down", "2026-03-29 01:50", 25, {"expects": SILENT}),  # over the change of clocks
        ("load", "2026-04-10 18:00", 25, {"value": 12_500.0, "expects": ("ess-import-peak",)}),
        ("load", "2026-04-11 18:00", 8, {"value": 14_000.0}),
        ("load", "2026-04-12 18:00", 14, {"value": 12_500.0}),
        ("recorder down", "2026-04-12 17:56", 4),
        ("recorder down", "2026-04-12 18:14", 4),
        ("string dead", "2026-05-20 07:00", 9 * _DAY, {"which": 2, "expects": ("ess-string-imbalance",)}),
        ("clear", "2026-06-20 00:00", 3 * _DAY),
        (
            "battery stuck",
            "2026-06-20 11:00",
            2 * _DAY,
            {"value": 4.4, "expects": ("ess-not-charging-in-sun", "ess-battery-low")},
        ),
        ("celsius", "2026-07-01 15:00", 120, {"value": 48.0, "expects": ("ess-battery-warm",)}),
        ("celsius", "2026-07-02 15:00", 3, {"value": 48.0}),
        ("clear", "2026-07-05 00:00", _DAY),
        ("pv misread", "2026-07-05 10:30", 240, {"value": 0.6, "expects": ("ess-energy-balance",)}),
        ("clear", "2026-07-07 00:00", _DAY),
        ("pv misread", "2026-07-07 10:30", 240, {"value": 1.5, "expects": ("ess-energy-balance",)}),
        ("transient", "2026-07-09 12:00", 1, {"value": -900.0}),
        ("controller down", "2026-07-09 12:01", 45, {"expects": STALE}),
        ("controller down", "2026-07-09 10:30", 89, {"expects": STALE}),
        ("volts", "2026-07-12 12:00", 40, {"which": 1, "value": 254.5, "expects": ("ess-voltage-l1",)}),
        ("volts", "2026-07-13 12:00", 40, {"which": 2, "value": 204.0, "expects": ("ess-voltage-l2",)}),
        ("volts", "2026-07-14 12:00", 120, {"which": 3, "value": 0.0, "expects": ("ess-voltage-l3",)}),
        ("volts", "2026-07-15 12:00", 3, {"which": 1, "value": 255.0}),
        ("controller down", "2026-07-15 11:40", 20, {"expects": STALE}),
        ("controller down", "2026-07-15 12:03", 20, {"expects": STALE}),
        ("hertz", "2026-07-20 12:00", 8, {"value": 49.3, "expects": ("ess-frequency",)}),
        ("hertz", "2026-07-21 12:00", 0.5, {"value": 0.0}),
        ("crc", "2026-08-01 12:00", 60, {"value": 0.05, "expects": ("ess-crc-errors",)}),
        ("crc", "2026-08-02 12:00", 0.5, {"value": 0.5}),
        ("dead_letters", "2026-08-05 12:00", 1, {"value": 3.0, "expects": ("ess-dead-letters",)}),
        ("restart", "2026-08-06 12:00", 0.3),
        ("dropped", "2026-08-07 12:00", 1, {"value": 10.0, "expects": ("ess-points-lost",)}),
        ("restart", "2026-08-08 12:00", 0.3),
        ("queue age", "2026-08-10 12:00", 30, {"value": 600.0, "expects": ("ess-influxdb-behind",)}),
        ("queue age", "2026-08-11 12:00", 1, {"value": 600.0}),
        ("late", "2026-08-12 12:00", 40, {"value": 300.0}),
        ("late", "2026-08-13 12:00", 180, {"value": 3600.0, "expects": ("ess-averages-behind",)}),
        ("recorder down", "2026-10-25 01:30", 120, {"expects": SILENT}),  # over the change of clocks
        ("device down", "2026-10-28 09:00", 180, {"which": 1, "expects": STALE}),
        ("celsius", "2027-01-15 03:00", 240, {"value": -2.0, "expects": ("ess-battery-cold",)}),
    ),
)

METER = Home(
    "meter",
    "a meter of one phase alone",
    None,
    1,
    faults(
        ("load", "2026-03-01 00:00", 8, {"value": 14_000.0}),
        *(("restart", f"2026-03-10 {hour}:00", 0.3) for hour in ("10", "11", "12", "13")),
        ("recorder down", "2026-03-15 22:00", 5),
        ("controller down", "2026-04-01 06:00", 120, {"expects": STALE}),
        ("controller down", "2026-05-01 06:00", 3 * _DAY, {"expects": STALE}),
        ("restart", "2026-05-02 12:00", 0.3, {"allows": STALE}),
        ("recorder down", "2026-06-10 08:00", 30 * _HOUR, {"expects": SILENT}),
        ("load", "2026-07-10 18:00", 30, {"value": 9500.0, "expects": ("ess-import-peak",)}),
        ("load", "2026-07-11 17:55", 8, {"value": 12_500.0}),
        ("recorder down", "2026-07-11 18:03", 5),
        ("volts", "2026-08-10 12:00", 40, {"which": 1, "value": 200.0, "expects": ("ess-voltage-l1",)}),
        ("hertz", "2026-08-20 12:00", 8, {"value": 50.7, "expects": ("ess-frequency",)}),
        ("influxdb down", "2026-09-20 12:00", 2),
        ("influxdb down", "2026-09-21 12:00", 180, {"expects": SILENT}),
        ("crc", "2026-10-01 12:00", 60, {"value": 0.03, "expects": ("ess-crc-errors",)}),
        ("dropped", "2026-10-10 12:00", 1, {"value": 10.0, "expects": ("ess-points-lost",)}),
        ("recorder down", "2026-12-24 18:00", 6 * _DAY, {"expects": SILENT}),
    ),
)

WINTER = Home(
    "winter",
    "LG ESS, snow and outages",
    (Roof(3300, 35, 150), Roof(2900, 35, 240)),
    3,
    faults(
        ("controller down", "2026-03-01 00:00", 10, {"expects": STALE}),  # set up after the recorder
        ("device down", "2026-03-03 09:00", _DAY, {"which": 0, "expects": STALE}),
        ("string dead", "2026-06-01 12:00", 8 * _DAY,
         {"which": 1, "value": 0.3, "expects": ("ess-string-imbalance",)}),
        ("influxdb down", "2026-08-01 03:00", 26 * _HOUR, {"expects": SILENT}),
        ("late", "2026-08-02 05:00", 35, {"value": 93_600.0}),
        ("influxdb down", "2026-11-20 12:00", 20, {"expects": SILENT}),
        ("recorder down", "2026-11-25 12:00", 180, {"expects": SILENT}),
        ("controller down", "2026-12-01 04:00", 3 * _DAY, {"expects": STALE}),
        *(("snow", "2026-12-10 02:00", 4 * _DAY, {"which": which}) for which in (1, 2)),
        ("snow", "2026-12-14 02:00", 3 * _DAY, {"which": 2}),
        ("clear", "2026-12-14 00:00", 5 * _DAY),
        *(("snow", "2027-01-08 02:00", 12 * _DAY, {"which": which}) for which in (1, 2)),
        ("snow", "2027-01-20 02:00", 3 * _DAY, {"which": 1}),
        ("clear", "2027-01-20 00:00", 8 * _DAY),
        ("recorder down", "2027-01-25 08:00", 30 * _HOUR, {"expects": SILENT}),
        ("snow", "2027-02-10 02:00", 3 * _DAY, {"which": 2, "value": 0.05}),
        ("clear", "2027-02-10 00:00", 6 * _DAY),
        ("celsius", "2027-02-20 03:00", 300, {"value": -4.0, "expects": ("ess-battery-cold",)}),
    ),
    latitude_deg=54.0,
    dark_winter=True,
)  # fmt: skip
HOMES = (EAST_WEST, METER, WINTER)
