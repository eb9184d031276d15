"""A simulated year in InfluxDB, and the truth that it was made of.

Takes a running server, fills it with one site's year and another one's month: minutes as the continuous
queries would have written them, samples for the last hours, then everything else by the project's own
statements. Never computes an energy itself: `Truth` adds up the plant's powers instead.

Within a `Span` every power of the plant is constant, so its energies are exact.
"""

import pickle
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from recorder.counts import MEANINGS
from recorder.influx.backfill import steps
from recorder.influx.continuous_queries import PolicyNames, statements
from recorder.influx.savings import DailySavings
from recorder.influx.server import Connection, InfluxServer
from recorder.influx.setup import SetUp, SetUpSettings
from recorder.points.flow import balance
from recorder.profiles.model import Profile
from recorder.profiles.parse import parse_profile
from recorder.simulator.plant import Plant, PlantState
from recorder.tariffs.model import parse_tariffs
from tests.support.influxd import Influxd, Row, as_of

SITE = "24/7 \"Müllers\" Haus, Nr. 3 'am See' (oben)"
"""Begins with a number, holds all that a query could stumble over."""
SECOND_SITE = "second"
ZONE = ZoneInfo("Europe/Berlin")
END = datetime(2026, 6, 17, 12, 41, tzinfo=UTC)
"""The end of each run's year is the same: at night, or near a change of clocks, panels rightly differ."""
DAYS = 366
SAMPLED_SECONDS = 5 * 3600
HEALTH_SECONDS = 4 * 86_400
STEP_SECONDS = 900
WHOLE_DAYS = 26
"""So many days have each minute of inverter and meter; older ones, whose means are constant for a quarter of
an hour, have its last minute only, unless the year is made in steps of a minute."""
TARIFF_CHANGE_DAYS = 60
"""So many days before the end prices changed, at 13:00 local time."""
PAUSE_DAYS, PAUSE_SECONDS = 20, 3 * 3600
"""So many days before the end nothing was recorded for three hours."""
SHORT_PAUSE_AGO, SHORT_PAUSE_SECONDS = 7200, 600
"""Two hours before the end ten minutes of samples are missing."""

SUBMETER, SUBMETER_W = "heat_pump", 400.0
"""A submeter of the first site, and the power that it draws all the time."""

_PROFILES = Path(__file__).parents[2] / "config" / "profiles"
_LINES_A_WRITE = 10_000
_ESCAPES = str.maketrans({",": "\\,", " ": "\\ ", "=": "\\="})


class Span(NamedTuple):
    """A time of constant powers, W; `recorded` is false in a pause. Powers have the data model's signs."""

    start_s: int
    seconds: int
    home_w: float
    pv_w: float
    meter_w: float
    battery_w: float
    loss_w: float
    recorded: bool


class Truth(NamedTuple):
    """What the plant did: `spans` in order, and the last moment, Unix s."""

    spans: Sequence[Span]
    end_s: int

    def energy(self, start: datetime, end: datetime) -> dict[str, float]:
        """Energies in kWh between two moments; what has no counter only where it was recorded."""
        names = ("home", "pv", "bought", "sold", "charged", "discharged", "lost", "pv_to_grid", "pv_given")
        total = dict.fromkeys(names, 0.0)
        for span in self.spans:
            hours = (
                min(span.start_s + span.seconds, end.timestamp()) - max(span.start_s, start.timestamp())
            ) / 3600
            if hours <= 0:
                continue
            total["bought"] += max(0.0, span.meter_w) * hours / 1000
            total["sold"] += max(0.0, -span.meter_w) * hours / 1000
            total["charged"] += max(0.0, -span.battery_w) * hours / 1000
            total["discharged"] += max(0.0, span.battery_w) * hours / 1000
            if span.recorded:
                total["home"] += span.home_w * hours / 1000
                total["pv"] += span.pv_w * hours / 1000
                total["lost"] += span.loss_w * hours / 1000
                ac_w = span.pv_w + span.battery_w - span.loss_w
                flow = balance(ac_w, span.pv_w, span.battery_w, span.meter_w)
                total["pv_to_grid"] += flow["pv_to_grid"] * hours / 1000
                given_w = flow["pv_to_home"] + flow["pv_to_battery"] + flow["pv_to_grid"]
                total["pv_given"] += given_w * hours / 1000
        return total

    def day(self, day: date) -> dict[str, float]:
        """Energies of a local day."""
        begin = datetime.combine(day, datetime.min.time(), ZONE)
        return self.energy(begin, datetime.combine(day + timedelta(days=1), datetime.min.time(), ZONE))


