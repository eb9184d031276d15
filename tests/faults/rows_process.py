"""Faults of the recorder's own process: killed, ended, started twice, and its database away for a day."""

import math
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice, zip_longest

from recorder.simulator.stream import SiteStream
from tests.faults.feeder import Fed, Feeder, Sent, sent_now, site_stream
from tests.faults.matrix import Ground, Result, row
from tests.faults.recorder_process import RecorderProcess
from tests.faults.truth import report, settle, stored_count, tally
from tests.support.influxd import LONG_SECONDS, TIMEOUT_SECONDS, Influxd, QueryError, Row, wait_until

COMMIT_SECONDS = 1.0
COMMITTING = {"queue": {"commit_interval_seconds": COMMIT_SECONDS}}


@row(1, "kill -9 the recorder at 50 random moments", "at most one commit interval lost; most points lost")
def kills(ground: Ground) -> Result:
    """The recorder dies again and again while it records, with InfluxDB up and away in turn.

    It may lose what came after a sample that was seen on the disk or in InfluxDB before the kill.
    """
    times = 50 if ground.full else 4
    rng = random.Random(1)
    died: list[tuple[float, float, float]] = []
    with Influxd(ground.directory / "influxd") as influxd:
        recorder = RecorderProcess(ground.directory / "recorder", influxd.url, COMMITTING)
        with recorder, Feeder(recorder.pcs_port, speed=10) as feeder:
            for number in range(times):
                feeder.wait_for(10)
                if number % 4 == 1:
                    influxd.stop()
                feeder.wait_for(1)
                safe = feeder.sent[-1]
                wait_until(partial(is_safe, recorder, influxd, safe))
                # The moment is the fault.
                time.sleep(rng.uniform(0, 2 * COMMIT_SECONDS))
                recorder.kill()
                killed_at = time.monotonic()
                if number % 4 == 3 or (number == times - 1 and number % 4):
                    influxd.start()
                recorder.start()
                died.append((safe.at, killed_at, time.monotonic()))
            feeder.wait_for(10)
            feeder.stop()
            settle(recorder, influxd, feeder)
            missing = tally(influxd, feeder.sent, feeder.doubtful).missing
            per_kill = [
                [entry for entry in missing if safe_at < entry.at < back] for safe_at, _, back in died
            ]
            ages = [
                killed_at - entry.at
                for (_, killed_at, _), lost in zip(died, per_kill, strict=True)
                for entry in lost
            ]
            allowed = len({entry.sample.at_ns for lost in per_kill for entry in lost})
            figure = (
                f"{times} kills, commit interval {COMMIT_SECONDS:.0f} s, 20 samples/s: at most "
                f"{max(map(len, per_kill))} samples lost at one, up to {max(ages, default=0):.2f} s old"
            )
            return report(recorder, influxd, feeder, figure, allowed=allowed)


def is_safe(recorder: RecorderProcess, influxd: Influxd, entry: Sent) -> bool:
    """Whether a sample is in the queue's files or in InfluxDB: and so is all that came before it."""
    if recorder.has_stored(b"%d" % entry.sample.at_ns):
        return True
    with suppress(OSError, QueryError):
        query = f'SELECT "frequency" FROM "{entry.sample.device}" WHERE time = {entry.sample.at_ns}'
        return bool(influxd.query(query, "ess"))
    return False


@row(2, "SIGTERM while InfluxDB is down", "ends within its deadline; s")
def sigterm(ground: Ground) -> Result:
    """The recorder is told to end while points wait; the next start delivers them."""
    with Influxd(ground.directory / "influxd") as influxd:
        recorder = RecorderProcess(ground.directory / "recorder", influxd.url)
        with recorder, Feeder(recorder.pcs_port) as feeder:
            wait_until(lambda: stored_count(influxd) > 20)
            influxd.stop()
            feeder.wait_for(100)
            feeder.stop()
            wait_until(lambda: recorder.counted("points") == len(feeder.sent))
            began = time.monotonic()
            assert recorder.stop() == 0
            seconds = time.monotonic() - began
            influxd.start()
            recorder.start()
            settle(recorder, influxd, feeder)
            return report(recorder, influxd, feeder, f"ended in {seconds:.1f} s with exit code 0")


