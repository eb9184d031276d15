"""Faults of the recorder's own disk: full, read-only, failing, damaged; and how little it is written to."""

import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.faults.feeder import Feeder
from tests.faults.file_systems import break_ext4, fill, on_ext4, on_tmpfs, seen_by
from tests.faults.matrix import Ground, Result, row
from tests.faults.recorder_process import RecorderProcess
from tests.faults.truth import report, settle, stored_count, tally
from tests.support.influxd import TIMEOUT_SECONDS, Influxd, wait_until

COMMIT_SECONDS = 0.5
COMMITTING = {"queue": {"commit_interval_seconds": COMMIT_SECONDS}}
MEMORY_BYTES = 300_000
PAGE_BYTES = 4096
DAY_SECONDS = 86400


def queue_problem(recorder: RecorderProcess) -> str:
    """What the health answer says is wrong with the queue; empty while nothing is."""
    return next((text for text in recorder.health()[1]["problems"] if text.startswith("queue:")), "")


@row(9, "the queue on a full tmpfs", "alarm, recovers by itself; s")
def disk_full(ground: Ground) -> Result:
    """The disk with the queue fills up while InfluxDB is away, and has room again before it is back."""
    with ExitStack() as stack:
        influxd = stack.enter_context(Influxd(ground.directory / "influxd"))
        directory = ground.directory / "recorder"
        wrapper = on_tmpfs(directory / "data", 8)
        recorder = stack.enter_context(RecorderProcess(directory, influxd.url, COMMITTING, wrapper))
        feeder = stack.enter_context(Feeder(recorder.pcs_port))
        ballast = seen_by(recorder.pid, recorder.data_dir / "ballast")
        wait_until(lambda: stored_count(influxd) > 20)
        influxd.stop()
        fill(ballast)
        began = time.monotonic()
        wait_until(lambda: bool(queue_problem(recorder)))
        alarm_seconds = time.monotonic() - began
        problem = queue_problem(recorder)
        feeder.wait_for(100)
        ballast.unlink()
        began = time.monotonic()
        wait_until(lambda: not queue_problem(recorder))
        recovery_seconds = time.monotonic() - began
        influxd.start()
        feeder.stop()
        settle(recorder, influxd, feeder)
        assert "space" in problem
        figure = f"alarm after {alarm_seconds:.1f} s, well {recovery_seconds:.1f} s after there was room"
        return report(recorder, influxd, feeder, figure)


@row(10, "the queue's file system becomes read-only", "visible degraded mode, memory bounded")
def read_only(ground: Ground) -> Result:
    """An ext4 meets an error and becomes read-only, as on a worn SD card, for so long that memory is full."""
    changes = {"queue": {**COMMITTING["queue"], "max_memory_bytes": MEMORY_BYTES}}
    with ExitStack() as stack:
        influxd = stack.enter_context(Influxd(ground.directory / "influxd"))
        directory = ground.directory / "recorder"
        wrapper = on_ext4(directory / "data", 16)
        recorder = stack.enter_context(RecorderProcess(directory, influxd.url, changes, wrapper))
        feeder = stack.enter_context(Feeder(recorder.pcs_port, speed=100))
        wait_until(lambda: stored_count(influxd) > 20)
        influxd.stop()
        feeder.wait_for(200)
        break_ext4(recorder.pid, recorder.data_dir)
        wait_until(lambda: "ead-only" in queue_problem(recorder))
        wait_until(lambda: recorder.influx()["dropped"] > 100)
        influxd.start()
        feeder.stop()
        settle(recorder, influxd, feeder)
        return counted_losses(recorder, influxd, feeder, f"{MEMORY_BYTES // 1000} kB of memory")


def counted_losses(recorder: RecorderProcess, influxd: Influxd, feeder: Feeder, what: str) -> Result:
    """The result where the recorder may lose what it counts; it counts lines, flows included."""
    damaged = re.findall(r"points are lost.* points=(\d+)", recorder.log.read_text())
    dropped = int(recorder.influx()["dropped"]) + sum(map(int, damaged))
    missing = len(tally(influxd, feeder.sent, feeder.doubtful).missing)
    figure = f"{what}: {missing} samples missing, {dropped} lines counted"
    return report(recorder, influxd, feeder, figure, dropped_counted=min(missing, dropped))


