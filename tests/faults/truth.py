"""What is in InfluxDB against what was sent.

Takes a database and the samples that were sent, gives how many are there, twice there, or wrong. Reads
through HTTP with the standard library only, so it shares no code with the recorder's writer.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from recorder.simulator.stream import ExpectedSample
from tests.faults.feeder import Fed, Feeder, Sent
from tests.faults.matrix import Result
from tests.faults.recorder_process import RecorderProcess
from tests.support.influxd import TIMEOUT_SECONDS, Influxd, QueryError, wait_until

DEVICES = ("pcs", "powermeter")
_CLOSE = 1e-12
COUNTERS = {"active_import", "active_export", "battery_energy_charged", "battery_energy_discharged"}

# A scan lasts less than a second, and is joined to its neighbour at most.
_NEAR_NS = 2_500_000_000


class Tally(NamedTuple):
    """The samples that are stored, those that are not, and points that should not be there."""

    accepted: int
    missing: list[Sent]
    duplicated: int
    wrong: int


def tally(influxd: Influxd, sent: Sequence[Sent], doubtful: Sequence[ExpectedSample] = ()) -> Tally:
    """Compare the raw measurements with the truth; doubtful samples may be there or not."""
    accepted, duplicated, wrong = 0, 0, 0
    missing: list[Sent] = []
    for device in DEVICES:
        rows = influxd.query(f'SELECT * FROM "{device}"', "ess") if _has_database(influxd) else []
        stored: dict[int, dict[str, float]] = {}
        extra: list[dict[str, float]] = []
        for row in rows:
            fields = {k: v for k, v in row.items() if isinstance(v, float | int) and k != "time"}
            if row["time"] in stored:
                extra.append(fields)
            stored[row["time"]] = fields
        known = {entry.sample.at_ns: entry.sample.fields for entry in sent if entry.sample.device == device}
        in_doubt = {sample.at_ns: sample.fields for sample in doubtful if sample.device == device}
        for entry in sent:
            if entry.sample.device != device:
                continue
            fields = stored.pop(entry.sample.at_ns, {})
            if not fields:
                missing.append(entry)
            else:
                accepted += 1
                # A field that is withheld is absent, and no wrong value.
                wrong += not _part_of(fields, entry.sample.fields)
        extra += [
            fields for at_ns, fields in stored.items() if not _is_of_doubtful(at_ns, fields, in_doubt, known)
        ]
        copies = sum(any(_same(fields, other) for other in (known | in_doubt).values()) for fields in extra)
        duplicated += copies
        wrong += len(extra) - copies
    return Tally(accepted, missing, duplicated, wrong)


def stored_count(influxd: Influxd, measurement: str = "pcs", field: str = "frequency") -> int:
    """How many points a measurement holds; 0 without a database or a server."""
    try:
        rows = influxd.query(f'SELECT count("{field}") FROM "{measurement}"', "ess")
    except (QueryError, OSError):
        return 0
    return int(rows[0]["count"]) if rows else 0


def settle(
    recorder: RecorderProcess, influxd: Influxd, fed: Feeder | Fed, timeout_seconds: float = TIMEOUT_SECONDS
) -> float:
    """Wait until the last sample is stored and nothing waits in the queue; the seconds that took.

    A time-out is left to the tally, which tells what is missing.
    """
    began = time.monotonic()
    last = fed.sent[-1].sample

    def is_settled() -> bool:
        rows = influxd.query(
            f'SELECT count("frequency") FROM "{last.device}" WHERE time = {last.at_ns}', "ess"
        )
        return bool(rows) and recorder.influx()["queue_points"] == 0

    with suppress(TimeoutError):
        wait_until(lambda: _quietly(is_settled), timeout_seconds)
    return time.monotonic() - began


def report(
    recorder: RecorderProcess,
    influxd: Influxd,
    fed: Feeder | Fed,
    figure: str,
    *,
    dead_lettered: int = 0,
    dropped_counted: int = 0,
    allowed: int = 0,
) -> Result:
    """The result of a row; what is missing beyond the last three is lost."""
    if recorder.process is not None and recorder.process.poll() is None:
        recorder.note_peak()
    found = tally(influxd, fed.sent, fed.doubtful)
    return Result(
        sent=len(fed.sent),
        accepted=found.accepted,
        duplicated=found.duplicated,
        wrong=found.wrong,
        peak_rss_mb=recorder.peak_rss_mb,
        figure=figure,
        dead_lettered=dead_lettered,
        dropped_counted=dropped_counted,
        allowed=allowed,
    )


def _has_database(influxd: Influxd) -> bool:
    return any(row["name"] == "ess" for row in influxd.query("SHOW DATABASES"))


def _quietly(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except (OSError, QueryError):
        return False


def _is_of_doubtful(
    at_ns: int,
    fields: dict[str, float],
    in_doubt: dict[int, dict[str, float]],
    known: dict[int, dict[str, float]],
) -> bool:
    """Whether a point is what a doubtful sample left: some of its values, or joined to a scan beside it."""
    if not any(abs(at_ns - other_ns) <= _NEAR_NS for other_ns in in_doubt):
        return False
    near = [values for other_ns, values in (known | in_doubt).items() if abs(at_ns - other_ns) <= _NEAR_NS]
    return all(any(_part_of({name: value}, values) for values in near) for name, value in fields.items())


def _same(fields: dict[str, float], other: dict[str, float]) -> bool:
    # A feeder that begins with another plant has other counters: they are withheld until they are confirmed.
    return not (other.keys() - fields.keys() - COUNTERS) and _part_of(fields, other)


def _part_of(fields: dict[str, float], other: dict[str, float]) -> bool:
    return all(
        key in other and math.isclose(value, other[key], rel_tol=_CLOSE, abs_tol=_CLOSE)
        for key, value in fields.items()
    )
