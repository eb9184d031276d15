"""The demo as a user meets it: an address at once, a page behind it, flows in the terminal."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.influxd import free_port, wait_until
from tests.support.service import ROOT, ess_recorder


@contextmanager
def demo(*options: str) -> Iterator[str]:
    """Run the demo, and give the address that it prints."""
    command = [sys.executable, "-m", "recorder", "demo", *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        yield process.stdout.readline().removeprefix("The live page: ").strip()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
    assert process.wait(timeout=30) == 0


def ask(address: str, path: str) -> Any:
    with urllib.request.urlopen(f"{address}{path}", timeout=10) as answer:
        return json.load(answer)


def flows(address: str) -> list[dict[str, Any]]:
    return [point for point in ask(address, "api/v1/latest")["points"] if point["measurement"] == "flow"]


def test_demo_shows_flows_and_averages() -> None:
    """Twenty seconds of the demo show energy flows, and means of ten from InfluxDB's own queries."""
    done = ess_recorder("demo", "--seconds", "20", "--port", "0")
    assert done.returncode == 0, done.stderr
    assert b"PV > " in done.stdout
    assert b"mean of ten: pv_power" in done.stdout
    assert b"points written to InfluxDB" in done.stdout


def test_demo_prints_the_address_of_a_page_with_a_past_and_a_present() -> None:
    """Behind it are the page, live samples with real stamps, and a history of the days before."""
    with demo("--port", "0", "--day-minutes", "5") as address:
        with urllib.request.urlopen(address, timeout=10) as answer:
            assert b"<title>" in answer.read()
        wait_until(lambda: bool(flows(address)), 30)
        assert abs(flows(address)[0]["time"] - time.time()) < 10
        history = ask(address, f"api/v1/history?from={time.time() - 6 * 86400:.0f}&step=1h&fields=flow.home")
        assert len(history["time"]) >= 6 * 24
        assert None not in history["series"]["flow.home"]["mean"]
        assert history["totals"]["energy"]["pv"] > 1


def test_demo_takes_another_port_where_its_own_is_in_use() -> None:
    """A port that somebody has is no reason to fail."""
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        with demo("--port", str(port)) as address:
            assert not address.endswith(f":{port}/")
            wait_until(lambda: bool(flows(address)), 40)


def test_demo_copes_with_faults() -> None:
    """With faults on the buses samples still come, and what went wrong is counted for the page."""
    with demo("--port", "0", "--faults", "crc=0.2") as address:
        wait_until(
            lambda: any(one["counts"].get("crc_errors") for one in ask(address, "api/v1/health")["sources"]),
            40,
        )
        wait_until(lambda: bool(flows(address)), 40)