@row(11, "fdatasync fails with EIO; pwrite64 with ENOSPC", "not acknowledged, tried again")
def calls_fail(ground: Ground) -> Result:
    """The kernel refuses to write or to sync; once it does again, everything survives a kill -9."""
    with ExitStack() as stack:
        influxd = stack.enter_context(Influxd(ground.directory / "influxd"))
        recorder = RecorderProcess(ground.directory / "recorder", influxd.url, COMMITTING)
        stack.enter_context(recorder)
        feeder = stack.enter_context(Feeder(recorder.pcs_port))
        wait_until(lambda: stored_count(influxd) > 20)
        influxd.stop()
        texts = []
        for call, error in (("fdatasync", "EIO"), ("pwrite64", "ENOSPC")):
            command = ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(recorder.pid)]
            command += ["-e", f"trace={call}", "-e", f"inject={call}:error={error}"]
            tracer = subprocess.Popen(command)
            try:
                wait_until(lambda: bool(queue_problem(recorder)))
                texts.append(queue_problem(recorder))
                feeder.wait_for(40)
            finally:
                tracer.terminate()
                tracer.wait(timeout=TIMEOUT_SECONDS)
            wait_until(lambda: not queue_problem(recorder))
        feeder.stop()
        # A commit after the last sample, so that a kill may take nothing.
        wait_until(lambda: all(recorder.has_stored(b"%d" % entry.sample.at_ns) for entry in feeder.sent[-2:]))
        recorder.kill()
        influxd.start()
        recorder.start()
        settle(recorder, influxd, feeder)
        assert "error" in texts[0]
        assert "space" in texts[1]
        return report(recorder, influxd, feeder, "alarm at each, then well by itself; kill -9 took nothing")


Damage = Callable[[Path], None]


def after_damage(ground: Ground, damages: list[Damage], what: str) -> Result:
    """Record without InfluxDB, damage a copy of the queue in each way, and see what a new start delivers."""
    with Influxd(ground.directory / "influxd") as influxd:
        influxd.stop()
        changes = {"queue": {"commit_interval_seconds": 0.1}}
        first = RecorderProcess(ground.directory / "recorder", influxd.url, changes)
        with first, Feeder(first.pcs_port, speed=50, seconds=200) as feeder:
            feeder.finish()
            wait_until(lambda: first.counted("points") == len(feeder.sent))
        influxd.start()
        results: list[Result] = []
        slowest_seconds = 0.0
        for number, damage in enumerate(damages):
            directory = ground.directory / f"damaged-{number}"
            shutil.copytree(first.data_dir, directory / "data")
            damage(directory / "data" / "queue")
            began = time.monotonic()
            with RecorderProcess(directory, influxd.url, changes) as recorder:
                slowest_seconds = max(slowest_seconds, time.monotonic() - began)
                wait_until(lambda recorder=recorder: recorder.influx()["state"] == "writing")  # type: ignore[misc]
                wait_until(lambda recorder=recorder: recorder.influx()["queue_points"] == 0)  # type: ignore[misc]
                results.append(counted_losses(recorder, influxd, feeder, what))
            influxd.query('DROP DATABASE "ess"')
        reported = sum(result.dropped_counted for result in results)
        lost = sum(result.sent - result.accepted for result in results)
        return Result(
            sent=sum(result.sent for result in results),
            accepted=sum(result.accepted for result in results),
            duplicated=sum(result.duplicated for result in results),
            wrong=sum(result.wrong for result in results),
            peak_rss_mb=max(result.peak_rss_mb for result in results),
            dropped_counted=reported,
            figure=f"{len(damages)} {what}: {lost} samples lost, {reported} of them reported; "
            f"started in {slowest_seconds:.1f} s at most",
        )  # fmt: skip


def _segments(queue: Path) -> list[Path]:
    """The files that hold points, largest last."""
    return sorted(
        (path for path in queue.iterdir() if path.stat().st_size), key=lambda path: path.stat().st_size
    )


