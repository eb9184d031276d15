"""Faults of the clocks: the controller's, and the recorder's own.

The controller's clock is set by writing other stamps into the text, the recorder's by libfaketime. A sample
is known by its values here, because its time is what is looked at.
"""

import re
import socket
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from recorder.simulator.stream import ExpectedSample
from tests.faults.feeder import site_stream
from tests.faults.matrix import CannotInjectError, Ground, Result, row
from tests.faults.recorder_process import RecorderProcess
from tests.faults.truth import COUNTERS, DEVICES
from tests.support.influxd import TIMEOUT_SECONDS, Influxd, wait_until

HOUR_SECONDS = 3600
YEAR_SECONDS = 365 * 24 * HOUR_SECONDS
TOLERANCE_SECONDS = 2
# Of a recorder that stops receiving when its clock is set; a busy machine is late by a few seconds.
LATEST_SECONDS = 60

_STAMP = re.compile(rb"(?m)^(\[pid +\d+\] )(\d+)(?=\.\d{6} )")


_Values = tuple[tuple[str, str], ...]


class Placed(NamedTuple):
    """A sample, and by how many seconds the recorder's clock was wrong when it came."""

    sample: ExpectedSample
    wrong_by_seconds: int


class WrongClock:
    """A controller that streams over one connection in real time, and whose clock can be set.

    Each second goes out once it has passed. `lateness_seconds` is the longest time between a stamp, by the
    right clock, and the moment at which the recorder had made points of its text.
    """

    def __init__(self, recorder: RecorderProcess) -> None:
        self.sent: list[Placed] = []
        self.lateness_seconds = 0.0
        self._recorder = recorder
        self._stream = site_stream(int(time.time()))
        self._socket = socket.create_connection(("127.0.0.1", recorder.pcs_port), timeout=TIMEOUT_SECONDS)
        self._ahead_seconds = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def run(self, seconds: int, *, ahead_seconds: int = 0, recorder_wrong_by_seconds: int = 0) -> None:
        """Send seconds, with the clock set to so many seconds too late a time in the middle of the first."""
        for second in (next(self._stream) for _ in range(seconds)):
            over_s = second.at_ns / 1e9 + 1
            wait_until(lambda over_s=over_s: time.time() >= over_s)  # type: ignore[misc]
            lines = second.texts[0].splitlines(keepends=True)
            middle = len(lines) // 2
            text = self._stamped(lines[:middle])
            self._ahead_seconds = ahead_seconds
            self._socket.sendall(text + self._stamped(lines[middle:]))
            self.lateness_seconds = max(self.lateness_seconds, time.time() - over_s + 1)
            self.sent += [Placed(sample, recorder_wrong_by_seconds) for sample in second.truth]

    def _stamped(self, lines: Sequence[bytes]) -> bytes:
        return _STAMP.sub(
            lambda stamp: stamp[1] + b"%d" % (int(stamp[2]) + self._ahead_seconds), b"".join(lines)
        )


class Found(NamedTuple):
    """How many samples are stored, twice there or wrong, and the farthest that a time is off."""

    accepted: int
    duplicated: int
    wrong: int
    off_seconds: float


def compare(influxd: Influxd, sent: Sequence[Placed], bound_seconds: float) -> Found:
    """Find each stored point by its values; its time is wrong where it is off by more than the bound.

    Samples with the same values are taken in the order of their times.
    """
    accepted, duplicated, wrong, farthest = 0, 0, 0, 0.0
    for device in DEVICES:
        waiting: defaultdict[_Values, list[tuple[int, _Values]]] = defaultdict(list)
        for sample, wrong_by_seconds in sent:
            if sample.device == device:
                values, counters = _values(sample.fields)
                waiting[values].append((sample.at_ns + wrong_by_seconds * 10**9, counters))
        known = set(waiting)
        for times in waiting.values():
            times.sort()
        for stored in influxd.query(f'SELECT * FROM "{device}"', "ess"):
            values, counters = _values({key: value for key, value in stored.items() if key != "time"})
            if not waiting.get(values):
                duplicated += values in known
                wrong += values not in known
                continue
            at_ns, expected = waiting[values].pop(0)
            off_seconds = abs(stored["time"] - at_ns) / 1e9
            accepted += 1
            # Of the second controller, whose plant is another, counters are absent until they are confirmed.
            wrong += off_seconds > bound_seconds or not set(counters) <= set(expected)
            farthest = max(farthest, off_seconds)
    return Found(accepted, duplicated, wrong, farthest)


