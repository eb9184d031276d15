"""A small plant in InfluxDB, for the tests of what Grafana asks.

Takes a running server, fills it with half an hour of one site and lets the project's own continuous
queries make averages, minutes and energies of it. Never uses the recorder to write.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from recorder.influx.continuous_queries import PolicyNames, statements
from recorder.points.flow import balance
from recorder.profiles.parse import parse_profile
from tests.support.influxd import Influxd

SITE = "my home"
SPACING_SECONDS = 2
MINUTES = 40
GAP_MINUTES = range(20, 26)
"""The minutes before the end in which nothing was recorded."""
DEAD_DEVICE_MINUTES = 10
"""How long the second meter, `heat_pump`, has been silent."""

# The roof gives 5000 W: 700 W charge the battery, 4000 W become AC, and 3200 W of those are sold.
PCS_W, PV_W, BATTERY_W, METER_W = 4000.0, 5000.0, -700.0, -3200.0
STATE_OF_CHARGE = 64.0
PROFILES = Path(__file__).parents[2] / "config" / "profiles"


def fill(server: Influxd, now: datetime) -> None:
    """Create the database, write samples that end at `now`, and derive all the rest from them."""
    server.query('CREATE DATABASE "ess"')
    for policy in ("avg10", "rollups"):
        server.query(f'CREATE RETENTION POLICY "{policy}" ON "ess" DURATION INF REPLICATION 1')
    server.write("\n".join(_lines(now)).encode(), "ess")
    hour = now.replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    profiles = [parse_profile(path.read_text(), path.name) for path in sorted(PROFILES.glob("*.yaml"))]
    for query in statements("ess", profiles, PolicyNames(), "UTC"):
        if query.bucket < timedelta(days=1):
            start, end = hour - timedelta(hours=1), hour + timedelta(hours=1)
        else:
            start, end = day - timedelta(days=1), day + timedelta(days=1)
        server.query(query.backfill_statement(start, end), "ess")


def _lines(now: datetime) -> list[str]:
    lines = []
    flow = ",".join(f"{name}={value}" for name, value in balance(PCS_W, PV_W, BATTERY_W, METER_W).items())
    for age_seconds in range(0, MINUTES * 60, SPACING_SECONDS):
        if age_seconds // 60 in GAP_MINUTES:
            continue
        stamp = round((now - timedelta(seconds=age_seconds)).timestamp()) * 10**9
        # Counters in kWh, so that the energies of quarter hours are what the powers add up to.
        sold, charged = (10_000 - age_seconds * power / 3_600_000 for power in (-METER_W, -BATTERY_W))
        site = SITE.replace(" ", "\\ ")
        pcs = f"pv_power={PV_W},active_power={PCS_W},battery_power={BATTERY_W},battery_soc={STATE_OF_CHARGE}"
        counted = f"battery_energy_charged={charged},battery_energy_discharged=5.0"
        meter = f"active_power={METER_W},active_import=7.0,active_export={sold}"
        lines += [
            f"pcs,device=pcs,site={site} {pcs},{counted} {stamp}",
            f"powermeter,device=meter,site={site} {meter} {stamp}",
            f"flow,device=pcs,site={site} {flow} {stamp}",
        ]
        lines += [
            f"recorder,device={device},site={site} sample_age={age} {stamp}"
            for device, age in (("pcs", 1.0), ("meter", 2.0), ("heat_pump", DEAD_DEVICE_MINUTES * 60.0))
        ]
        lines.append(f"recorder,site={site},source=pcs frames={1e6 - age_seconds} {stamp}")
        if age_seconds >= DEAD_DEVICE_MINUTES * 60:
            lines.append(f"powermeter,device=heat_pump,site={site} active_power=300.0 {stamp}")
    return lines


def current_time() -> datetime:
    """Now, to the second: the alert rule asks by the server's own clock."""
    return datetime.now(UTC).replace(microsecond=0)
