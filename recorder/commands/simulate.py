"""`ess-recorder simulate`: a plant that streams to a receiver as a controller would.

Takes what the user typed, streams or writes the text of simulated sites, and on request the truth that
a receiver must find in it. Needs no database and no hardware.
"""

import asyncio
import json
import sys
import time
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import click
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar

from recorder.commands.options import fail
from recorder.simulator.drive import OnSecond, Pace, Progress, Receiver, make_sites
from recorder.simulator.drive import simulate as drive
from recorder.simulator.faults import FAULTS, FaultRates, parse_faults
from recorder.simulator.homes import HOMES
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import SiteStream, StreamSecond

_SHOW_EVERY_SECONDS = 0.25


def _faults(_context: click.Context, _option: click.Parameter, value: str) -> FaultRates:
    try:
        return parse_faults(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the receiver listens.")
@click.option(
    "--pcs-port",
    type=click.IntRange(1, 65535),
    default=5001,
    show_default=True,
    help="TCP port of inverters.",
)
@click.option(
    "--powermeter-port",
    type=click.IntRange(1, 65535),
    default=5002,
    show_default=True,
    help="TCP port of meters.",
)
@click.option("--sites", type=click.IntRange(1), default=1, show_default=True, help="How many homes.")
@click.option(
    "--speed",
    type=click.FloatRange(0),
    help="Simulated seconds to a real second; 0 is flat out. Default: 1, and 0 with --output.",
)
@click.option("--seconds", type=click.IntRange(1), help="Simulated seconds of each home. Default: no end.")
@click.option(
    "--start",
    type=click.DateTime(["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"]),
    help="When the simulation begins, UTC. Default: now.",
)
@click.option(
    "--faults",
    default="none",
    show_default=True,
    callback=_faults,
    metavar="none|some|all|NAME=RATE,...",
    help=f"What goes wrong, rates from 0 to 1. Names: {', '.join(FAULTS)}.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same homes.")
@click.option(
    "--home",
    type=click.Choice(list(HOMES)),
    default="ess",
    show_default=True,
    help="; ".join(f"{name}: {home.description}" for name, home in HOMES.items()) + ".",
)
@click.option(
    "--dialect",
    type=click.Choice(list(DIALECTS)),
    default="capture",
    show_default=True,
    help="How strace writes.",
)
@click.option(
    "--both/--separate",
    default=False,
    show_default=True,
    help="Both processes in one stream, to --pcs-port; or two.",
)
@click.option(
    "--output", metavar="FILE|-", help="Write the text there instead of streaming it; implies --both."
)
@click.option(
    "--truth",
    type=click.File("w"),
    metavar="FILE",
    help="Write the samples to be found, one a line, in JSON.",
)
def simulate(
    host: str,
    pcs_port: int,
    powermeter_port: int,
    sites: int,
    speed: float | None,
    seconds: int | None,
    start: datetime | None,
    faults: FaultRates,
    seed: int,
    home: str,
    dialect: str,
    output: str | None,
    truth: IO[str] | None,
    *,
    both: bool,
) -> None:
    """Stream simulated homes to a receiver, as their controllers would.

    \b
    Examples:
      ess-recorder simulate --sites 10 --speed 60
      ess-recorder simulate --seconds 600 --dialect ttt --output day.strace
    """  # noqa: D301
    if output is not None and (sites > 1 or seconds is None):
        raise click.UsageError("--output takes the text of one home and an end: use --sites 1 and --seconds")
    start_s = int(start.replace(tzinfo=UTC).timestamp()) if start else int(time.time())
    both = both or output is not None
    streams = make_sites(
        range(seed, seed + sites), start_s, DIALECTS[dialect], faults, both=both, home=HOMES[home]
    )
    record = _truth_writer(truth)
    pace = Pace(speed if speed is not None else (0 if output else 1), seconds)
    if output is not None:
        _write(output, streams[0], pace, record)
        return
    receiver = Receiver(host, (pcs_port,) if both else (pcs_port, powermeter_port))
    progress = Progress()
    with suppress(KeyboardInterrupt):
        asyncio.run(_stream(receiver, streams, pace, progress, record))
    click.echo(
        f"{progress.seconds} seconds simulated, {progress.bytes_sent / 1e6:.1f} MB sent, "
        f"{progress.seconds_lost} seconds lost",
        err=True,
    )
    if progress.seconds_lost or not progress.bytes_sent:
        fail(progress.problem or "not everything was sent")


def _truth_writer(truth: IO[str] | None) -> OnSecond:
    def write(site: int, second: StreamSecond, sent: bool) -> None:
        if truth is None:
            return
        for sample in second.truth:
            truth.write(
                json.dumps(
                    {
                        "time": sample.at_ns,
                        "site": site,
                        "measurement": sample.device,
                        "fields": sample.fields,
                        "certain": sample.certain and sent,
                    }
                )
                + "\n"
            )

    return write


def _write(output: str, stream: SiteStream, pace: Pace, record: OnSecond) -> None:
    """Write one home's text to a file or to standard output, at its pace."""
    began = time.monotonic()
    try:
        with ExitStack() as stack:
            target = sys.stdout.buffer if output == "-" else stack.enter_context(Path(output).open("wb"))
            for passed in range(pace.seconds or 0):
                if pace.speed:
                    time.sleep(max(0.0, began + passed / pace.speed - time.monotonic()))
                second = next(stream)
                target.write(second.texts[0])
                if pace.speed:
                    target.flush()
                record(0, second, True)
            target.flush()
    except BrokenPipeError:
        sys.stderr.close()
    except OSError as error:
        fail(f"cannot write {output}: {error.strerror}")


async def _stream(
    receiver: Receiver, streams: list[SiteStream], pace: Pace, progress: Progress, record: OnSecond
) -> None:
    """Stream with a bar: seconds of all homes, what was sent and lost, and what is wrong."""
    total = pace.seconds * len(streams) if pace.seconds else None
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with ProgressBar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(f"{len(streams)} homes", total=total, state="")
        driving = asyncio.create_task(drive(receiver, streams, pace, progress, record))
        try:
            while not driving.done():
                await asyncio.wait({driving}, timeout=_SHOW_EVERY_SECONDS)
                state = (
                    progress.problem
                    or f"{progress.bytes_sent / 1e6:.1f} MB, {progress.connections} connections"
                )
                bar.update(task, completed=progress.seconds, state=state)
            await driving
        finally:
            driving.cancel()