class Year(NamedTuple):
    """A filled database, and what it was made of."""

    server: Influxd
    truth: Truth

    @property
    def now(self) -> datetime:
        """The moment of the last sample."""
        return datetime.fromtimestamp(self.truth.end_s, UTC)

    def ask(self, statement: str) -> list[Row]:
        """The rows of a statement, whose `now()` is that of the year."""
        return self.server.query(as_of(self.now, statement), "ess")


@contextmanager
def shared_year(directory: Path, own: Path, step_seconds: int = STEP_SECONDS) -> Iterator[Year]:
    """The year on a server of one's own; it is made once for all who name the same `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        flock(lock, LOCK_EX)
        if not (directory / "truth").exists():
            with _server(directory / "influxd") as server:
                truth = fill(server, int(END.timestamp()), step_seconds)
                server.stop()
            (directory / "truth").write_bytes(pickle.dumps(truth))
    truth = pickle.loads((directory / "truth").read_bytes())
    shutil.copytree(directory / "influxd", own)
    with _server(own) as server:
        yield Year(server, truth)


def _server(directory: Path) -> Influxd:
    return Influxd(directory, sections={"continuous_queries": {"enabled": "false"}})


def profiles() -> tuple[Profile, ...]:
    """The shipped profiles."""
    return tuple(parse_profile(path.read_text(), path.name) for path in sorted(_PROFILES.glob("*.yaml")))


def fill(server: Influxd, end_s: int, step_seconds: int) -> Truth:
    """Write both sites up to `end_s` (Unix s, on a minute), and derive the rest; the first site's truth."""
    settings = SetUpSettings(profiles=profiles(), timezone=str(ZONE))
    SetUp(InfluxServer(Connection(server.url)), settings).apply()
    # A step begins where a quarter of an hour does, so that no energy is in two of them.
    sampled_s = (end_s - SAMPLED_SECONDS) // STEP_SECONDS * STEP_SECONDS
    begin_s = (sampled_s - DAYS * 86_400) // 86_400 * 86_400
    spans = _site(server, SITE, 7, (begin_s, sampled_s, end_s), step_seconds)
    _site(server, SECOND_SITE, 8, (sampled_s - 30 * 86_400, sampled_s, end_s), step_seconds)
    _health(server, begin_s, end_s)
    begin, sampled, end = (datetime.fromtimestamp(at_s, UTC) for at_s in (begin_s, sampled_s, end_s))
    for query in statements("ess", profiles(), PolicyNames(), str(ZONE)):
        of_samples = query.target.endswith(("_avg10", "_1m"))
        if query.target == "recorder_1h":
            continue
        for step in steps(query, sampled if of_samples else begin, end, ZONE):
            for statement in step.statements(lambda asked: _tagged(server.query(asked)), begin):
                server.query(statement, "ess")
    _submeter(server, begin, end)
    daily = DailySavings(
        InfluxServer(Connection(server.url)), parse_tariffs(tariff_text(end), "t", {}), str(ZONE)
    )
    daily.compute(begin.date(), end.date() + timedelta(days=1))
    return Truth(spans, end_s)


