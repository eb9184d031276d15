"""Homes at true 1 Hz: the text of simulated controllers, made once and sent again and again.

Takes a number of homes and a port, sends each home's second over a connection of its own, from an address of
its own. Cheap enough not to be what limits: homes share a few plants' text, and only the stamps are set.

A second is sent in ten pieces, each when its lines are due, as a link does that gathers for 100 ms.
"""

import selectors
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.connection import Connection
from random import Random
from typing import Final

from bench.report import CannotRunError
from recorder.simulator.faults import FaultRates
from recorder.simulator.plant import Plant
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import SiteStream

PIECES: Final = 10
_PLANTS: Final = 8
_SECONDS: Final = 30
# Stamps of the text as it is made: ten digits, and long ago.
_BEGIN_S: Final = 1_000_000_000
_SECOND_NS: Final = 10**9
_TICKS: Final = 100
_STALLED_SECONDS: Final = 30.0


def site_of(home: int) -> str:
    """Give the site of a home."""
    return f"home-{home}"


def address_of(home: int) -> str:
    """Give the address that a home sends from: loopback, but not the one that all others use."""
    return f"127.{1 + (home >> 16)}.{home >> 8 & 255}.{home & 255}"


@dataclass(frozen=True, slots=True)
class Second:
    """A second of one home: its pieces, and when its samples are complete, in ns from its beginning."""

    begin_s: int
    pieces: tuple[bytes, ...]
    pcs_ns: int
    powermeter_ns: int

    @property
    def pcs_piece(self) -> int:
        """Which piece brings the last byte of the PCS's answer."""
        return min(self.pcs_ns * PIECES // _SECOND_NS, PIECES - 1)

    def at(self, now_s: int) -> tuple[bytes, ...]:
        """Give the pieces with stamps of the second `now_s`."""
        moved = {b" %d." % (self.begin_s + ahead): b" %d." % (now_s + ahead) for ahead in (0, 1)}
        pieces = self.pieces
        for before, after in moved.items():
            pieces = tuple(piece.replace(before, after) for piece in pieces)
        return pieces


def make_seconds(plant: int, seconds: int = _SECONDS) -> list[Second]:
    """Make the seconds of one plant, both devices in one stream, as `controller-script --both` sends them."""
    stream = SiteStream(Plant(plant, _BEGIN_S), DIALECTS["ttt"], FaultRates(), plant)
    made = []
    for second in islice(stream, seconds):
        begin_s = second.at_ns // _SECOND_NS
        pieces = [bytearray() for _ in range(PIECES)]
        last = 0
        for line in second.texts[0].splitlines(keepends=True):
            # A line without a stamp stays behind the one before it.
            for word in line.split(b" ", 4):
                if len(word) == 17 and word[10:11] == b".":
                    last = min(int((float(word) - begin_s) * PIECES), PIECES - 1)
                    break
            pieces[last] += line
        ends = {sample.device: sample.at_ns - second.at_ns for sample in second.truth}
        made.append(Second(begin_s, tuple(map(bytes, pieces)), ends["pcs"], ends["powermeter"]))
    return made


@dataclass(slots=True)
class Sent:
    """What was sent.

    `seconds` is how many seconds of each home went out whole. `probes` holds, for the homes that were asked
    for, the time stamp of each PCS sample and when its last byte was given to the socket, both Unix ns.
    `late_seconds` is how far the feeder itself fell behind at worst.
    """

    seconds: list[int]
    first_s: int = 0
    late_seconds: float = 0.0
    probes: dict[int, list[tuple[int, int]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Order:
    """What to send: so many homes for so many seconds to `port`; the times of `probes` are noted."""

    port: int
    homes: int
    seconds: int
    probes: Sequence[int] = ()


def feed(order: Order, report: Connection) -> None:
    """Send what was ordered, in a process of its own; report "connected", then the `Sent`."""
    feeder = _Feeder(order)
    try:
        feeder.connect()
        report.send("connected")
        report.send(feeder.run())
    except OSError as error:
        report.send(CannotRunError(f"the homes cannot send: {error}"))
    finally:
        feeder.close()


def flood(port: int, address: str) -> None:
    """Send random bytes over one connection, as fast as it takes them, until it ends; then begin again."""
    noise = Random(1).randbytes(1 << 20)
    while True:
        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", port), source_address=(address, 0)) as connected,
        ):
            while True:
                connected.sendall(noise)


class _Feeder:
    def __init__(self, order: Order) -> None:
        self._order = order
        self._plants = [make_seconds(plant) for plant in range(1, _PLANTS + 1)]
        self._moved: dict[tuple[int, int], tuple[bytes, ...]] = {}
        self._sockets: list[socket.socket] = []
        self._unsent: dict[int, bytes] = {}
        self._sent = Sent([0] * order.homes, probes={home: [] for home in order.probes})

    def connect(self) -> None:
        for home in range(self._order.homes):
            connected = socket.create_connection(
                ("127.0.0.1", self._order.port), timeout=60, source_address=(address_of(home), 0)
            )
            connected.setblocking(False)
            self._sockets.append(connected)

    def run(self) -> Sent:
        """Send at each hundredth of a second what is due, homes spread evenly over the second."""
        homes = range(self._order.homes)
        # A home's second begins `home % 100` ticks after the whole second.
        due = [
            [home for home in homes if (tick - home) % (_TICKS // PIECES) == 0]
            for tick in range(_TICKS // PIECES)
        ]
        self._sent.first_s = int(time.time()) + 1
        for tick in range((self._order.seconds + 1) * _TICKS):
            at = self._sent.first_s + tick / _TICKS
            wait_seconds = at - time.time()
            if wait_seconds > 0:
                time.sleep(wait_seconds)
            else:
                self._sent.late_seconds = max(self._sent.late_seconds, -wait_seconds)
            for home in due[tick % len(due)]:
                second, piece = divmod((tick - home % _TICKS) * PIECES // _TICKS, PIECES)
                if 0 <= second < self._order.seconds:
                    self._send(home, second, piece)
            if tick % _TICKS == 0:
                self._moved = {key: pieces for key, pieces in self._moved.items() if key[1] > at - 3}
        self._finish()
        return self._sent

    def _send(self, home: int, passed: int, piece: int) -> None:
        plant, now_s = home % _PLANTS, self._sent.first_s + passed
        second = self._plants[plant][passed % _SECONDS]
        pieces = self._moved.get((plant, now_s))
        if pieces is None:
            pieces = self._moved[plant, now_s] = second.at(now_s)
        self._push(home, pieces[piece])
        if piece == second.pcs_piece and home in self._sent.probes:
            self._sent.probes[home].append((now_s * _SECOND_NS + second.pcs_ns, time.time_ns()))
        if piece == PIECES - 1:
            self._sent.seconds[home] += 1

    def _push(self, home: int, data: bytes) -> None:
        if home in self._unsent:
            data = self._unsent.pop(home) + data
        if not data:
            return
        try:
            count = self._sockets[home].send(data)
        except BlockingIOError:
            count = 0
        if count < len(data):
            self._unsent[home] = data[count:]

    def _finish(self) -> None:
        """Send what full sockets did not take yet."""
        deadline = time.monotonic() + _STALLED_SECONDS
        with selectors.DefaultSelector() as selector:
            while self._unsent:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{len(self._unsent)} connections took no more text")
                for home in tuple(self._unsent):
                    self._push(home, b"")
                selector.select(0.01)

    def close(self) -> None:
        for connected in self._sockets:
            with suppress(OSError):
                connected.close()


def expected_times(home: int, sent: Sent) -> tuple[list[int], list[int]]:
    """Give the Unix ns of every PCS and every meter sample of a home that was sent."""
    seconds = make_seconds(home % _PLANTS + 1)
    pcs, powermeter = [], []
    for passed in range(sent.seconds[home]):
        begin_ns, second = (sent.first_s + passed) * _SECOND_NS, seconds[passed % _SECONDS]
        pcs.append(begin_ns + second.pcs_ns)
        powermeter.append(begin_ns + second.powermeter_ns)
    return pcs, powermeter
