"""Faults of InfluxDB: stopped, killed, full, refusing, replaced."""
import time

from tests.faults.feeder import Feeder
from tests.faults.matrix import Ground, Result, row
from tests.faults.recorder_process import RecorderProcess
from tests.faults.truth import report, settle, stored_count
from tests.support.influxd import Influxd, wait_until


@row(4, "SIGSTOP influxd for minutes", "receiving unaffected; s to catch up")
def suspended(ground: Ground) -> Result:
    """The database stops answering with its connections open, and goes on later."""
    away_seconds = 120 if ground.full else 6
    with Influxd(ground.directory / "influxd") as influxd, RecorderProcess(
        ground.directory / "recorder", influxd.url, {"influxdb": {"timeout_seconds": 2}}
    ) as recorder, Feeder(recorder.pcs_port) as feeder:
        wait_until(lambda: stored_count(influxd) > 20)
        influxd.suspend()
        feeder.wait_for(away_seconds * 20, away_seconds + 30)
        decoded = recorder.counted("points")
        assert decoded >= len(feeder.sent) - 60
        waiting = recorder.influx()["queue_points"]
        influxd.resume()
        feeder.stop()
        seconds = settle(recorder, influxd, feeder)
        return report(
            recorder, influxd, feeder,
            f"{waiting} points waited after {away_seconds} s; caught up in {seconds:.1f} s",
        )  # fmt: skip


@row(5, "kill -9 influxd during writes", "everything it acknowledged is there")
def killed(ground: Ground) -> Result:
    """The database dies while it is written to, several times."""
    with Influxd(ground.directory / "influxd") as influxd, RecorderProcess(
        ground.directory / "recorder", influxd.url, {"writer": {"flush_after_seconds": 0.1}}
    ) as recorder, Feeder(recorder.pcs_port, speed=100) as feeder:
        times = 10 if ground.full else 2
        for _ in range(times):
            goal = stored_count(influxd) + 50
            wait_until(lambda goal=goal: stored_count(influxd) > goal)  # type: ignore[misc]
            influxd.kill()
            feeder.wait_for(50)
            influxd.start()
        wait_until(lambda: recorder.influx()["state"] == "writing", 60)
        feeder.stop()
        seconds = settle(recorder, influxd, feeder)
        return report(recorder, influxd, feeder, f"{times} kills; drained {seconds:.1f} s after the last")
