"""Sites streamed to a receiver, as controllers would.

Takes `SiteStream`s, a receiver and a pace, sends their text over TCP. Never reads what the receiver may
say. As with `strace | nc`, what is due while the receiver is away is lost, and counted; flat out nothing
is ever due, so nothing is lost.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

from recorder.simulator.faults import FaultRates
from recorder.simulator.homes import HOMES, Home
from recorder.simulator.plant import Plant
from recorder.simulator.strace_text import Dialect
from recorder.simulator.stream import SiteStream, StreamSecond

_CONNECT_WITHIN_SECONDS = 5.0
_CLOSE_WITHIN_SECONDS = 5.0
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 10.0

# Called with the number of the site, the second, and whether all of it was handed to the network.
OnSecond = Callable[[int, StreamSecond, bool], None]


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where the text goes: a host, and a TCP port for each text of a second."""

    host: str
    ports: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pace:
    """Simulated seconds to a real second, 0 for flat out; and how many of each site, None for no end."""

    speed: float = 1.0
    seconds: int | None = None


@dataclass(slots=True)
class Progress:
    """What happened so far, over all sites; `problem` is why a connection is missing, or empty."""

    seconds: int = 0
    bytes_sent: int = 0
    seconds_lost: int = 0
    connections: int = 0
    problem: str = ""


def make_sites(  # noqa: PLR0913 - what a site is made of
    seeds: Sequence[int],
    start_s: int,
    dialect: Dialect,
    faults: FaultRates,
    *,
    both: bool,
    home: Home = HOMES["ess"],
) -> list[SiteStream]:
    """Give a site for each seed, with a plant of its own that starts at Unix time `start_s`.

    Raises:
        ValueError: both processes in one stream, and a dialect that does not tell them apart.
    """
    return [
        SiteStream(
            Plant(seed, start_s, home.settings), dialect, faults, seed, both=both, devices=home.devices
        )
        for seed in seeds
    ]


async def simulate(
    receiver: Receiver, sites: Sequence[SiteStream], pace: Pace, progress: Progress, on_second: OnSecond
) -> None:
    """Stream all sites until each has sent its seconds.

    Args:
        receiver: where to.
        sites: what; each has connections of its own.
        pace: how fast, how long.
        progress: kept up to date; read it from another task to show it.
        on_second: told of each second as it was sent or lost.
    """
    async with asyncio.TaskGroup() as group:
        for number, site in enumerate(sites):
            # Real homes do not send on the same beat.
            offset_seconds = number / len(sites)
            group.create_task(_Site(receiver, pace, progress).run(number, site, offset_seconds, on_second))


class _Site:
    """One site on its way."""

    def __init__(self, receiver: Receiver, pace: Pace, progress: Progress) -> None:
        self._links = [_Link(receiver.host, port, progress) for port in receiver.ports]
        self._pace = pace
        self._progress = progress

    async def run(self, number: int, site: SiteStream, offset_seconds: float, on_second: OnSecond) -> None:
        """Send every second when it is due; close the connections at the end."""
        loop = asyncio.get_running_loop()
        speed = self._pace.speed
        began = loop.time() + (offset_seconds / speed if speed else 0)
        numbers = count() if self._pace.seconds is None else range(self._pace.seconds)
        try:
            for passed in numbers:
                await asyncio.sleep(max(0.0, began + passed / speed - loop.time()) if speed else 0)
                second = next(site)
                sent = True
                for link, text, tears in zip(self._links, second.texts, second.tears, strict=True):
                    sent &= await link.send(text, tears, patient=not speed)
                self._progress.seconds += 1
                self._progress.seconds_lost += not sent
                on_second(number, second, sent)
        finally:
            for link in self._links:
                await link.close()


class _Link:
    """One connection, opened again whenever it is gone."""

    def __init__(self, host: str, port: int, progress: Progress) -> None:
        self._host = host
        self._port = port
        self._progress = progress
        self._writer: asyncio.StreamWriter | None = None
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._next_try = 0.0

    async def send(self, text: bytes, tears: tuple[int, ...], *, patient: bool) -> bool:
        """Send `text`, with a new connection after each of `tears`.

        Returns:
            Whether all of it was handed to the network; no text needs no connection. A patient link tries
            until it was.
        """
        if not text:
            return True
        start = 0
        for end in (*tears, len(text)):
            if start:
                await self.close()
            while not await self._send_piece(text[start:end]):
                if not patient:
                    return False
                await asyncio.sleep(max(0.0, self._next_try - asyncio.get_running_loop().time()))
            start = end
        return True

    async def close(self) -> None:
        """Close the connection once what was sent has left."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            try:
                async with asyncio.timeout(_CLOSE_WITHIN_SECONDS):
                    await writer.wait_closed()
            except (OSError, TimeoutError):
                writer.transport.abort()

    async def _send_piece(self, piece: bytes) -> bool:
        if self._writer is None and not await self._connect():
            return False
        assert self._writer is not None
        try:
            # A receiver that closed its own direction, as nc does, still reads: only an error ends it.
            self._writer.write(piece)
            await self._writer.drain()
        except OSError as error:
            self._progress.problem = f"{self._host}:{self._port} went away: {error.strerror}"
            await self.close()
            return False
        self._progress.bytes_sent += len(piece)
        return True

    async def _connect(self) -> bool:
        loop = asyncio.get_running_loop()
        if loop.time() < self._next_try:
            return False
        try:
            async with asyncio.timeout(_CONNECT_WITHIN_SECONDS):
                _, self._writer = await asyncio.open_connection(self._host, self._port)
        except (OSError, TimeoutError) as error:
            number = error.errno or 0
            reason = os.strerror(number) if number > 0 else error.strerror or "no answer"
            self._progress.problem = (
                f"cannot reach {self._host}:{self._port} ({reason}): is the receiver running?"
            )
            self._next_try = loop.time() + self._pause_seconds
            self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
            return False
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._progress.connections += 1
        self._progress.problem = ""
        return True