def tariff_text(end: datetime) -> str:
    """The tariff file of the year that ends at a moment."""
    changed = (end - timedelta(days=TARIFF_CHANGE_DAYS)).astimezone(ZONE)
    return f"""
currency: EUR
tariffs:
  - {{valid_from: 2020-01-01, import_price: 0.33, feed_in_price: 0.08, base_fee_per_month: 12}}
  - valid_from: {changed:%Y-%m-%d} 13:00
    import_price: 0.36
    feed_in_price: 0.07
    base_fee_per_month: 15
    windows: [{{between: 22:00-06:00, days: [mon, tue, wed, thu, fri], import_price: 0.25}}]
"""


def _tagged(rows: list[Row]) -> list[Row]:
    return [{key: value for key, value in row.items() if key != "name"} for row in rows]


def _site(
    server: Influxd, site: str, seed: int, times_s: tuple[int, int, int], step_seconds: int
) -> list[Span]:
    """Minutes from the first to the second time, samples from there to the third, Unix s."""
    begin_s, sampled_s, end_s = times_s
    plant = Plant(seed, begin_s)
    spans = []
    batch, samples = _Batch(server, "rollups"), _Batch(server, "")
    counted = plant.state
    # By day, so that the pause is within a local day and hides some energy.
    pause_s = (end_s - PAUSE_DAYS * 86_400) // 86_400 * 86_400 + 9 * 3600
    while plant.now_s < sampled_s:
        start_s, before = plant.now_s, plant.state
        plant.advance(step_seconds, step_seconds=step_seconds)
        recorded = not pause_s <= start_s < pause_s + PAUSE_SECONDS
        spans.append(_span(start_s, step_seconds, plant.state, recorded=recorded))
        if recorded:
            whole = step_seconds < STEP_SECONDS or start_s >= end_s - WHOLE_DAYS * 86_400
            _minutes(batch, site, before, plant.state, whole=whole)
            _energy(samples, site, counted, plant.state, step_seconds)
            counted = plant.state
    batch.flush()
    while plant.now_s < end_s:
        plant.advance(1)
        recorded = not 0 <= plant.now_s - (end_s - SHORT_PAUSE_AGO) < SHORT_PAUSE_SECONDS
        # A power that is measured at an instant was that of the second before it.
        spans.append(_span(plant.now_s - 1, 1, plant.state, recorded=recorded))
        if recorded:
            _sample(samples, site, plant.state)
            _energy(samples, site, counted, plant.state, 1)
            counted = plant.state
    samples.flush()
    return spans


def _span(start_s: int, seconds: int, state: PlantState, *, recorded: bool) -> Span:
    home_w, meter_w = state.home_power_cw / 100, state.meter_power_cw / 100
    pv_w, battery_w = float(sum(state.pv_powers_w)), float(state.battery_power_w)
    return Span(start_s, seconds, home_w, pv_w, meter_w, battery_w, float(state.loss_w), recorded)


def _submeter(server: Influxd, begin: datetime, end: datetime) -> None:
    """The energies of a heat pump that draws the same power all the time."""
    batch, tags = _Batch(server, "rollups"), f"device={SUBMETER},site={SITE.translate(_ESCAPES)}"
    day = begin.astimezone(ZONE).date()
    midnights = {round(datetime.combine(day + timedelta(days=n), datetime.min.time(), ZONE).timestamp())
                 for n in range(1, DAYS + 1)}  # fmt: skip
    for at_s in range(min(midnights), int(end.timestamp()), 900):
        of_day = [("energy_1d", SUBMETER_W * 24)] if at_s in midnights else []
        of_hour = [("energy_1h", SUBMETER_W)] if at_s % 3600 == 0 else []
        for name, watt_hours in (("energy_15m", SUBMETER_W / 4), *of_hour, *of_day):
            batch.add(f"{name},{tags} submeter_import={watt_hours / 1000} {at_s}000000000")
    batch.flush()


