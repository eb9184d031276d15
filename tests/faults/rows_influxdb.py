"""Faults of InfluxDB: stopped, killed, full, refusing, replaced."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice

from recorder.spool.durable import DurableQueue, Limits
from tests.faults.feeder import Fed, Feeder, Sent, sent_now, site_stream
from tests.faults.file_systems import SmallInfluxd, fill
from tests.faults.matrix import Ground, Result, row
from tests.faults.recorder_process import RecorderProcess
from tests.faults.truth import report, settle, stored_count
from tests.influx.misfit import misfit
from tests.support.influxd import TIMEOUT_SECONDS, Influxd, wait_until

PAUSED = "paused"


@row(4, "SIGSTOP influxd for minutes", "receiving unaffected; s to catch up")
def suspended(ground: Ground) -> Result:
    """The database stops answering with its connections open, and goes on later."""
    away_seconds = 120 if ground.full else 6
    with (
        Influxd(ground.directory / "influxd") as influxd,
        RecorderProcess(
            ground.directory / "recorder", influxd.url, {"influxdb": {"timeout_seconds": 2}}
        ) as recorder,
        Feeder(recorder.pcs_port) as feeder,
    ):
        wait_until(lambda: stored_count(influxd) > 20)
        influxd.suspend()
        feeder.wait_for(away_seconds * 20)
        sent = len(feeder.sent)
        wait_until(lambda: recorder.counted("points") >= sent)
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
    with (
        Influxd(ground.directory / "influxd") as influxd,
        RecorderProcess(
            ground.directory / "recorder", influxd.url, {"writer": {"flush_after_seconds": 0.1}}
        ) as recorder,
        Feeder(recorder.pcs_port, speed=100) as feeder,
    ):
        times = 10 if ground.full else 2
        for _ in range(times):
            goal = stored_count(influxd) + 50
            wait_until(lambda goal=goal: stored_count(influxd) > goal)  # type: ignore[misc]
            influxd.kill()
            feeder.wait_for(50)
            influxd.start()
            wait_until(lambda: recorder.influx()["state"] == "writing")
        feeder.stop()
        seconds = settle(recorder, influxd, feeder)
        return report(
            recorder, influxd, feeder, f"{times} kills; queue empty {seconds:.1f} s after the last second"
        )


@row(8, "influxd on a full tmpfs", "kept, delivered later")
def disk_full(ground: Ground) -> Result:
    """The database's file system fills up; somebody makes room, and starts influxd again.

    influxd 1.6.7 goes on refusing writes after its disk was full, until it is started anew, and shows points
    that it refused until then.
    """
    with (
        SmallInfluxd(ground.directory / "influxd", 32) as influxd,
        RecorderProcess(ground.directory / "recorder", influxd.url) as recorder,
        Feeder(recorder.pcs_port, speed=100) as feeder,
    ):
        wait_until(lambda: stored_count(influxd) > 50)
        fill(influxd.ballast)
        wait_until(lambda: recorder.influx()["retries"] >= 2)
        problem = recorder.influx()["state"]
        feeder.wait_for(300)
        wait_until(lambda: recorder.influx()["queue_points"] > 300)
        waiting = recorder.influx()["queue_points"]
        influxd.ballast.unlink()
        influxd.stop()
        influxd.start()
        feeder.stop()
        seconds = settle(recorder, influxd, feeder)
        return report(
            recorder, influxd, feeder,
            f"{problem} with {waiting} points; all there {seconds:.1f} s after influxd had room and a start",
        )  # fmt: skip


def writes(influxd: Influxd) -> int:
    """How many write requests the server has counted."""
    return int(influxd.query("SHOW STATS FOR 'httpd'")[0]["writeReq"])


@row(
    16,
    "a field-type conflict and a parse error in one batch of 5,000 lines",
    "only they are dead-lettered; at most 30 requests",
)
def type_conflict(ground: Ground) -> Result:
    """One meter point among the PCS's points has a field of another type than its series.

    No input makes the recorder write a line that InfluxDB cannot parse: one is put into its queue between
    two runs, as a recorder of another version could have left it.
    """
    seconds = list(islice(site_stream(int(time.time()) - 20_000, both=False), 4_990))
    meter_text = seconds[0].texts[1]
    sent = sent_now(
        sample
        for number, second in enumerate(seconds)
        for sample in second.truth
        if sample.device == "pcs" or number == 0
    )
    begin_ns = seconds[0].at_ns
    with (
        Influxd(ground.directory / "influxd") as influxd,
        RecorderProcess(ground.directory / "recorder", influxd.url) as recorder,
    ):
        wait_until(lambda: len(influxd.query("SHOW CONTINUOUS QUERIES")) >= 8)
        influxd.write(f"powermeter,site=other active_power=1i {begin_ns}".encode(), "ess")
        influxd.stop()
        recorder.send(meter_text, recorder.powermeter_port)
        wait_until(lambda: recorder.counted("points", "powermeter") == 1)
        recorder.send(b"".join(second.texts[0] for second in seconds))
        wait_until(lambda: recorder.counted("points") == len(seconds))
        recorder.stop()
        queue = DurableQueue(recorder.data_dir / "queue", Limits())
        queue.open()
        queue.append([b"pcs,site=home,device=pcs active_power= 1"])
        queue.close()
        influxd.start()
        before = writes(influxd)
        told_before = {row["time"] for row in influxd.query("SELECT * FROM recorder", "ess")}
        recorder.start()
        settle(recorder, influxd, Fed(sent))
        # The recorder's own health goes every ten seconds, however long the rest takes.
        own = {row["time"] for row in influxd.query("SELECT * FROM recorder", "ess")} - told_before
        requests = writes(influxd) - before - len(own)
        letters = (recorder.data_dir / "dead-letters/rejected-000001.jsonl").read_text()
        influxd.query("DELETE FROM powermeter WHERE site = 'other'", "ess")
        assert recorder.influx()["rejected"] == letters.count("\n") == 2
        assert "field type conflict" in letters
        assert "unable to parse" in letters
        assert requests <= 30, requests
        return report(
            recorder, influxd, Fed(sent),
            f"1 of {len(sent)} samples and the line that is none rejected, in {requests} requests",
            dead_lettered=1,
        )  # fmt: skip


@row(17, "points older than the retention policy", "counted")
def too_old(ground: Ground) -> Result:
    """A stream brings samples that InfluxDB no longer keeps, then samples that it does."""
    with (
        Influxd(ground.directory / "influxd") as influxd,
        RecorderProcess(ground.directory / "recorder", influxd.url, {"retention": {"raw": "1h"}}) as recorder,
        Feeder(recorder.pcs_port, seconds=200, ago_seconds=10_800, speed=0) as old,
    ):
        old.finish()
        wait_until(lambda: recorder.counted("points") == len(old.sent))
        with Feeder(recorder.pcs_port, seconds=200, ago_seconds=900, speed=0) as new:
            new.finish()
        settle(recorder, influxd, new)
        rejected = int(recorder.influx()["rejected"])
        assert len(old.sent) <= rejected <= 1.6 * len(old.sent)
        figure = f"{rejected} lines rejected and counted: {len(old.sent)} samples and their flows"
        return report(recorder, influxd, Fed(old.sent + new.sent), figure, dead_lettered=len(old.sent))


@row(18, "authentication switched on, password changed", "nothing lost, recovers; s", "minutes")
def password_changed(ground: Ground) -> Result:
    """The database begins to ask for a password, then knows another one, and at last the first again."""
    login = {"username": "writer", "password": "first"}
    with (
        Influxd(ground.directory / "influxd") as influxd,
        RecorderProcess(ground.directory / "recorder", influxd.url, {"influxdb": login}) as recorder,
        Feeder(recorder.pcs_port) as feeder,
    ):
        wait_until(lambda: stored_count(influxd) > 20)
        influxd.create_admin("writer", "first")
        influxd.stop()
        influxd.auth = True
        influxd.start()
        before = stored_count(influxd)
        wait_until(lambda: stored_count(influxd) > before + 100)
        influxd.query("SET PASSWORD FOR writer = 'second'")
        influxd.password = "second"
        wait_until(lambda: recorder.influx()["state"] == PAUSED)
        assert any("password" in problem for problem in recorder.health()[1]["problems"])
        feeder.wait_for(200)
        influxd.query("SET PASSWORD FOR writer = 'first'")
        influxd.password = "first"
        began = time.monotonic()
        wait_until(lambda: recorder.influx()["state"] == "writing")
        seconds = time.monotonic() - began
        feeder.stop()
        settle(recorder, influxd, feeder)
        return report(recorder, influxd, feeder, f"wrote again {seconds:.0f} s after the password was right")


@row(19, "DROP DATABASE while running", "recreated if allowed; what came later is there")
def database_dropped(ground: Ground) -> Result:
    """Somebody drops the database; what was in it went with it, what comes after is stored."""
    with (
        Influxd(ground.directory / "influxd") as influxd,
        RecorderProcess(ground.directory / "recorder", influxd.url) as recorder,
        Feeder(recorder.pcs_port) as feeder,
    ):
        wait_until(lambda: stored_count(influxd) > 20)
        influxd.query('DROP DATABASE "ess"')
        dropped_at = time.monotonic()
        wait_until(lambda: stored_count(influxd) > 50)
        seconds = time.monotonic() - dropped_at
        feeder.wait_for(100)
        feeder.stop()
        settle(recorder, influxd, feeder)
        assert len(influxd.query("SHOW CONTINUOUS QUERIES")) >= 8
        later = [entry for entry in feeder.sent if entry.at > dropped_at]
        gone = [entry.sample for entry in feeder.sent if entry.at <= dropped_at]
        return report(
            recorder, influxd, Fed(later, gone),
            f"stored again within {seconds:.1f} s, continuous queries included",
        )  # fmt: skip


@row(20, "max-body-size of 1 KB; max-concurrent-write-limit of 1", "split; backs off")
def limits(ground: Ground) -> Result:
    """The server takes small bodies only, and one write at a time, whose place somebody else holds."""
    sections = {
        "http": {
            "max-body-size": "1000",
            "max-concurrent-write-limit": "1",
            "max-enqueued-write-limit": "1",
            "enqueued-write-timeout": '"1s"',
        }
    }
    with (
        Influxd(ground.directory / "influxd", sections=sections) as influxd,
        RecorderProcess(ground.directory / "recorder", influxd.url, {"writer": {"gzip": False}}) as recorder,
        Feeder(recorder.pcs_port, speed=20) as feeder,
    ):
        wait_until(lambda: stored_count(influxd) > 50)
        with socket.create_connection(("127.0.0.1", influxd.port)) as holder:
            holder.sendall(b"POST /write?db=ess HTTP/1.1\r\nHost: influxd\r\nContent-Length: 9\r\n\r\nx")
            wait_until(lambda: recorder.influx()["retries"] >= 2)
            retries = recorder.influx()["retries"]
        feeder.wait_for(50)
        feeder.stop()
        settle(recorder, influxd, feeder)
        return report(
            recorder, influxd, feeder,
            f"bodies of at most 1,000 bytes; backed off {retries} times while the only place was taken",
        )  # fmt: skip


@contextmanager
def babbler() -> Iterator[str]:
    """The URL of a server that answers everything with bytes that are no HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def babble() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, suppress(OSError):
                        connection.recv(65536)
                        connection.sendall(b"\x00\xff220 mail.example ESMTP\r\n" * 10)

        thread = threading.Thread(target=babble, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=TIMEOUT_SECONDS)


