"""Faults of what comes in: damaged, impossible, too long, from two places at once."""

import random
import re
import socket
import time
from dataclasses import replace
from itertools import islice

from recorder.simulator.faults import FaultRates
from recorder.simulator.stream import ExpectedSample
from tests.faults.feeder import Fed, Feeder, Sent, sent_now, site_stream
from tests.faults.matrix import CannotInjectError, Ground, Result, row
from tests.faults.recorder_process import RecorderProcess
from tests.faults.truth import report, settle, stored_count
from tests.support.controller import Controller, Moment
from tests.support.influxd import TIMEOUT_SECONDS, Influxd, wait_until

MIB = 1 << 20
WRONG_CONFIGURATION = 2
RSS_BOUND_MB = 200
# So long that a busy machine has reconnected before.
IDLE_CLOSE_SECONDS = 20

_READ_BYTE = re.compile(rb"\\x([0-9a-f]{2})")


@row(23, "a 1 GiB line without a newline; 1 GB of random bytes", "bounded, no false frame; RSS")
def floods_of_bytes(ground: Ground) -> Result:
    """Two connections bring nonsense without end while the controller goes on.

    The gates that would end them, or read them slowly, are opened.
    """
    mebibytes = 1024 if ground.full else 24
    open_gates = {"listeners": {"first_frame_within_seconds": 3600, "max_bytes_per_second": 1 << 30}}
    with (
        Influxd(ground.directory / "influxd") as influxd,
        RecorderProcess(ground.directory / "recorder", influxd.url, open_gates) as recorder,
        Feeder(recorder.pcs_port, speed=10) as feeder,
    ):
        wait_until(lambda: stored_count(influxd) > 10)
        began = time.monotonic()
        rng = random.Random(23)
        for line_of_hex in (True, False):
            with socket.create_connection(("127.0.0.1", recorder.powermeter_port)) as flood:
                for _ in range(mebibytes):
                    flood.sendall(b"\\x41" * (MIB // 4) if line_of_hex else rng.randbytes(MIB))
        seconds = time.monotonic() - began
        feeder.wait_for(20)
        feeder.stop()
        settle(recorder, influxd, feeder)
        assert recorder.counted("frames", "powermeter") == 0
        recorder.note_peak()
        assert recorder.peak_rss_mb < RSS_BOUND_MB
        figure = f"2 x {mebibytes} MiB in {seconds:.0f} s, no frame, {recorder.peak_rss_mb:.0f} MB"
        return report(recorder, influxd, feeder, figure)


@row(24, "wrong CRC at each byte position", "no point")
def wrong_crc(ground: Ground) -> Result:
    """In the n-th second the n-th byte of what was read is another one: of the PCS's answer, of the scan."""
    sent: list[Sent] = []
    doubtful: list[ExpectedSample] = []
    damaged_pcs_ns: set[int] = set()
    texts: tuple[list[bytes], list[bytes]] = ([], [])
    for position, second in enumerate(islice(site_stream(int(time.time()) - 20_000, both=False), 400)):
        pcs, meter = second.texts
        # A second without damage after each one with it shows that the next sample is right again.
        damage = position % 2 == 0
        truth = {sample.device: sample for sample in second.truth}
        if damage and (flipped := _flip_read_byte(pcs, position // 2)) is not None:
            pcs = flipped
            damaged_pcs_ns.add(truth["pcs"].at_ns)
        else:
            sent += sent_now([truth["pcs"]])
        if damage and (flipped := _flip_read_byte(meter, position // 2)) is not None:
            meter = flipped
            doubtful.append(truth["powermeter"])
        else:
            sent += sent_now([truth["powermeter"]])
        texts[0].append(pcs)
        texts[1].append(meter)
    assert len(damaged_pcs_ns) >= 189
    with (
        Influxd(ground.directory / "influxd") as influxd,
        RecorderProcess(ground.directory / "recorder", influxd.url) as recorder,
    ):
        recorder.send(b"".join(texts[0]), recorder.pcs_port)
        recorder.send(b"".join(texts[1]), recorder.powermeter_port)
        settle(recorder, influxd, Fed(sent))
        assert not damaged_pcs_ns & {row["time"] for row in influxd.query("SELECT * FROM pcs", "ess")}
        figure = (
            f"{len(damaged_pcs_ns)} positions of the PCS's answer and {len(doubtful)} of the meter's scan: "
            "no value of a damaged frame"
        )
        return report(recorder, influxd, Fed(sent, doubtful), figure)


def _flip_read_byte(text: bytes, position: int) -> bytes | None:
    """The text with one bit of the byte at `position` of all that was read flipped; None past the end."""
    found = 0
    lines = text.split(b"\n")
    for number, line in enumerate(lines):
        if b"read(" not in line:
            continue
        escapes = list(_READ_BYTE.finditer(line))
        if position < found + len(escapes):
            at = escapes[position - found]
            value = int(at[1], 16) ^ (1 << position % 8)
            lines[number] = line[: at.start()] + b"\\x%02x" % value + line[at.end() :]
            return b"\n".join(lines)
        found += len(escapes)
    return None


@row(25, "interleaved pids, split lines, stale bytes", "right frames; frames until back in step")
def out_of_step(ground: Ground) -> Result:
    """A bus with every fault, in pieces of any size: what is certain is stored, nothing else is right."""
    rates = FaultRates({"crc": 0.01, "unanswered": 0.01, "stale": 0.01, "cut": 0.005, "lost": 0.005,
                        "garbage": 0.02, "eagain": 0.1, "foreign": 0.2, "restart": 0.005})  # fmt: skip
    seconds = list(islice(site_stream(int(time.time()) - 20_000, rates), 5_000 if ground.full else 600))
    text = b"".join(second.texts[0] for second in seconds)
    truth = [sample for second in seconds for sample in second.truth]
    fed = Fed(
        sent_now(sample for sample in truth if sample.certain),
        [sample for sample in truth if not sample.certain],
    )
    rng = random.Random(25)
    with (
        Influxd(ground.directory / "influxd") as influxd,
        RecorderProcess(ground.directory / "recorder", influxd.url) as recorder,
    ):
        with socket.create_connection(("127.0.0.1", recorder.pcs_port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            start = 0
            while start < len(text):
                end = start + rng.randrange(1, 3_000)
                connection.sendall(text[start:end])
                start = end
        settle(recorder, influxd, fed)
        stored = stored_count(influxd, "powermeter", "active_power") + stored_count(influxd)
        figure = (
            f"{len(fed.doubtful)} samples of {len(truth)} in doubt, of which "
            f"{max(0, len(truth) - stored)} brought nothing"
        )
        return report(recorder, influxd, fed, figure)


@row(26, "valid CRC, impossible values (SOC 400 %, 1 MW)", "rejected by the profile's range, and counted")
def impossible_values(ground: Ground) -> Result:
    """Every third answer has a state of charge of 400 %: the rest of it is stored, that value is not.

    Then a roof brings 1 MW on each string.
    """
    with (
        Influxd(ground.directory / "influxd") as influxd,
        RecorderProcess(ground.directory / "recorder", influxd.url) as recorder,
        Feeder(recorder.pcs_port, speed=0, seconds=600, faults=FaultRates({"implausible": 0.33})) as feeder,
    ):
        feeder.finish()
        settle(recorder, influxd, feeder)
        impossible = sum(
            entry.sample.device == "pcs" and "battery_soc" not in entry.sample.fields for entry in feeder.sent
        )
        counted = recorder.counted("implausible_values")
        assert counted >= impossible > 100
        result = report(recorder, influxd, feeder, "")
        stored = stored_count(influxd)
        with Controller(recorder.pcs_port, Moment(pv_w=2_000_000, battery_w=0, home_w=500)):
            wait_until(lambda: stored_count(influxd) >= stored + 3)
        highest = influxd.query('SELECT max("pv1_power") AS pv, max("active_power") AS ac FROM "pcs"', "ess")[
            0
        ]
        assert max(highest["pv"], highest["ac"]) < 10_000, highest
        of_power = recorder.counted("implausible_values") - counted
        assert of_power >= 3 * 3
        figure = (
            f"{impossible} answers of 400 %: {counted:.0f} values left out and counted; "
            f"then 1 MW: {of_power:.0f} values"
        )
        return replace(result, figure=figure)


@row(27, "half-open TCP; the controller reboots", "idle close, new connection accepted at once; s")
def half_open(ground: Ground) -> Result:
    """The controller's power fails: its connection stays open here, and it comes back on a new one."""
    with (
        Influxd(ground.directory / "influxd") as influxd,
        RecorderProcess(
            ground.directory / "recorder",
            influxd.url,
            {"listeners": {"idle_close_seconds": IDLE_CLOSE_SECONDS}},
        ) as recorder,
    ):
        with Feeder(recorder.pcs_port) as before:
            wait_until(lambda: stored_count(influxd) > 20)
            try:
                before.vanish()
            except PermissionError:
                raise CannotInjectError("a socket cannot be dropped silently without CAP_NET_ADMIN") from None
        began = time.monotonic()
        wait_until(lambda: recorder.counted("points") == len(before.sent))
        known = recorder.counted("frames")
        assert recorder.counted("connections") == 1
        with Feeder(recorder.pcs_port, ago_seconds=10_000) as after:
            wait_until(lambda: recorder.counted("frames") > known)
            served_seconds = time.monotonic() - began
            assert recorder.counted("connections") == 2
            wait_until(lambda: recorder.counted("connections") == 1)
            closed_seconds = time.monotonic() - began
            after.stop()
        fed = Fed(before.sent + after.sent)
        settle(recorder, influxd, fed)
        figure = f"served again in {served_seconds:.2f} s; old connection closed after {closed_seconds:.1f} s"
        return report(recorder, influxd, fed, figure)


@row(28, "two streams of the same device at once", "each sample is stored once, the others counted")
def two_streams(ground: Ground) -> Result:
    """The same text comes twice, on two connections: one of them owns each device."""
    start_s = int(time.time()) - 20_000
    with (
        Influxd(ground.directory / "influxd") as influxd,
        RecorderProcess(ground.directory / "recorder", influxd.url) as recorder,
        Feeder(recorder.pcs_port, seconds=400, speed=100, stream=site_stream(start_s)) as one,
        Feeder(recorder.powermeter_port, seconds=400, speed=100, stream=site_stream(start_s)) as other,
    ):
        one.finish()
        other.finish()
        names = ("points", "duplicate_samples")
        both = 2 * len(one.sent)
        wait_until(
            lambda: (
                sum(recorder.counted(name) + recorder.counted(name, "powermeter") for name in names) == both
            )
        )
        settle(recorder, influxd, one)
        points, duplicates = (
            recorder.counted(name) + recorder.counted(name, "powermeter")
            for name in ("points", "duplicate_samples")
        )
        assert points == len(one.sent)
        assert duplicates == len(one.sent)
        return report(recorder, influxd, one, f"{points:.0f} samples stored, {duplicates:.0f} duplicates")


@row(33, "newline, comma, quote, backslash in tag values and names", "no line-protocol injection")
def names_that_bite(ground: Ground) -> Result:
    """A site's name is made of everything that line protocol uses; one with a newline is no name at all."""
    name = "a b,c=d\"e'f\\ #x,site=evil pcs=1"
    with Influxd(ground.directory / "influxd") as influxd:
        with (
            RecorderProcess(ground.directory / "recorder", influxd.url, ESS_SITE=name) as recorder,
            Feeder(recorder.pcs_port, speed=0, seconds=200) as feeder,
        ):
            feeder.finish()
            settle(recorder, influxd, feeder)
            measurements = {row["name"] for row in influxd.query("SHOW MEASUREMENTS", "ess")}
            sites = {row["value"] for row in influxd.query('SHOW TAG VALUES WITH KEY = "site"', "ess")}
            assert sites == {name.replace("\\", "/")}
            assert "evil" not in str(measurements)
            result = report(recorder, influxd, feeder, f"one site: {name.replace(chr(92), '/')}")
        refused = RecorderProcess(ground.directory / "refused", influxd.url, ESS_SITE="a\nb,site=evil")
        refused.start(wait=False)
        assert refused.process is not None
        assert refused.process.wait(timeout=TIMEOUT_SECONDS) == WRONG_CONFIGURATION
        assert "site" in refused.log.read_text()
        return result
