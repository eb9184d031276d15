"""`ess-recorder replay`: captured streams through the whole pipeline into InfluxDB, or dead letters again.

Takes files of strace text, or of refused lines; ends with 0 only when every point of them is in the
database, and the averages and energies of their time have been computed.
"""

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.progress import Progress, TaskID

from recorder.commands.configuration import Configuration
from recorder.commands.decode import print_counts
from recorder.commands.decoding import Decoders, DecodingError, site_of
from recorder.commands.options import clock_offset_option, config_option, constant_offset, fail, load_or_exit
from recorder.commands.seams import Captures, InOrder, cut
from recorder.influx.dead_letters import DIRECTORY, lines_in
from recorder.influx.errors import InfluxError
from recorder.influx.sink import InfluxSink, open_server, set_up_of
from recorder.influx.stamps import stamp_ns
from recorder.logs import set_up_logging
from recorder.points.line_protocol import to_line
from recorder.points.point import Point
from recorder.points.site import Site
from recorder.sources.replay import UNREADABLE, is_compressed
from recorder.spool.memory import MemoryQueue
from recorder.store.clock_offsets import offsets_in

# While more points wait nothing is read, so that a file of any size takes little memory.
_FULL_POINTS: Final = 50_000
_POLL_SECONDS: Final = 0.02
_APPENDED_LINES: Final = 1000


@click.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--site", help="The site of the points. Default: the site of the settings.")
@click.option(
    "--start",
    type=click.DateTime(["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"]),
    help="When the first file begins, UTC, for text without stamps (-ttt). Default: so that it ends when the "
    "file was last written.",
)
@click.option(
    "--dead-letters",
    is_flag=True,
    help="Send again what InfluxDB refused: FILES are dead-letter files. Default: all of the data directory.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="How many processes decode, each a file, or a part of a large one, at a time. Default: one a core.",
)
@clock_offset_option
@click.option("--no-backfill", is_flag=True, help="Do not compute averages and energies of the files' time.")
@config_option
def replay(
    files: tuple[Path, ...],
    site: str | None,
    start: datetime | None,
    jobs: int | None,
    clock_offset: float | None,
    config: Path | None,
    *,
    dead_letters: bool,
    no_backfill: bool,
) -> None:
    """Write captured streams into InfluxDB.

    FILES are strace text of one site, plain or compressed (.gz, .xz, .bz2). The same file
    again changes nothing: its points have the same times. Text without stamps is given times by the
    controller's habit of polling once a second; a file that has stamps (-ttt) must have them throughout.
    Stamps of a clock that was wrong are corrected as the recorder corrected them live, as far as its data
    directory tells; a stamp that it does not tell of is kept. --clock-offset says it for all stamps.

    Several files are merged in the order of their times, as if one capture held them all. They are decoded
    side by side, and so are the parts of a large one that has stamps and is not compressed.

    With --dead-letters, what InfluxDB takes now leaves the dead letters, and what it refuses again stays.
    """
    if not files and not dead_letters:
        raise click.UsageError("name a file, or --dead-letters")
    configuration = load_or_exit(config)
    set_up_logging("warning")
    server = open_server(configuration.settings)
    try:
        set_up_of(server, configuration.settings, configuration.profiles).apply()
    except InfluxError as error:
        fail(f"{error}; nothing was written")
    finally:
        # The processes that decode are forks: they would keep its connection open.
        server.close()
    job = _Replay(configuration)
    try:
        if dead_letters:
            asyncio.run(job.run_dead_letters(files))
        else:
            begin = start.replace(tzinfo=UTC) if start else None
            name = site or configuration.settings.site
            captures = [cut(file, begin if number == 0 else None) for number, file in enumerate(files)]
            cores = jobs or len(os.sched_getaffinity(0))
            # A capture that is not cut keeps its process for as long as others are merged with it.
            whole = sum(len(parts) == 1 for parts in captures)
            processes = min(cores + whole, sum(map(len, captures)))
            offsets = (
                offsets_in(configuration.settings.data_dir, name)
                if clock_offset is None
                else constant_offset(clock_offset)
            )
            with Decoders(configuration, name, processes, offsets) as decoders:
                asyncio.run(job.run(Captures(captures, decoders.decode, cores), name))
    except DecodingError as error:
        fail(str(error))
    except UNREADABLE as error:
        fail(f"cannot read a file to its end: {error}")
    if not no_backfill:
        job.backfill()
    print_counts(job.counts)
    figures = job.figures
    click.echo(f"{figures['written']:>12,.0f} written: points that InfluxDB took", err=True)
    if figures["rejected"] or figures["dropped"]:
        fail(
            f"{figures['rejected']:.0f} points were rejected and {figures['dropped']:.0f} dropped; "
            f"what was rejected is in {configuration.settings.data_dir / DIRECTORY}, each with its reason"
        )
    if figures["queue_points"]:
        fail(
            f"{figures['queue_points']:.0f} points could not be written; run it again, repeats change nothing"
        )
    if job.untimed:
        fail(
            f"{job.untimed} points have no time and were not written: a part of the text was captured "
            "without strace -ttt; replay that part as a file of its own"
        )


