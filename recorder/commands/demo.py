"""`ess-recorder demo`: a plant, the recorder and its live page, without hardware.

Takes nothing but options, prints the page's address, and shows the flows in the terminal as well. Where
`influxd` is installed, or a URL is given, points and ten-sample averages go through a real InfluxDB.
Leaves nothing behind, and never opens a browser.

The plant's time is its own: a day of it passes in ten minutes, always in June. Samples have real stamps
all the same, and a week of the plant's past, at the pace of life, is in the history when it begins.
"""

import asyncio
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, date, datetime
from math import inf
from pathlib import Path
from typing import Final, Self

import click
from rich.console import Console
from rich.live import Live

from recorder.app import Recorder
from recorder.commands.configuration import Configuration, load_configuration
from recorder.commands.live_view import LiveView
from recorder.commands.options import fail
from recorder.commands.private_influxd import installed_influxd, private_influxd
from recorder.influx.errors import InfluxError
from recorder.influx.server import InfluxServer
from recorder.influx.sink import open_server
from recorder.logs import set_up_logging
from recorder.points.point import Point
from recorder.points.site import Site
from recorder.profiles.catalogue import quantity_fields
from recorder.simulator.drive import Pace, Progress, Receiver, simulate
from recorder.simulator.faults import FaultRates, parse_faults
from recorder.simulator.plant import Plant, PlantState
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import SiteStream
from recorder.simulator.time_lapse import TimeLapsePlant, past_of
from recorder.store.buckets import STEPS
from recorder.store.store import Store, StoreLimits

_REFRESH_SECONDS: Final = 0.5
_SITE: Final = "demo"
_DAY_SECONDS: Final = 86400
_DAY_MINUTES: Final = 1440
_PAST_DAYS: Final = 7
# What a demo shares with the service: the rest is its own.
_PASSED_ON: Final = ("ESS_TIMEZONE", "ESS_INFLUXDB_USERNAME", "ESS_INFLUXDB_PASSWORD", "ESS_INFLUXDB_TOKEN")
# Time lapse begins with the sun: half past six of a summer's day.
_MORNING_SECONDS: Final = int(4.5 * 3600)


@click.command()
@click.option(
    "--seconds", type=click.IntRange(1), help="Send for so many seconds, then end. Default: Ctrl-C ends it."
)
@click.option(
    "--day-minutes",
    type=click.FloatRange(1, _DAY_MINUTES),
    default=10.0,
    show_default=True,
    help=f"How long a day of the plant takes; {_DAY_MINUTES} is real time.",
)
@click.option(
    "--faults",
    default="none",
    show_default=True,
    help="none, some, all, or a list: crc=0.01,unanswered=0.005",
)
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Another seed is another day in another home."
)
@click.option(
    "--influxdb-url", help="Record into this InfluxDB, in its database ess_demo. Default: a private one."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Of the live page. Another free one is taken where it is in use.",
)
def demo(
    seconds: int | None, day_minutes: float, faults: str, seed: int, influxdb_url: str | None, port: int
) -> None:
    """Show a simulated plant being recorded, live, on a page and in the terminal.

    A plant with sun, clouds, a household and a battery sends its Modbus traffic as a controller would; the
    recorder decodes it and shows the energy flows. Where influxd is installed, points go through it, and
    the averages of the last ten samples come back from its continuous queries.
    """
    set_up_logging("error")
    try:
        rates = parse_faults(faults)
    except ValueError as error:
        fail(str(error), exit_code=2)
    asyncio.run(_Demo(seconds, _DAY_MINUTES / day_minutes, rates, seed).run(influxdb_url, port))


