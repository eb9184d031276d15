"""Captured text decoded side by side, by processes of their own.

Takes parts of files, returns the points of devices in pieces, each part's in its order. Holds one piece a
process, and no more than a pipe takes: a process waits until its pieces are taken. Never writes anywhere,
never joins one part to another, and derives nothing: flows and energies need the points of all files of a
site.
"""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

from recorder.commands.configuration import Configuration
from recorder.pipeline import Pipeline, PipelineState, Shared
from recorder.points.offsets import Offsets
from recorder.points.point import Point
from recorder.points.site import Site
from recorder.profiles.catalogue import Catalogue
from recorder.roles import devices_of
from recorder.sources.replay import UNREADABLE, chunks, open_capture, pace_of


@dataclass(frozen=True, slots=True)
class Part:
    """The text of a capture from byte `start` to `end`, which is None for the end of the capture.

    `begin` is when the capture begins, for text without stamps; None lets it end at the file's last change.
    """

    file: Path
    begin: datetime | None = None
    start: int = 0
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Footing:
    """What a process begins a part with, in place of all the text before it.

    `state` is where a pipeline stood before the last `warm_up_bytes` of that text, or of all of it as far
    as anyone knows; None is the beginning of a capture.
    """

    state: PipelineState | None = None
    warm_up_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """What a piece of a part holds: its points of devices, and how many bytes of text they were."""

    points: list[Point]
    text_bytes: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """A part is done: where its pipeline stood before and behind it, and what was counted in between."""

    before: PipelineState
    behind: PipelineState
    counts: Counter[str]


def site_of(configuration: Configuration, name: str) -> Site:
    """Return a site with its devices; `name` is the `site` tag of its points."""
    settings = configuration.settings
    devices = devices_of(settings, configuration.profiles, name)
    return Site(name, devices, settings.flow.meter_max_age_seconds)


def pipeline_of(
    configuration: Configuration, site: Site, offsets: Offsets | None = None, *, derive: bool = True
) -> Pipeline:
    """Return the pipeline of one captured stream, as the settings want it.

    Args:
        configuration: the settings and the devices.
        site: that of all points.
        offsets: what is added to the stamps; None keeps them.
        derive: whether it returns flows and energies too.
    """
    settings = configuration.settings
    return Pipeline(
        Catalogue(configuration.profiles),
        site,
        derive=derive,
        clock_tolerance_seconds=settings.clock.tolerance_seconds,
        shared=Shared(offsets=offsets),
    )


class DecodingError(Exception):
    """A file could not be decoded to its end; the message says why."""


class Decoders:
    """Processes that decode parts; they begin at once, and end with the `with` block.

    To be opened before threads and an event loop are there: the processes are forks.

    Args:
        configuration: the settings and the devices.
        site: the `site` tag of all points.
        jobs: how many processes.
        offsets: what is added to the stamps; None keeps them.
    """

    def __init__(
        self, configuration: Configuration, site: str, jobs: int, offsets: Offsets | None = None
    ) -> None:
        context = get_context("fork")
        self._waiting: list[Connection] = []
        self._idle = asyncio.Semaphore(jobs)
        self._processes = []
        for _ in range(jobs):
            ours, theirs = context.Pipe()
            self._waiting.append(ours)
            one_site = site_of(configuration, site)
            new_pipeline = partial(pipeline_of, configuration, one_site, offsets, derive=False)
            work = (theirs, tuple(self._waiting), new_pipeline)
            process = context.Process(target=_work, args=work, daemon=True)
            process.start()
            # Only so does its end show as the end of the pipe.
            theirs.close()
            self._processes.append(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.terminate()
            process.join()

    async def decode(self, part: Part, footing: Footing) -> AsyncIterator[Piece | Decoded]:
        """Let a process decode a part, once one has nothing to do.

        Gives the pieces of the part, and `Decoded` as the last of all.

        Raises:
            DecodingError: the file cannot be read, or the process was ended.
        """
        await self._idle.acquire()
        connection = self._waiting.pop()
        try:
            connection.send((part, footing))
            while True:
                match await _received(connection):
                    case Piece() as piece:
                        yield piece
                    case Decoded() as decoded:
                        self._waiting.append(connection)
                        self._idle.release()
                        yield decoded
                        return
                    case reason:
                        raise DecodingError(f"cannot read {part.file} to its end: {reason}")
        except (EOFError, OSError):
            raise DecodingError(
                f"a process that decoded {part.file} was ended from outside, perhaps for lack of memory; "
                "run it again, with a smaller --jobs: repeats change nothing"
            ) from None


async def _received(connection: Connection) -> object:
    """Wait for a message without keeping a thread."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(connection.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection.fileno())
    message: object = connection.recv()
    return message


def _work(
    connection: Connection, inherited: Sequence[Connection], new_pipeline: Callable[[], Pipeline]
) -> None:
    """Decode what is ordered, until nobody is there to order."""
    # Only so does the end of the process that orders show as the end of the pipe.
    for end in inherited:
        end.close()
    # Ctrl-C is for the process that writes; it ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, OSError):
        while True:
            part, footing = connection.recv()
            try:
                pipeline = new_pipeline()
                for message in decode_part(part, footing, pipeline):
                    connection.send(message)
            except UNREADABLE as error:
                connection.send(str(error))


def decode_part(part: Part, footing: Footing, pipeline: Pipeline) -> Iterator[Piece | Decoded]:
    """Decode a part with a fresh pipeline; give its pieces, and `Decoded` as the last of all.

    Raises:
        OSError, EOFError, lzma.LZMAError, zlib.error: the file cannot be read.
    """
    is_cut = part.start > 0 or part.end is not None
    pace = None if is_cut else pace_of(part.file, part.begin)
    if footing.state is not None:
        pipeline.resume(footing.state)
    with open_capture(part.file) as stream:
        if part.start > 0:
            stream.seek(part.start - footing.warm_up_bytes)
        for chunk in chunks(stream, footing.warm_up_bytes):
            pipeline.feed(chunk, None)
        pipeline.counts.clear()
        before = pipeline.state
        for chunk in chunks(stream, None if part.end is None else part.end - part.start):
            points = pipeline.feed_paced(chunk, pace.at_ns) if pace else pipeline.feed(chunk, None)
            yield Piece(points, len(chunk))
    if part.end is None:
        yield Piece(pipeline.finish(), 0)
    yield Decoded(before, pipeline.state, pipeline.counts)