class _Batch:
    """Lines on their way to the server."""

    def __init__(self, server: Influxd, policy: str) -> None:
        self._server, self._policy, self._lines = server, policy, list[str]()

    def add(self, line: str) -> None:
        """Take a line, and write all of them when there are many."""
        self._lines.append(line)
        if len(self._lines) >= _LINES_A_WRITE:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._lines:
            self._server.write("\n".join(self._lines).encode(), "ess", self._policy)
            self._lines.clear()


def _pcs(state: PlantState) -> dict[str, float]:
    soc = (state.soc_raw_permille - 45) * 100 / 905
    return {
        "active_power": state.pcs_active_power_w,
        "pv_power": sum(state.pv_powers_w),
        "pv1_power": state.pv_powers_w[0],
        "pv2_power": state.pv_powers_w[1],
        "pv1_voltage": state.pv_voltages_v[0],
        "pv2_voltage": state.pv_voltages_v[1],
        "battery_power": state.battery_power_w,
        "battery_soc": soc,
        "battery_soc_max": state.soc_max_permille / 10,
        "battery_temperature_max": state.battery_temperature_dc / 10 + 0.4,
        "battery_temperature_min": state.battery_temperature_dc / 10 - 0.4,
        "frequency": state.frequency_chz / 100,
    }


def _meter(state: PlantState) -> dict[str, float]:
    volts = {f"voltage_l{phase}": value / 10 for phase, value in enumerate(state.phase_voltages_dv, start=1)}
    return {"active_power": state.meter_power_cw / 100, "frequency": state.frequency_chz / 100, **volts}


def _flow(state: PlantState) -> dict[str, float]:
    powers = (state.pcs_active_power_w, sum(state.pv_powers_w), state.battery_power_w)
    return balance(*powers, state.meter_power_cw / 100)


def _minutes(batch: _Batch, site: str, before: PlantState, after: PlantState, *, whole: bool) -> None:
    """Each minute of a step; counters go up evenly, by the steps in which the devices count."""
    pcs, meter, flow = _pcs(after), _meter(after), _flow(after)
    socs = {f"battery_soc_{of}": function(_pcs(before)["battery_soc"], pcs["battery_soc"])
            for of, function in (("min", min), ("maximum", max))}  # fmt: skip
    pcs_text = _text({**_with_extremes(pcs, ("active_power", "pv_power", "battery_power")), **socs})
    meter_text = _text(
        _with_extremes(meter, ("active_power", "frequency", "voltage_l1", "voltage_l2", "voltage_l3"))
    )
    flow_text = _text(flow)
    tag = site.translate(_ESCAPES)
    seconds = after.at_s - before.at_s
    for passed in range(60, seconds + 1, 60):
        part = passed / seconds
        charged, discharged, bought, sold = (
            start + (end - start) * part
            for start, end in (
                (before.charged_ws, after.charged_ws),
                (before.discharged_ws, after.discharged_ws),
                (before.imported_cws, after.imported_cws),
                (before.exported_cws, after.exported_cws),
            )
        )
        stamp = (before.at_s + passed - 60) * 10**9
        batch.add(f"flow_1m,device=pcs,site={tag} {flow_text} {stamp}")
        if not whole and passed < seconds:
            continue
        counted = (
            f"battery_energy_charged={charged // 360_000 / 10},"
            f"battery_energy_discharged={discharged // 360_000 / 10}"
        )
        metered = f"active_import={bought // 3_600_000 / 100},active_export={sold // 3_600_000 / 100}"
        batch.add(f"pcs_1m,device=pcs,site={tag} {pcs_text},{counted} {stamp}")
        batch.add(f"powermeter_1m,device=meter,site={tag} {meter_text},{metered} {stamp}")