@row(21, "something else on InfluxDB's port: 200, 302, garbage", "nothing acknowledged")
def something_else(ground: Ground) -> Result:
    """Three programs that are no InfluxDB answer in turn; then the real one does, at the same recorder's."""
    sent: list[Sent] = []
    with ExitStack() as stack:
        influxd = stack.enter_context(Influxd(ground.directory / "influxd"))
        strangers = (
            misfit(200, b"{}"),
            misfit(302, b"", {"Location": f"{influxd.url}/write?db=ess"}),
            babbler(),
        )
        peak = 0.0
        for number, stranger in enumerate(strangers):
            with stranger as url, RecorderProcess(ground.directory / "recorder", url) as recorder:
                ago = 20_000 - 1_000 * number
                with Feeder(recorder.pcs_port, speed=0, seconds=100, ago_seconds=ago) as feeder:
                    feeder.finish()
                sent += feeder.sent
                wait_until(lambda recorder=recorder: recorder.influx()["retries"] >= 1)  # type: ignore[misc]
                wait_until(lambda recorder=recorder: recorder.counted("points") == 200)  # type: ignore[misc]
                assert recorder.influx()["written"] == 0
                assert recorder.influx()["queue_points"] >= len(sent)
                recorder.stop()
                peak = max(peak, recorder.peak_rss_mb)
        with RecorderProcess(ground.directory / "recorder", influxd.url) as recorder:
            recorder.peak_rss_mb = peak
            settle(recorder, influxd, Fed(sent))
            return report(
                recorder, influxd, Fed(sent), "0 lines acknowledged by 3 strangers, all written by InfluxDB"
            )
