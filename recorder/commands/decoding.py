"""Captured files decoded side by side, by processes of their own.

Takes files, gives the lines of their points in pieces, each file's in its order, with the times that
they span. Holds one piece a process, and no more than a pipe takes: a process waits until its pieces are
taken. Never writes anywhere.
"""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

from recorder.commands.configuration import Configuration
from recorder.pipeline import Pipeline
from recorder.points.flow import FlowBalance
from recorder.points.line_protocol import to_line
from recorder.points.point import Point
from recorder.profiles.catalogue import Catalogue
from recorder.sources.replay import UNREADABLE, chunks, open_capture, pace_of


@dataclass(frozen=True, slots=True)
class Piece:
    """What a piece of a file holds: the lines of its points, and how many bytes of text they were.

    `untimed` counts points that have no line, because their text has no stamps and that of others has.
    `first_ns` and `last_ns` are the earliest and the latest time of a point, None where there is none.
    """

    lines: list[bytes]
    text_bytes: int
    untimed: int
    first_ns: int | None
    last_ns: int | None


def pipeline_of(configuration: Configuration, site: str) -> Pipeline:
    """Give the pipeline of one captured stream, as the settings want it.

    Args:
        configuration: the settings and the devices.
        site: the `site` tag of all points.
    """
    settings = configuration.settings
    return Pipeline(
        Catalogue(configuration.profiles),
        site,
        FlowBalance(settings.flow.meter_max_age_seconds),
        clock_tolerance_seconds=settings.clock.tolerance_seconds,
    )


class DecodingError(Exception):
    """A file could not be decoded to its end; the message says why."""


@dataclass(frozen=True, slots=True)
class _Order:
    file: Path
    begin: datetime | None


class Decoders:
    """Processes that decode files; they begin at once, and end with the `with` block.

    To be opened before threads and an event loop are there: the processes are forks.

    Args:
        configuration: the settings and the devices.
        site: the `site` tag of all points.
        jobs: how many processes.
    """

    def __init__(self, configuration: Configuration, site: str, jobs: int) -> None:
        self.jobs = jobs
        context = get_context("fork")
        self._waiting: list[Connection] = []
        self._processes = []
        for _ in range(jobs):
            ours, theirs = context.Pipe()
            self._waiting.append(ours)
            work = (theirs, tuple(self._waiting), configuration, site)
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

    async def decode(self, file: Path, begin: datetime | None, counts: Counter[str]) -> AsyncIterator[Piece]:
        """Let a process that has nothing to do decode a file; no more files at a time than processes.

        Args:
            file: the capture.
            begin: when it begins, for text without stamps; None lets it end at the file's last change.
            counts: what the pipeline counted is added here at the end.

        Raises:
            DecodingError: the file cannot be read, or the process was ended.
        """
        connection = self._waiting.pop()
        try:
            connection.send(_Order(file, begin))
            while True:
                match await _received(connection):
                    case Piece() as piece:
                        yield piece
                    case Counter() as counted:
                        counts.update(counted)
                        break
                    case reason:
                        raise DecodingError(f"cannot read {file} to its end: {reason}")
        except (EOFError, OSError):
            raise DecodingError(
                f"a process that decoded {file} was ended from outside, perhaps for lack of memory; "
                "run it again, with a smaller --jobs: repeats change nothing"
            ) from None
        self._waiting.append(connection)


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
    connection: Connection, inherited: Sequence[Connection], configuration: Configuration, site: str
) -> None:
    """Decode what is ordered, until nobody is there to order."""
    # Only so does the end of the process that orders show as the end of the pipe.
    for end in inherited:
        end.close()
    # Ctrl-C is for the process that writes; it ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, OSError):
        while True:
            order: _Order = connection.recv()
            counts: Counter[str] = Counter()
            try:
                for piece in _pieces(order, configuration, site, counts):
                    connection.send(piece)
            except UNREADABLE as error:
                connection.send(str(error))
            else:
                connection.send(counts)


def _pieces(order: _Order, configuration: Configuration, site: str, counts: Counter[str]) -> Iterator[Piece]:
    pipeline = pipeline_of(configuration, site)
    pace = pace_of(order.file, order.begin)
    with open_capture(order.file) as stream:
        for chunk in chunks(stream):
            points = pipeline.feed_paced(chunk, pace.at_ns) if pace else pipeline.feed(chunk, None)
            yield _piece(points, len(chunk))
    yield _piece(pipeline.finish(), 0)
    counts.update(pipeline.counts)


def _piece(points: list[Point], text_bytes: int) -> Piece:
    timed = [point for point in points if point.time_ns is not None]
    times = [point.time_ns for point in timed if point.time_ns is not None]
    lines = [to_line(point) for point in timed]
    untimed = len(points) - len(timed)
    return Piece(lines, text_bytes, untimed, min(times, default=None), max(times, default=None))
