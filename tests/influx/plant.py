"""Two small profiles and a database set up for them, for tests of continuous queries."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from recorder.influx.server import Connection, InfluxServer
from recorder.influx.setup import SetUp, SetUpSettings
from recorder.points.line_protocol import to_line
from recorder.points.point import Point
from recorder.profiles.model import DerivedField, Profile, Register
from tests.support.influxd import Influxd

PCS = Profile(
    name="test-pcs",
    measurement="pcs",
    device="pcs",
    unit=1,
    function=3,
    registers=(
        Register(0x10, "active_power", "s32", unit="W", low=-20_000, high=20_000, extremes=True),
        Register(0x12, "pv1_power", "s32"),
        Register(0x14, "energy", "u32", unit="kWh", kind="counter"),
        Register(0x16, "status", "u32", kind="state"),
    ),
    derived=(DerivedField("pv_power", ("pv1_power",), extremes=True),),
)
METER = Profile(
    name="test-meter",
    measurement="powermeter",
    device="powermeter",
    unit=1,
    function=3,
    registers=(
        Register(0x20, "active_import", "u64", unit="kWh", kind="counter"),
        Register(0x24, "active_export", "u64", unit="kWh", kind="counter"),
        Register(0x28, "active_power", "s32", unit="W", low=-20_000, high=20_000, extremes=True),
    ),
    role="grid_meter",
    quantities=(
        ("grid_power", "active_power"),
        ("grid_import", "active_import"),
        ("grid_export", "active_export"),
    ),
)
SETTINGS = SetUpSettings(profiles=(PCS, METER), timezone="Europe/Berlin")

NS = 1_000_000_000


def set_up(influxd: Influxd, **changes: Any) -> SetUp:
    """The set-up of database `ess` on a test's server; not yet applied."""
    connection = Connection(influxd.url, username=influxd.username, password=influxd.password)
    return SetUp(InfluxServer(connection), replace(SETTINGS, **changes))


def line(measurement: str, at: datetime | int, fields: Mapping[str, float], device: str = "") -> bytes:
    """A point of the test's site; `at` is an instant or Unix ns."""
    time_ns = at if isinstance(at, int) else int(at.timestamp()) * NS
    tags = (("device", device or measurement), ("site", "home"))
    return to_line(Point(measurement, tags, dict(fields), time_ns))


def quiet(done: int, total: int) -> None:
    """Progress that nobody watches."""