class Relay:
    """A TCP relay to InfluxDB that can hold back what InfluxDB answers."""

    def __init__(self, port: int) -> None:
        self.held = threading.Event()
        self.holding = threading.Event()
        self._target = ("127.0.0.1", port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(self._target)
                threading.Thread(target=self._pump, args=(near, far, False), daemon=True).start()
                threading.Thread(target=self._pump, args=(far, near, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if answers and self.holding.is_set():
                    self.held.set()
                    continue
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        source.close()


@contextmanager
def relay_to(influxd: Influxd) -> Iterator[Relay]:
    """A relay for as long as the block."""
    relay = Relay(influxd.port)
    try:
        yield relay
    finally:
        relay.close()


@row(3, "kill -9 between the 204 and the acknowledgement", "sent again, no duplicate")
def killed_before_acknowledgement(ground: Ground) -> Result:
    """InfluxDB has written a batch, but the recorder dies before it hears of it."""
    with Influxd(ground.directory / "influxd") as influxd, relay_to(influxd) as relay:
        recorder = RecorderProcess(ground.directory / "recorder", relay.url, COMMITTING)
        with recorder, Feeder(recorder.pcs_port) as feeder:
            wait_until(lambda: stored_count(influxd) > 20)
            feeder.stop()
            settle(recorder, influxd, feeder)
            relay.holding.set()
            with Feeder(recorder.pcs_port, stream=feeder.stream, seconds=60, speed=0) as more:
                more.finish()
            wait_until(relay.held.is_set)
            wait_until(lambda: stored_count(influxd) == (len(feeder.sent) + len(more.sent)) / 2)
            # The queue commits once more, so that what InfluxDB wrote is sure to be in it.
            wait_until(lambda: all(recorder.has_stored(b"%d" % entry.sample.at_ns) for entry in more.sent))
            recorder.kill()
            relay.holding.clear()
            recorder.start()
            again = recorder.influx()["queue_points"]
            feeder.sent += more.sent
            settle(recorder, influxd, feeder)
            written = recorder.influx()["written"]
            assert max(again, written) >= len(more.sent)
            return report(recorder, influxd, feeder, f"{len(more.sent)} samples written twice, stored once")


# An average of ten samples stands at the tenth of a second that holds the last of them.
BUCKET_NS = 10**8

COMPARED = (
    '"pcs"',
    '"powermeter"',
    '"flow"',
    '"avg10"."pcs_avg10"',
    '"avg10"."powermeter_avg10"',
    '"rollups"."pcs_1m"',
    '"rollups"."powermeter_1m"',
    '"rollups"."flow_1m"',
    '"rollups"."energy_15m"',
    '"rollups"."energy_1h"',
    '"rollups"."energy_1d"',
)


@row(
    6,
    "InfluxDB down for 24 h (compressed time)",
    "bound held; all as without it; bytes a point, s to drain and to repair, peak RSS",
)
def a_day_away(ground: Ground) -> Result:
    """Hours of both devices at 1 Hz come while InfluxDB is away; a twin records them with its own there."""
    hours = 24 if ground.full else 1
    seconds = hours * 3600
    stream = site_stream(int(time.time()) - seconds - 600)
    with (
        Influxd(ground.directory / "influxd") as influxd,
        Influxd(ground.directory / "twin") as other,
        RecorderProcess(ground.directory / "recorder", influxd.url) as recorder,
        RecorderProcess(ground.directory / "twin-recorder", other.url) as twin,
    ):
        wait_until(lambda: bool(influxd.query("SHOW CONTINUOUS QUERIES")))
        influxd.stop()
        fed = Fed(_send_to_both(recorder, twin, stream, seconds))
        wait_until(lambda: recorder.counted("points") == len(fed.sent), LONG_SECONDS)
        figures = recorder.influx()
        bytes_a_point = figures["queue_bytes"] / figures["queue_points"]
        settle(twin, other, fed, LONG_SECONDS)
        _repaired(twin)
        influxd.start()
        drain_seconds = settle(recorder, influxd, fed, LONG_SECONDS)
        repair_seconds = _repaired(recorder)
        recorder.note_peak()
        different = {source: _differences(influxd, other, source) for source in COMPARED}
        assert not any(different.values()), different
        assert _wrong_averages(influxd, fed) == 0
        figure = (
            f"{hours} h: {figures['queue_points']} points of {bytes_a_point:.0f} bytes drained in "
            f"{drain_seconds:.0f} s, averages and energies right {repair_seconds:.0f} s later, "
            f"peak RSS {recorder.peak_rss_mb:.0f} MB; all points of {len(COMPARED)} measurements are "
            "those of a run without the outage"
        )
        return report(recorder, influxd, fed, figure)


def _send_to_both(
    one: RecorderProcess, other: RecorderProcess, stream: SiteStream, seconds: int
) -> list[Sent]:
    """Send the same text to two recorders at once, as fast as both take it."""
    sent: list[Sent] = []
    with (
        socket.create_connection(("127.0.0.1", one.pcs_port), timeout=TIMEOUT_SECONDS) as first,
        socket.create_connection(("127.0.0.1", other.pcs_port), timeout=TIMEOUT_SECONDS) as second,
    ):
        for piece in islice(stream, seconds):
            first.sendall(piece.texts[0])
            second.sendall(piece.texts[0])
            sent += sent_now(piece.truth)
    return sent


def _repaired(recorder: RecorderProcess) -> float:
    """Wait until the recorder has computed everything late again; the seconds that took."""
    began = time.monotonic()
    wait_until(
        lambda: recorder.influx()["backfills"] >= 1 and recorder.influx()["late_seconds"] == 0, LONG_SECONDS
    )
    return time.monotonic() - began


def _differences(one: Influxd, other: Influxd, source: str) -> int:
    """How many points of a measurement are not the same in both databases."""
    left, right = (influxd.query(f"SELECT * FROM {source}", "ess") for influxd in (one, other))
    assert left, source
    nothing: Row = {}
    return sum(not _alike(point, twin) for point, twin in zip_longest(left, right, fillvalue=nothing))


def _alike(one: Row, other: Row) -> bool:
    """A moving average is a running sum in the server, whose last bits depend on where it began."""
    return one.keys() == other.keys() and all(
        value == other[name] or (name != "time" and _close(value, other[name])) for name, value in one.items()
    )


def _close(one: object, other: object) -> bool:
    return (
        isinstance(one, float | int)
        and isinstance(other, float | int)
        and math.isclose(one, other, rel_tol=1e-11, abs_tol=1e-8)
    )


def _wrong_averages(influxd: Influxd, fed: Fed) -> int:
    """How many averages of ten are not those of what was sent."""
    samples = [entry.sample for entry in fed.sent if entry.sample.device == "pcs"]
    powers = [sample.fields["active_power"] for sample in samples]
    expected = {
        sample.at_ns // BUCKET_NS * BUCKET_NS: sum(powers[last - 9 : last + 1]) / 10
        for last, sample in enumerate(samples[9:], start=9)
    }
    stored = influxd.query('SELECT active_power FROM "avg10"."pcs_avg10"', "ess")
    found = {row["time"]: row["active_power"] for row in stored}
    return len(expected.keys() ^ found.keys()) + sum(
        not math.isclose(found[at_ns], power, abs_tol=1e-6)
        for at_ns, power in expected.items()
        if at_ns in found
    )
