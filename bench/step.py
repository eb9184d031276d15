"""So many homes at true 1 Hz through one recorder on one core: what arrived, how late, and what it took.

Takes a number of homes and a time, gives a `Step`. Every sample that was sent is looked for in InfluxDB,
home by home, by its time.
"""

import multiprocessing
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from bench.homes import Order, Sent, address_of, expected_times, feed, flood, site_of
from bench.recording import DATABASE, Database, Recording, count_by_site, database, other_cores, usage_of
from bench.report import CannotRunError, Options
from tests.support.influxd import Influxd, QueryError

_PROBE_EVERY_SECONDS: Final = 0.02
_DRAIN_WITHIN_SECONDS: Final = 30.0
# Beyond this the feeder itself was late, and the step says nothing about the recorder.
_MOST_LATE_SECONDS: Final = 0.5
_SETTLE_SECONDS: Final = 2


@dataclass(frozen=True, slots=True)
class Load:
    """So many homes at true 1 Hz for so many seconds, each over a connection of its own.

    `queries` is whether InfluxDB runs the continuous queries meanwhile, `garbage` whether one more
    connection sends random bytes as fast as it can. `probes` is of how many homes the bench asks InfluxDB
    for the newest points, 50 times a second; 0 leaves InfluxDB to the recorder, and tells no latency.
    """

    homes: int
    seconds: int
    queries: bool = True
    garbage: bool = False
    probes: int = 16


@dataclass(frozen=True, slots=True)
class Step:
    """What a number of homes did to one recorder.

    `sent` counts samples of both devices, `lost` those that are not in InfluxDB, `surplus` points that
    nobody sent. Processor time and `written_bytes` are those of `measured_seconds`, the time without its
    first two seconds. `latencies_seconds` are from a PCS frame's last byte on the socket to the point being
    the answer to a query, in order.
    """

    homes: int
    seconds: int
    sent: int
    lost: int
    surplus: int
    cpu_percent: float
    influxd_cpu_percent: float
    rss_mb: float
    written_bytes: int
    measured_seconds: float
    feeder_late_seconds: float
    latencies_seconds: tuple[float, ...]

    def percentile(self, share: float) -> float:
        """Give the latency in s that this share of the samples does not exceed; infinite without any."""
        ordered = self.latencies_seconds
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("inf")

    @property
    def served(self) -> bool:
        """Whether every sample arrived once, nearly all of them within 2 s."""
        return not self.lost and not self.surplus and self.percentile(0.99) < 2.0

    @property
    def feeder_limits(self) -> bool:
        """Whether the homes themselves were late, so that the step says nothing about the recorder."""
        return self.feeder_late_seconds > _MOST_LATE_SECONDS


@dataclass(slots=True)
class _Prober:
    """Asks for the newest points of some homes again and again, and notes when each was there first."""

    influxd: Influxd
    homes: Sequence[int]
    seen_ns: dict[tuple[str, int], int] = field(default_factory=dict)
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        sites = " OR ".join(f"\"site\" = '{site_of(home)}'" for home in self.homes)
        while self.homes and not self.stopping.wait(_PROBE_EVERY_SECONDS):
            since_ns = time.time_ns() - 8 * 10**9
            statement = f'SELECT "polls" FROM "pcs" WHERE ({sites}) AND time > {since_ns} GROUP BY "site"'
            try:
                rows = self.influxd.query(statement, DATABASE)
            except (QueryError, OSError):
                continue
            now_ns = time.time_ns()
            for row in rows:
                self.seen_ns.setdefault((row["site"], row["time"]), now_ns)


