"""`ess-recorder demo`: a plant, the recorder and a live picture, without hardware.

Takes nothing but options. Where `influxd` is installed, or a URL is given, points and ten-sample
averages go through a real InfluxDB as well. Leaves nothing behind.
"""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
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
from recorder.simulator.drive import Pace, Progress, Receiver, make_sites, simulate
from recorder.simulator.faults import FaultRates, parse_faults
from recorder.simulator.strace_text import DIALECTS

_REFRESH_SECONDS: Final = 0.5
# The bucket of the ten-sample averages holds two samples from ten samples a second on.
_FASTEST: Final = 5.0
_START_OF_PLANT: Final = datetime(2026, 6, 21, 6, 10, tzinfo=UTC)


@click.command()
@click.option(
    "--seconds", type=click.IntRange(1), help="End after so many real seconds. Default: Ctrl-C ends it."
)
@click.option(
    "--speed",
    type=click.FloatRange(0.1, _FASTEST),
    default=1.0,
    show_default=True,
    help="Simulated seconds a real second.",
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
def demo(seconds: int | None, speed: float, faults: str, seed: int, influxdb_url: str | None) -> None:
    """Show a simulated plant being recorded, live.

    A plant with sun, clouds, a household and a battery sends its Modbus traffic as a controller would; the
    recorder decodes it and shows the energy flows. Where influxd is installed, points go through it, and
    the averages of the last ten samples come back from its continuous queries.
    """
    set_up_logging("error")
    try:
        rates = parse_faults(faults)
    except ValueError as error:
        fail(str(error), exit_code=2)
    asyncio.run(_Demo(seconds, speed, rates, seed).run(influxdb_url))


class _Demo:
    """One run."""

    def __init__(self, seconds: int | None, speed: float, faults: FaultRates, seed: int) -> None:
        self._seconds = seconds
        self._speed = speed
        self._faults = faults
        self._seed = seed
        self._view = LiveView()
        self._influxdb = "no influxd here: points are decoded and shown, not stored (apt install influxdb)"
        self._averages: InfluxServer | None = None

    async def run(self, influxdb_url: str | None) -> None:
        """Run until the time is over or somebody stops it."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        if self._seconds is not None:
            loop.call_later(self._seconds, stopping.set)
        async with AsyncExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ess-demo-")))
            executable = installed_influxd()
            if influxdb_url is None and executable is not None:
                influxdb_url = await stack.enter_async_context(private_influxd(executable, directory))
            configuration = _configuration(directory, influxdb_url)
            if influxdb_url is not None:
                self._averages = open_server(configuration.settings)
                self._influxdb = (
                    f"InfluxDB: {influxdb_url}, database {configuration.settings.influxdb.database}"
                )
            recorder = Recorder(configuration.settings, configuration.profiles, self._observe)
            await recorder.start()
            progress = Progress()
            plant = asyncio.create_task(self._stream(recorder.ports["pcs"], progress))
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

    async def _stream(self, port: int, progress: Progress) -> None:
        start_s = int(_START_OF_PLANT.timestamp())
        # Without stamps: the plant's day is not today, and a point's time is that of its receipt.
        sites = make_sites([self._seed], start_s, DIALECTS["capture"], self._faults, both=True)
        receiver = Receiver("127.0.0.1", (port,))
        await simulate(receiver, sites, Pace(self._speed), progress, lambda _site, _second, _sent: None)

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
        stored = (
            f"{figures['written']:,.0f} points written to InfluxDB" if self._averages else "nothing stored"
        )
        click.echo(
            f"{progress.seconds:,} s of the plant, {progress.bytes_sent / 1e3:,.0f} kB of strace text, "
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


def _configuration(directory: Path, influxdb_url: str | None) -> Configuration:
    """Give the shipped configuration on free ports of this machine only."""
    environment = {
        **{
            name: os.environ[name]
            for name in ("ESS_INFLUXDB_USERNAME", "ESS_INFLUXDB_PASSWORD")
            if name in os.environ
        },
        "ESS_SITE": "demo",
        "ESS_BIND": "127.0.0.1",
        "ESS_PCS_PORT": "0",
        "ESS_POWERMETER_PORT": "0",
        "ESS_HTTP_PORT": "0",
        "ESS_DATA_DIR": str(directory),
        "ESS_INFLUXDB_DATABASE": "ess_demo",
        "ESS_INFLUXDB_URL": influxdb_url or "http://127.0.0.1:9",
    }
    return load_configuration(None, environment)
