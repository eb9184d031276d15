"""Faults of the network between the recorder and InfluxDB."""

import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.feeder import Feeder
from tests.faults.matrix import CannotInjectError, Ground, Result, row
from tests.faults.recorder_process import RecorderProcess
from tests.faults.truth import report, settle, stored_count
from tests.support.influxd import Influxd, wait_until

ANSWER_WITHIN_SECONDS = 2


class RemoteInfluxd(Influxd):
    """An `influxd` in a network namespace of its own, at the other end of a cable that can lose its way."""

    def __init__(self, directory: Path, namespace: str, address: str, peer: str) -> None:
        super().__init__(directory)
        self.sections = {"http": {"bind-address": f'"{address}:{self.port}"'}}
        self._namespace = namespace
        self._address = address
        self._peer = peer

    @property
    def url(self) -> str:
        """Where the server listens, without a slash at the end."""
        return f"http://{self._address}:{self.port}"

    def command(self) -> list[str]:
        """The command that starts the server in its namespace."""
        return ["ip", "netns", "exec", self._namespace, *super().command()]

    def lose_route(self) -> None:
        """Throw away without a word whatever the server sends, until `find_route`."""
        _ip("-n", self._namespace, "route", "add", "blackhole", f"{self._peer}/32")

    def find_route(self) -> None:
        """Let the server's answers come back."""
        _ip("-n", self._namespace, "route", "del", "blackhole", f"{self._peer}/32")


def _ip(*arguments: str) -> None:
    tried = subprocess.run(["ip", *arguments], capture_output=True, check=False)
    if tried.returncode != 0:
        raise CannotInjectError(f"no network namespaces here: {tried.stderr.decode().strip()}")


@contextmanager
def remote_influxd(directory: Path) -> Iterator[RemoteInfluxd]:
    """A server at the other end of a pair of interfaces, for as long as the block.

    Raises:
        CannotInjectError: the kernel or its settings do not allow it.
    """
    name = secrets.token_hex(3)
    namespace, near, far = f"ess-{name}", f"ess-n{name}", f"ess-f{name}"
    # 198.18.0.0/15 is set aside for measuring (RFC 2544), so it is nobody's own network.
    network = f"198.18.{secrets.randbelow(256)}.{secrets.randbelow(64) * 4}"
    begin, _, last = network.rpartition(".")
    here, there = (f"{begin}.{int(last) + number}" for number in (1, 2))
    _ip("netns", "add", namespace)
    try:
        _ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", namespace)
        try:
            _ip("address", "add", f"{here}/30", "dev", near)
            _ip("link", "set", near, "up")
            _ip("-n", namespace, "address", "add", f"{there}/30", "dev", far)
            _ip("-n", namespace, "link", "set", far, "up")
            _ip("-n", namespace, "link", "set", "lo", "up")
            with RemoteInfluxd(directory, namespace, there, here) as influxd:
                yield influxd
        finally:
            _ip("link", "del", near)
    finally:
        _ip("netns", "del", namespace)


@row(7, "route blackholed in a network namespace", "time-out fires; s")
def blackholed(ground: Ground) -> Result:
    """InfluxDB's answers get lost without a word while the stream goes on, and come back later."""
    away_seconds = 60 if ground.full else 8
    changes = {"influxdb": {"timeout_seconds": ANSWER_WITHIN_SECONDS}, "writer": {"retry_max_seconds": 4}}
    with (
        remote_influxd(ground.directory / "influxd") as influxd,
        RecorderProcess(ground.directory / "recorder", influxd.url, changes) as recorder,
        Feeder(recorder.pcs_port) as feeder,
    ):
        wait_until(lambda: stored_count(influxd) > 20)
        influxd.lose_route()
        began = time.monotonic()
        wait_until(lambda: recorder.influx()["state"] == "retrying")
        told_seconds = time.monotonic() - began
        feeder.wait_for(away_seconds * 20)
        sent = len(feeder.sent)
        wait_until(lambda: recorder.counted("points") >= sent)
        waiting = recorder.influx()["queue_points"]
        assert recorder.influx()["state"] == "retrying"
        influxd.find_route()
        found = time.monotonic()
        wait_until(lambda: recorder.influx()["state"] == "writing")
        back_seconds = time.monotonic() - found
        feeder.stop()
        settle(recorder, influxd, feeder)
        return report(
            recorder, influxd, feeder,
            f"told after {told_seconds:.1f} s with a time-out of {ANSWER_WITHIN_SECONDS} s; {waiting} points "
            f"waited; writing again {back_seconds:.1f} s after the route was back",
        )  # fmt: skip