def measure(load: Load, options: Options) -> Step:
    """Let the homes of a load send.

    Args:
        load: how many, how long, beside what.
        options: `show` is told what goes on.

    Raises:
        CannotRunError: the machine does not let it be measured.
    """
    homes, seconds = load.homes, load.seconds
    listener = {
        "max_connections": min(homes + 16, 65535),
        "sites": {address_of(home): site_of(home) for home in range(homes + load.garbage)},
    }
    probes = range(0, homes, max(1, homes // max(1, load.probes)))[: load.probes]
    settings = {"listener": listener, "queries": {"manage": load.queries}}
    with (
        other_cores() as core,
        tempfile.TemporaryDirectory(prefix="ess-bench-") as directory,
        _prepared(load) as influxd,
        Recording(Path(directory), influxd.url, settings, core) as recorder,
    ):
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        feeder = context.Process(target=feed, args=(Order(recorder.port, homes, seconds, probes), theirs))
        flooder = context.Process(target=flood, args=(recorder.port, address_of(homes)))
        feeder.start()
        if load.garbage:
            flooder.start()
        try:
            _received(ours, 120)
            prober = _Prober(influxd, probes)
            probing = threading.Thread(target=prober.run, daemon=True)
            probing.start()
            time.sleep(_SETTLE_SECONDS)
            before, before_influxd = usage_of(recorder.pid), usage_of(influxd.pid)
            for passed in range(seconds - _SETTLE_SECONDS):
                options.show(f"{homes} homes: second {passed} of {seconds}")
                time.sleep(1)
            after, after_influxd = usage_of(recorder.pid), usage_of(influxd.pid)
            sent: Sent = _received(ours, seconds + 60)
            _wait_for_points(influxd, 2 * sum(sent.seconds))
            time.sleep(1)
            prober.stopping.set()
            probing.join()
        finally:
            for process in filter(_runs, (feeder, flooder)):
                process.terminate()
                process.join()
        lost, surplus = _audit(influxd, homes, sent)
        return Step(
            homes=homes,
            seconds=seconds,
            sent=2 * sum(sent.seconds),
            lost=lost,
            surplus=surplus,
            cpu_percent=after.cpu_percent_since(before),
            influxd_cpu_percent=after_influxd.cpu_percent_since(before_influxd),
            rss_mb=after.rss_mb,
            written_bytes=after.written_bytes - before.written_bytes,
            measured_seconds=after.at - before.at,
            feeder_late_seconds=sent.late_seconds,
            latencies_seconds=_latencies(sent, prober),
        )


@contextmanager
def _prepared(load: Load) -> Iterator[Database]:
    """Run an influxd, with an empty database where the recorder is to leave that to others."""
    with database() as influxd:
        if not load.queries:
            influxd.query(f'CREATE DATABASE "{DATABASE}"')
        yield influxd


def _runs(process: BaseProcess) -> bool:
    return process.pid is not None and process.is_alive()


def _received(pipe: Any, timeout_seconds: float) -> Any:
    if not pipe.poll(timeout_seconds):
        raise CannotRunError("the homes did not send in time")
    message = pipe.recv()
    if isinstance(message, CannotRunError):
        raise message
    return message


def _latencies(sent: Sent, prober: _Prober) -> tuple[float, ...]:
    """Give the latency of each probed sample; one that was never seen is infinitely late."""
    found = []
    for home, samples in sent.probes.items():
        for at_ns, sent_ns in samples:
            seen_ns = prober.seen_ns.get((site_of(home), at_ns))
            found.append(float("inf") if seen_ns is None else (seen_ns - sent_ns) / 1e9)
    return tuple(sorted(found))


def _audit(influxd: Influxd, homes: int, sent: Sent) -> tuple[int, int]:
    """Compare the times of all points with those of all samples; lost, surplus."""
    stored: dict[tuple[str, str], set[int]] = {}
    for measurement in ("pcs", "powermeter"):
        for row in influxd.query(f'SELECT "active_power" FROM "{measurement}" GROUP BY "site"', DATABASE):
            stored.setdefault((measurement, row["site"]), set()).add(row["time"])
    lost = surplus = 0
    for home in range(homes):
        for measurement, times in zip(("pcs", "powermeter"), expected_times(home, sent), strict=True):
            there = stored.pop((measurement, site_of(home)), set())
            lost += len(set(times) - there)
            surplus += len(there - set(times))
    return lost, surplus + sum(map(len, stored.values()))


def _wait_for_points(influxd: Influxd, samples: int) -> None:
    """Wait until as many points as were sent are there, or for so long that they are lost."""
    deadline = time.monotonic() + _DRAIN_WITHIN_SECONDS
    while time.monotonic() < deadline:
        if sum(sum(count_by_site(influxd, name).values()) for name in ("pcs", "powermeter")) >= samples:
            return
        time.sleep(1)