def _values(fields: Mapping[str, object]) -> tuple[_Values, _Values]:
    """The values that identify a sample, and its counters."""
    values = sorted((key, f"{value:.9g}") for key, value in fields.items() if isinstance(value, float | int))
    return (
        tuple(one for one in values if one[0] not in COUNTERS),
        tuple(one for one in values if one[0] in COUNTERS),
    )


class FakeClock:
    """The recorder's own clock, under libfaketime: right at first, and set from outside.

    Raises:
        CannotInjectError: libfaketime is not installed.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._file = directory / "clock"
        self.set(0)
        library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
        if library is None:
            raise CannotInjectError("libfaketime is not installed")
        self.env = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, wrong_by_seconds: int) -> None:
        """Set the clock to so many seconds after the right time."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{wrong_by_seconds:+d}\n")
        new.replace(self._file)


def is_repairing(recorder: RecorderProcess) -> bool:
    """Whether averages are being computed again, or have been."""
    figures = recorder.influx()
    return bool(figures["backfills"]) or "repairing" in figures["late_range"]


@row(
    22,
    "clock set back and forth by an hour and a year, 1970 at boot, DST change",
    "stamps corrected, steps counted, retries go on, UTC continuous",
)
def clocks(ground: Ground) -> Result:
    """First the controller's clock is set while InfluxDB is there, then the recorder's while it is away.

    Raw samples are looked at; of the averages after a wrong clock only that they are computed again.
    """
    seconds = 10 if ground.full else 1
    steps = (-HOUR_SECONDS, 0, HOUR_SECONDS, 0, -YEAR_SECONDS, 0, YEAR_SECONDS, 0)
    changes: dict[str, dict[str, Any]] = {
        "clock": {"tolerance_seconds": TOLERANCE_SECONDS},
        "retention": {"raw": "inf", "avg10": "inf"},
        "writer": {"retry_max_seconds": 1},
    }
    clock = FakeClock(ground.directory / "recorder")
    with (
        Influxd(ground.directory / "influxd") as influxd,
        RecorderProcess(ground.directory / "recorder", influxd.url, changes, **clock.env) as recorder,
    ):
        with WrongClock(recorder) as controller:
            controller.run(seconds, ahead_seconds=100 - int(time.time()))
            for ahead_seconds in (0, *steps):
                controller.run(seconds, ahead_seconds=ahead_seconds)
            wait_until(lambda: recorder.influx()["queue_points"] == 0)
        counted = recorder.counted("clock_steps")
        assert counted == len(steps), counted

        influxd.stop()
        wait_until(lambda: recorder.influx()["state"] == "retrying")
        with WrongClock(recorder) as second:
            for wrong_by_seconds in steps:
                clock.set(wrong_by_seconds)
                retries = recorder.influx()["retries"]
                second.run(seconds, recorder_wrong_by_seconds=wrong_by_seconds)
                wait_until(lambda retries=retries: recorder.influx()["retries"] > retries)  # type: ignore[misc]
            influxd.start()
            wait_until(lambda: recorder.influx()["queue_points"] == 0)
            late_days = recorder.influx()["late_seconds"] / 86_400
            # Neither the jumps nor a stamp of the year to come keep averages from being computed again.
            wait_until(lambda: is_repairing(recorder))
            wait_until(lambda: recorder.health()[0] == 200)
        sent = [*controller.sent, *second.sent]
        lateness_seconds = max(controller.lateness_seconds, second.lateness_seconds)
        # It must not hide behind its own lateness.
        assert lateness_seconds < LATEST_SECONDS, lateness_seconds
        found = compare(influxd, sent, TOLERANCE_SECONDS + lateness_seconds)
        recorder.note_peak()
        return Result(
            sent=len(sent),
            accepted=found.accepted,
            duplicated=found.duplicated,
            wrong=found.wrong,
            peak_rss_mb=recorder.peak_rss_mb,
            figure=(
                f"{counted:.0f} steps of the controller's clock counted, {len(steps)} of the recorder's own; "
                f"times at most {found.off_seconds:.2f} s off, text taken at most {lateness_seconds:.2f} s "
                f"after it was written; averages of {late_days:.0f} days are computed again; "
                "DST: "
                "tests/influx/test_continuous_queries.py::test_days_of_23_and_25_hours_are_whole"
            ),
        )