class _Demo:
    """One run."""

    def __init__(self, seconds: int | None, speed: float, faults: FaultRates, seed: int) -> None:
        self._seconds = seconds
        self._speed = speed
        self._faults = faults
        self._seed = seed
        self._view = LiveView()
        self._influxdb = (
            "no influxd here: the recorder keeps the points itself (apt install influxdb for the averages)"
        )
        self._averages: InfluxServer | None = None

    async def run(self, influxdb_url: str | None, port: int) -> None:
        """Run until the time is over or somebody stops it."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        async with AsyncExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ess-demo-")))
            executable = installed_influxd()
            if influxdb_url is None and executable is not None:
                influxdb_url = await stack.enter_async_context(private_influxd(executable, directory))
            configuration = _configuration(directory, influxdb_url, _free_port(port))
            if influxdb_url is not None:
                self._averages = open_server(configuration.settings)
                self._influxdb = (
                    f"InfluxDB: {influxdb_url}, database {configuration.settings.influxdb.database}"
                )
            self._view.soc = quantity_fields(configuration.profiles).get("soc")
            before = await asyncio.to_thread(_live_through_the_past, configuration, self._seed)
            recorder = Recorder(configuration.settings, configuration.profiles, self._observe)
            await recorder.start()
            progress = Progress()
            click.echo(f"The live page: http://127.0.0.1:{recorder.ports['http']}/")
            if self._seconds is not None:
                loop.call_later(self._seconds, stopping.set)
            plant = asyncio.create_task(self._stream(recorder.ports["pcs"], before, progress))
            try:
                await self._show(recorder, stopping)
            finally:
                plant.cancel()
                with suppress(asyncio.CancelledError):
                    await plant
                await recorder.stop()
            self._sum_up(recorder, progress)

    def _observe(self, points: Sequence[Point]) -> None:
        for point in points:
            self._view.observe(point)

    async def _stream(self, port: int, before: PlantState, progress: Progress) -> None:
        begin_s = before.at_s - _seconds_since_june(before.at_s)
        if self._speed > 1:
            begin_s += _DAY_SECONDS - begin_s % _DAY_SECONDS + _MORNING_SECONDS
        plant = TimeLapsePlant(self._seed, begin_s, self._speed, before)
        # Without stamps: the plant's day is not today, and a point's time is that of its receipt.
        site = SiteStream(plant, DIALECTS["capture"], self._faults, self._seed)
        receiver = Receiver("127.0.0.1", (port,))
        await simulate(receiver, [site], Pace(), progress, lambda _site, _second, _sent: None)

    async def _show(self, recorder: Recorder, stopping: asyncio.Event) -> None:
        console = Console()
        with (
            Live(console=console, auto_refresh=False, screen=False)
            if console.is_terminal
            else _Lines() as live
        ):
            while not stopping.is_set():
                await asyncio.to_thread(self._fetch_averages)
                if isinstance(live, Live):
                    live.update(self._view.picture(self._notes(recorder)), refresh=True)
                else:
                    live.show(self._view)
                try:
                    await asyncio.wait_for(stopping.wait(), _REFRESH_SECONDS)
                except TimeoutError:
                    continue

    def _notes(self, recorder: Recorder) -> list[str]:
        figures = recorder.influx.figures()
        return [
            f"live page: http://127.0.0.1:{recorder.ports['http']}/",
            f"simulated plant ─▶ strace text ─▶ TCP {recorder.ports['pcs']} ─▶ recorder",
            f"{self._influxdb}: {figures['written']:,.0f} points written"
            if self._averages
            else self._influxdb,
            "Ctrl-C ends the demo",
        ]

    def _fetch_averages(self) -> None:
        if self._averages is None:
            return
        try:
            pcs = self._averages.query(
                'SELECT last("pv_power") AS "pv_power", "battery_power" FROM "avg10"."pcs_avg10"'
            )
            meter = self._averages.query(
                'SELECT last("active_power") AS "meter_power" FROM "avg10"."powermeter_avg10"'
            )
        except InfluxError:
            return
        self._view.average_of_ten = {
            name: float(value)
            for row in (*pcs, *meter)
            for name, value in row.items()
            if name in {"pv_power", "battery_power", "meter_power"} and value is not None
        }

    def _sum_up(self, recorder: Recorder, progress: Progress) -> None:
        figures = recorder.influx.figures()
        stored = f"{figures['written']:,.0f} points written to InfluxDB" if self._averages else "no InfluxDB"
        click.echo(
            f"{progress.seconds:,} s of its buses, {progress.bytes_sent / 1e3:,.0f} kB of strace text, "
            f"{self._view.samples:,} samples of the energy flow, {stored}"
        )
        if not self._view.samples:
            fail("no sample came through")


class _Lines:
    """The picture where no terminal is: a line for each new sample."""

    def __init__(self) -> None:
        self._shown = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()

    def show(self, view: LiveView) -> None:
        """Print the newest sample, once."""
        if view.samples == self._shown:
            return
        self._shown = view.samples
        averages = ", ".join(f"{name} {value:.0f} W" for name, value in view.average_of_ten.items())
        click.echo(
            time.strftime("%H:%M:%S  ") + view.line() + (f" | mean of ten: {averages}" if averages else "")
        )
        sys.stdout.flush()


def _live_through_the_past(configuration: Configuration, seed: int) -> PlantState:
    """Leave a week of the plant in the history, as an earlier run would have; give its last state."""
    settings, profiles = configuration.settings, configuration.profiles
    now_s = int(time.time())
    shift_seconds = _seconds_since_june(now_s)
    plant = Plant(seed, now_s - shift_seconds - _PAST_DAYS * _DAY_SECONDS)
    state = plant.state._replace(at_s=now_s)
    limits = StoreLimits({step.name: inf for step in STEPS}, settings.store.max_bytes)
    store = Store(settings.data_dir, limits, settings.timezone, profiles)
    site = Site(settings.site, profiles)
    for number, (points, reached) in enumerate(past_of(plant, site, profiles, now_s, shift_seconds), 1):
        store.observe(points)
        state = reached
        # The store holds a few days in memory at most.
        if number % _DAY_MINUTES == 0:
            store.flush()
    store.observe(site.finish())
    store.close()
    return state


def _seconds_since_june(now_s: int) -> int:
    """Give how far now is from the same time of day on the longest day of its year, s."""
    today = datetime.fromtimestamp(now_s, UTC).date()
    return (today - date(today.year, 6, 21)).days * _DAY_SECONDS


def _free_port(wanted: int) -> int:
    """Give `wanted`, or 0 for any free port where it is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return 0
    return wanted


def _configuration(directory: Path, influxdb_url: str | None, http_port: int) -> Configuration:
    """Give the shipped configuration on ports of this machine only."""
    environment = {
        **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        "ESS_SITE": _SITE,
        "ESS_BIND": "127.0.0.1",
        "ESS_PCS_PORT": "0",
        "ESS_POWERMETER_PORT": "0",
        "ESS_HTTP_BIND": "127.0.0.1",
        "ESS_HTTP_PORT": str(http_port),
        "ESS_DATA_DIR": str(directory),
        "ESS_INFLUXDB_DATABASE": "ess_demo",
        "ESS_INFLUXDB_URL": influxdb_url or "",
    }
    return load_configuration(None, environment)