def _sample(batch: _Batch, site: str, state: PlantState) -> None:
    pcs = {
        **_pcs(state),
        "battery_energy_charged": state.charged_dkwh / 10,
        "battery_energy_discharged": state.discharged_dkwh / 10,
    }
    meter = {
        **_meter(state),
        "active_import": state.imported_ckwh / 100,
        "active_export": state.exported_ckwh / 100,
    }
    tag, stamp = site.translate(_ESCAPES), (state.at_s - 1) * 10**9
    batch.add(f"pcs,device=pcs,site={tag} {_text(pcs)} {stamp}")
    batch.add(f"powermeter,device=meter,site={tag} {_text(meter)} {stamp}")
    flow = _flow(state)
    batch.add(f"flow,device=pcs,site={tag} {_text(flow)} {stamp}")


def _energy(batch: _Batch, site: str, counted: PlantState, state: PlantState, seconds: int) -> None:
    """The energies of a step, as the recorder derives them; a counter knows what a pause before it hid."""
    integrals = {name: watts * seconds / 3_600_000 for name, watts in _flow(state).items()}
    gained = {
        "battery_charge": (state.charged_ws - counted.charged_ws) / 3_600_000,
        "battery_discharge": (state.discharged_ws - counted.discharged_ws) / 3_600_000,
        "grid_import": (state.imported_cws - counted.imported_cws) / 360_000_000,
        "grid_export": (state.exported_cws - counted.exported_cws) / 360_000_000,
    }
    energies = integrals | gained | {f"{name}_integrated": integrals[name] for name in gained}
    stamp = (state.at_s - seconds) * 10**9
    batch.add(f"energy_10s,device=pcs,site={site.translate(_ESCAPES)} {_text(energies)} {stamp}")


def _with_extremes(values: dict[str, float], names: Sequence[str]) -> dict[str, float]:
    return {**values, **{f"{name}_{of}": values[name] for name in names for of in ("min", "max")}}


def _text(values: dict[str, float]) -> str:
    return ",".join(f"{name}={float(value)}" for name, value in values.items())


def _health(server: Influxd, begin_s: int, end_s: int) -> None:
    """The recorder's own figures: hours for the year, each ten seconds for the last days."""
    for site in (SITE, SECOND_SITE):
        hours, recent = _Batch(server, "rollups"), _Batch(server, "")
        recent_s = (end_s - HEALTH_SECONDS) // 3600 * 3600
        for at_s in range(begin_s // 3600 * 3600, end_s, 3600):
            _health_points(hours, "recorder_1h", site, at_s, at_s - begin_s)
        for at_s in range(recent_s, end_s, 10):
            _health_points(recent, "recorder", site, at_s, at_s - begin_s)
        recent.add(
            f"recorder,site={site.translate(_ESCAPES)},source=recorder started=1.0 {recent_s}000000000"
        )
        hours.flush()
        recent.flush()


def _health_points(batch: _Batch, measurement: str, site: str, at_s: int, age_s: int) -> None:
    tag, stamp = site.translate(_ESCAPES), at_s * 10**9
    counted = {**dict.fromkeys(MEANINGS, 0), "frames": age_s, "crc_errors": age_s // 7200}
    counted |= {"unanswered": age_s // 3600, "lost_samples": age_s // 1800, "resyncs": age_s // 9000}
    writer = {
        "queue_points": 12,
        "queue_bytes": 4096,
        "queue_age": 1,
        "late_seconds": 0,
        "written": 9 * age_s,
    }
    writer |= {"retries": age_s // 86_400, "backfills": age_s // 86_400, "dead_letters": 0}
    writer |= {"dropped": 0, "damaged": 0, "rejected": 0}
    for device in ("pcs", "meter"):
        batch.add(f"{measurement},device={device},site={tag} sample_age=1.5 {stamp}")
    for source in ("pcs", "powermeter"):
        batch.add(f"{measurement},site={tag},source={source} {_text({**counted, 'connections': 1})} {stamp}")
    batch.add(f"{measurement},site={tag},source=writer {_text(dict(writer))} {stamp}")
