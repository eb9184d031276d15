"""The controller: a simulated site streamed over one connection, each sample known.

Takes a port, a pace and a start, gives the text of a `SiteStream` to the recorder and remembers what
it sent, when. Like `strace | nc` it never sends a second again; a second that went out only in part
is remembered as doubtful.
"""

import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Self

from recorder.simulator.faults import FaultRates
from recorder.simulator.plant import Plant
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import ExpectedSample, SiteStream
from tests.support.influxd import TIMEOUT_SECONDS, wait_until

RECONNECT_AFTER_SECONDS = 0.05

# A socket in repair mode is closed without a packet (Linux: include/uapi/linux/tcp.h).
_TCP_REPAIR = 19


class Sent(NamedTuple):
    """A sample, and the monotonic second at which its text had been handed to the network."""

    sample: ExpectedSample
    at: float


@dataclass(frozen=True, slots=True)
class Fed:
    """What was sent by hand: the samples, and those that may arrive or not."""

    sent: list[Sent]
    doubtful: list[ExpectedSample] = field(default_factory=list)


def sent_now(samples: Iterable[ExpectedSample]) -> list[Sent]:
    """Samples that were sent just now."""
    now = time.monotonic()
    return [Sent(sample, now) for sample in samples]


def site_stream(
    start_s: int, faults: FaultRates | None = None, seed: int = 5, *, both: bool = True
) -> SiteStream:
    """A site stamped by strace, both devices in one stream, or the PCS's and the meter's."""
    return SiteStream(Plant(seed, start_s), DIALECTS["ttt"], faults or FaultRates(), seed, both=both)


class Feeder:
    """Streams a site for as long as the `with` block, or until `seconds` of it were sent.

    `speed` is simulated seconds to a real one, 0 for flat out. Stamps begin `ago_seconds` before now.
    """

    def __init__(
        self,
        port: int,
        *,
        speed: float = 20,
        seconds: int | None = None,
        ago_seconds: int = 20_000,
        faults: FaultRates | None = None,
        stream: SiteStream | None = None,
        source: str = "127.0.0.1",
        host: str = "127.0.0.1",
    ) -> None:
        self.stream = stream or site_stream(int(time.time()) - ago_seconds, faults)
        self.sent: list[Sent] = []
        self.doubtful: list[ExpectedSample] = []
        self.connections = 0
        self._address = (host, port)
        self._source = source
        self._speed = speed
        self._seconds = seconds
        self._stopping = threading.Event()
        self._socket: socket.socket | None = None
        self._vanishing = False
        self._problem: PermissionError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Send the second that is under way, and no more; then close the connection."""
        self._stopping.set()
        self._thread.join(timeout=TIMEOUT_SECONDS)

    def finish(self) -> None:
        """Wait until all seconds were sent."""
        self._thread.join(timeout=TIMEOUT_SECONDS)
        assert not self._thread.is_alive()

    def wait_for(self, more_seconds: int) -> None:
        """Wait until so many more seconds were sent."""
        goal = len(self.sent) + 2 * more_seconds
        wait_until(lambda: len(self.sent) >= goal)

    def vanish(self) -> None:
        """Lose the connection without a word to the other side, as a controller that loses its power.

        Raises:
            PermissionError: this needs the right to administer the network.
        """
        self._vanishing = True
        self.stop()
        if self._problem is not None:
            raise self._problem

    def _run(self) -> None:
        began = time.monotonic()
        passed = 0
        while not self._stopping.is_set() and (self._seconds is None or passed < self._seconds):
            second = next(self.stream)
            passed += 1
            if self._send(second.texts[0]):
                now = time.monotonic()
                self.sent += [Sent(sample, now) for sample in second.truth if sample.certain]
                self.doubtful += [sample for sample in second.truth if not sample.certain]
            else:
                self.doubtful += second.truth
            if self._speed:
                self._stopping.wait(max(0.0, began + passed / self._speed - time.monotonic()))
        self._hang_up()

    def _send(self, text: bytes) -> bool:
        try:
            if self._socket is None:
                self._socket = socket.create_connection(
                    self._address, timeout=TIMEOUT_SECONDS, source_address=(self._source, 0)
                )
                self.connections += 1
            self._socket.sendall(text)
        except OSError:
            self._hang_up()
            self._stopping.wait(RECONNECT_AFTER_SECONDS)
            return False
        return True

    def _hang_up(self) -> None:
        if self._socket is None:
            return
        if self._vanishing:
            try:
                self._socket.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
            except PermissionError as error:
                self._problem = error
        with suppress(OSError):
            self._socket.close()
        self._socket = None
