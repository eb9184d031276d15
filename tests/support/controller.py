"""A controller whose home does what a test wants: strace text of chosen moments, once a second.

Takes powers, sends what a real controller would send of them. Never waits for the receiver.
"""

import socket
import threading
import time
from random import Random
from types import TracebackType
from typing import NamedTuple, Self

from recorder.simulator.plant import Plant, PlantState
from recorder.simulator.polls import Master, scan
from recorder.simulator.strace_text import DIALECTS, StraceText, calls_of

_NOON_S = 1_781_780_400


class Moment(NamedTuple):
    """Powers of a home, W: PV, battery (+ discharging), home. The grid gives or takes the rest."""

    pv_w: int
    battery_w: int
    home_w: int


class Controller:
    """Sends `moment` every second to a port, for as long as the `with` block.

    With `rising`, each second has 1 W more of PV than the one before, so that every frame has a figure
    of its own. `sent` tells when each was sent: PV power in W, and Unix seconds.
    """

    def __init__(self, port: int, moment: Moment, *, rising: bool = False) -> None:
        self.moment = moment
        self.sent: list[tuple[int, float]] = []
        self._port = port
        self._rising = rising
        self._state = Plant(1, _NOON_S).state
        self._random = Random(1)
        self._writer = StraceText(DIALECTS["capture"], self._random)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()

    def _send(self) -> None:
        seconds = 0
        with socket.create_connection(("127.0.0.1", self._port)) as connection:
            while True:
                pv_w, battery_w, home_w = self.moment
                moment = Moment(pv_w + seconds * self._rising, battery_w, home_w)
                text = self._text(seconds, moment)
                self.sent.append((moment.pv_w, time.time()))
                connection.sendall(text)
                seconds += 1
                if self._ending.wait(1.0):
                    return

    def _text(self, seconds: int, moment: Moment) -> bytes:
        polls = scan(_state(self._state, seconds, moment), Master(25001, 4), Master(5001, 4), self._random)
        calls = [call for number, poll in enumerate(polls) for call in calls_of(poll, number, self._random)]
        calls.sort(key=lambda call: call.at_ns)
        return b"".join(line.text for line in self._writer.render(calls))


def _state(before: PlantState, seconds: int, moment: Moment) -> PlantState:
    """Give a plant without losses in the moment."""
    pcs_w = moment.pv_w + moment.battery_w
    return before._replace(
        at_s=before.at_s + seconds,
        poll_counter=before.poll_counter + seconds,
        pv_powers_w=(moment.pv_w // 2, moment.pv_w - moment.pv_w // 2),
        pcs_active_power_w=pcs_w,
        battery_power_w=moment.battery_w,
        meter_power_cw=(moment.home_w - pcs_w) * 100,
    )