class _Replay:
    """One run over some files."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._settings = configuration.settings
        self._first_ns: int | None = None
        self._last_ns = 0
        self.counts: Counter[str] = Counter()
        self.untimed = 0
        self.figures: dict[str, float] = {}

    async def run(self, captures: Captures, name: str) -> None:
        """Write every point of a site's captures; wait for an InfluxDB that goes away meanwhile.

        Raises:
            DecodingError: a file could not be decoded to its end.
        """
        site = site_of(self._configuration, name)
        self.counts = captures.counts
        order = InOrder()
        tasks: dict[Path, TaskID] = {}
        async with self._writing() as sink:
            with _progress() as progress:
                async for file, piece in captures.points():
                    if file not in tasks:
                        tasks[file] = progress.add_task(file.name, total=_text_bytes(file))
                    timed = [point for point in piece.points if point.time_ns is not None]
                    self.untimed += len(piece.points) - len(timed)
                    self._derive(sink, site, order.take(timed))
                    progress.advance(tasks[file], piece.text_bytes)
                    await _wait_for_queue(sink, _FULL_POINTS)
                self._derive(sink, site, order.rest())
                self._append_lines(sink, site.finish())
                sink.flush()
                await _wait_for_queue(sink, 0)

    def _derive(self, sink: InfluxSink, site: Site, points: Sequence[Point]) -> None:
        """Put points of devices, and what is derived from them, into the queue."""
        derived: list[Point] = []
        for point in points:
            derived += site.take(dict(point.tags)["device"], point, self.counts)
        self._append_lines(sink, derived)

    def _append_lines(self, sink: InfluxSink, points: Sequence[Point]) -> None:
        for point in points:
            self._note(point.time_ns)
        if points:
            sink.append_lines([to_line(point) for point in points])

    async def run_dead_letters(self, files: tuple[Path, ...]) -> None:
        """Send refused lines again; a file goes when each of its lines is written, or refused anew."""
        async with self._writing() as sink:
            for file in await asyncio.to_thread(sink.dead_letters.take, files):
                lines = lines_in(file)
                while some := list(islice(lines, _APPENDED_LINES)):
                    sink.append_lines(some)
                    for line in some:
                        self._note(stamp_ns(line))
                    await _wait_for_queue(sink, _FULL_POINTS)
                sink.flush()
                await _wait_for_queue(sink, 0)
                await asyncio.to_thread(file.unlink)

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[InfluxSink]:
        # The waiting of the reader is the bound: a queue with one of its own would drop points.
        queue = MemoryQueue(sys.maxsize, time.monotonic)
        # The files' averages are computed at the end, and the service's range of late points is not ours.
        sink = InfluxSink(self._settings, self._configuration.profiles, queue, repair=False)
        sink.start()
        try:
            yield sink
        finally:
            await sink.stop(deadline_seconds=10)
            self.figures = sink.figures()

    def _note(self, time_ns: int | None) -> None:
        """Let the span that is computed at the end hold a time."""
        if time_ns is not None:
            self._first_ns = time_ns if self._first_ns is None else min(self._first_ns, time_ns)
            self._last_ns = max(self._last_ns, time_ns)

    def backfill(self) -> None:
        """Compute averages, rollups and energies of the time that the files span."""
        if self._first_ns is None or not self._settings.queries.manage:
            return
        server = open_server(self._settings)
        set_up = set_up_of(server, self._settings, self._configuration.profiles)
        begin = datetime.fromtimestamp(self._first_ns / 1e9, UTC)
        end = datetime.fromtimestamp(self._last_ns / 1e9 + 1, UTC)
        with _progress() as progress:
            task = progress.add_task("averages and energies")
            try:
                set_up.backfill(
                    begin,
                    end,
                    datetime.now(UTC),
                    lambda done, total: progress.update(task, completed=done, total=total),
                )
            except InfluxError as error:
                fail(f"points are written, averages are not: {error}; run: ess-recorder queries backfill")
            finally:
                server.close()


async def _wait_for_queue(sink: InfluxSink, most_points: int) -> None:
    while sink.figures()["queue_points"] > most_points:  # noqa: ASYNC110  # a queue has a depth, not an event
        await asyncio.sleep(_POLL_SECONDS)


def _progress() -> Progress:
    return Progress(console=Console(stderr=True), transient=True)


def _text_bytes(file: Path) -> int | None:
    """Give how much text a capture holds; None where only decompressing it would tell."""
    return None if is_compressed(file) else file.stat().st_size