@row(12, "queue file truncated at every 4 KiB", "prefix kept; lost against reported", "minutes")
def truncated(ground: Ground) -> Result:
    """The largest file of the queue ends at each page border in turn."""

    def cut(page: int) -> Damage:
        def damage(queue: Path) -> None:
            path = _segments(queue)[-1]
            with path.open("rb+") as file:
                file.truncate(min(page * PAGE_BYTES, path.stat().st_size))

        return damage

    return after_damage(ground, [cut(page) for page in range(1, 25)], "truncations")


@row(13, "1,000 random byte flips in the queue file", "all detected", "minutes")
def flipped(ground: Ground) -> Result:
    """Bytes of the queue's largest file are changed, five in each of 20 copies, then 45 in each of 20."""
    rng = random.Random(13)

    def flip(count: int) -> Damage:
        def damage(queue: Path) -> None:
            path = _segments(queue)[-1]
            content = bytearray(path.read_bytes())
            for at in rng.sample(range(len(content)), count):
                content[at] ^= rng.randrange(1, 256)
            path.write_bytes(content)

        return damage

    return after_damage(ground, [flip(5)] * 20 + [flip(45)] * 20, "damaged files (1,000 flips)")


@row(14, "queue file empty, random, or a directory", "moved aside, starts; s")
def not_a_queue(ground: Ground) -> Result:
    """Instead of the queue's file there is something else."""

    def empty(queue: Path) -> None:
        _segments(queue)[-1].write_bytes(b"")

    def noise(queue: Path) -> None:
        _segments(queue)[-1].write_bytes(random.Random(14).randbytes(100_000))

    def directory(queue: Path) -> None:
        path = _segments(queue)[-1]
        path.unlink()
        path.mkdir()

    return after_damage(ground, [empty, noise, directory], "other things in its place")


@row(15, "a second recorder on the same queue", "refused with a clear message")
def second_recorder(ground: Ground) -> Result:
    """Somebody starts the recorder twice: the first goes on, the second says what is the case."""
    with (
        Influxd(ground.directory / "influxd") as influxd,
        RecorderProcess(ground.directory / "recorder", influxd.url) as recorder,
        Feeder(recorder.pcs_port) as feeder,
    ):
        wait_until(lambda: stored_count(influxd) > 20)
        second = RecorderProcess(ground.directory / "second", influxd.url)
        second.env["ESS_DATA_DIR"] = str(recorder.data_dir)
        began = time.monotonic()
        second.start(wait=False)
        assert second.process is not None
        code = second.process.wait(timeout=TIMEOUT_SECONDS)
        seconds = time.monotonic() - began
        said = second.log.read_text()
        assert code == 1, said
        assert "another recorder uses the queue" in said
        assert "Traceback" not in said
        feeder.stop()
        settle(recorder, influxd, feeder)
        return report(recorder, influxd, feeder, f"refused after {seconds:.1f} s with exit code {code}")


@row(34, "one home for a day, default settings", "at most 0.5 GB written to disk", "minutes")
def bytes_a_day(ground: Ground) -> Result:
    """A stream at 1 Hz with InfluxDB there, then away; what is written in minutes is scaled to a day."""
    minutes = 2
    with (
        Influxd(ground.directory / "influxd") as influxd,
        RecorderProcess(ground.directory / "recorder", influxd.url) as recorder,
        Feeder(recorder.pcs_port, speed=1, ago_seconds=1) as feeder,
    ):
        wait_until(lambda: stored_count(influxd) > 5)
        megabytes_a_day = []
        for away in (False, True):
            if away:
                influxd.stop()
            before, began = recorder.written_bytes(), time.monotonic()
            feeder.wait_for(minutes * 60)
            seconds = time.monotonic() - began
            megabytes_a_day.append((recorder.written_bytes() - before) / seconds * DAY_SECONDS / 1e6)
        influxd.start()
        feeder.stop()
        settle(recorder, influxd, feeder)
        assert max(megabytes_a_day) <= 500, megabytes_a_day
        figure = (
            f"{megabytes_a_day[0]:.0f} MB a day with InfluxDB there, {megabytes_a_day[1]:.0f} MB with it "
            f"away (measured over {minutes} minutes each)"
        )
        return report(recorder, influxd, feeder, figure)
