"""What is in InfluxDB against what was sent.

Takes a database and the samples that were sent, gives how many are there, twice there, or wrong. Reads
through HTTP with the standard library only, so it shares no code with the recorder's writer.
"""

import math
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from recorder.simulator.stream import ExpectedSample
from tests.faults.feeder import Feeder, Sent
from tests.faults.matrix import Result
from tests.faults.recorder_process import RecorderProcess
from tests.support.influxd import Influxd, QueryError, wait_until

DEVICES = ("pcs", "powermeter")
_CLOSE = 1e-12


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
        known = {entry.at_ns: entry.fields for entry in doubtful if entry.device == device}
        for entry in sent:
            if entry.sample.device != device:
                continue
            fields = stored.pop(entry.sample.at_ns, {})
            known[entry.sample.at_ns] = entry.sample.fields
            if not fields:
                missing.append(entry)
            else:
                accepted += 1
                wrong += not _same(fields, entry.sample.fields)
        for at_ns, fields in stored.items():
            # What a doubtful sample brought may lack fields, but holds no value that was not sent.
            if not _part_of(fields, known.get(at_ns, {})):
                extra.append(fields)
        copies = sum(any(_same(fields, other) for other in known.values()) for fields in extra)
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


def settle(recorder: RecorderProcess, influxd: Influxd, feeder: Feeder, timeout_seconds: float = 90) -> float:
    """Wait until the last sample is stored and nothing waits in the queue; the seconds that took.

    A time-out is left to the tally, which tells what is missing.
    """
    began = time.monotonic()
    last = feeder.sent[-1].sample

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
    feeder: Feeder,
    figure: str,
    *,
    sent: Sequence[Sent] | None = None,
    peak_rss_mb: float | None = None,
) -> Result:
    """The result of a row in which nothing may be missing."""
    if recorder.process is not None and recorder.process.poll() is None:
        recorder.note_peak()
    sent = feeder.sent if sent is None else sent
    found = tally(influxd, sent, feeder.doubtful)
    return Result(
        sent=len(sent),
        accepted=found.accepted,
        duplicated=found.duplicated,
        wrong=found.wrong,
        peak_rss_mb=recorder.peak_rss_mb if peak_rss_mb is None else peak_rss_mb,
        figure=figure,
    )


def by_device(sent: Sequence[Sent]) -> Counter[str]:
    """How many samples of each device."""
    return Counter(entry.sample.device for entry in sent)


def _has_database(influxd: Influxd) -> bool:
    return any(row["name"] == "ess" for row in influxd.query("SHOW DATABASES"))


def _quietly(condition: object) -> bool:
    try:
        return bool(condition())  # type: ignore[operator]
    except (OSError, QueryError):
        return False


def _same(fields: dict[str, float], other: dict[str, float]) -> bool:
    return fields.keys() == other.keys() and _part_of(fields, other)


def _part_of(fields: dict[str, float], other: dict[str, float]) -> bool:
    return all(
        key in other and math.isclose(value, other[key], rel_tol=_CLOSE, abs_tol=_CLOSE)
        for key, value in fields.items()
    )
