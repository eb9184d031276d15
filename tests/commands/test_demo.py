"""The demo as a user meets it: an address at once, a page behind it, flows in the terminal."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from tests.support.influxd import TIMEOUT_SECONDS, free_port, wait_until
from tests.support.service import ROOT, ess_recorder


@contextmanager
def demo(*options: str, **env: str) -> Iterator[str]:
    """Run the demo, give the address that it prints, and end it whatever became of the test."""
    command = [sys.executable, "-m", "recorder", "demo", *options]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **env}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().removeprefix("The live page: ").strip()
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 0


@contextmanager
def asked_who() -> Iterator[tuple[str, set[str | None]]]:
    """Run a server that says it is InfluxDB and lets nobody in; its URL, and who asked."""
    shown: set[str | None] = set()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown.add(self.headers["Authorization"])
            self.send_response(204 if self.path == "/ping" else 401)
            self.send_header("X-Influxdb-Version", "1.8.10")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET  # noqa: N815  # the library's name

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", shown
        finally:
            server.shutdown()
            thread.join()


def ask(address: str, path: str) -> Any:
    with urllib.request.urlopen(f"{address}{path}", timeout=TIMEOUT_SECONDS) as answer:
        return json.load(answer)


def flows(address: str) -> list[dict[str, Any]]:
    return [point for point in ask(address, "api/v1/latest")["points"] if point["measurement"] == "flow"]


def test_demo_shows_flows_and_averages() -> None:
    """The demo shows energy flows, means of ten from InfluxDB's own queries, and a sum at its end."""
    command = [sys.executable, "-m", "recorder", "demo", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        shown = next(line for line in process.stdout if "mean of ten: pv_power" in line)
        assert "PV > " in shown
        process.send_signal(signal.SIGINT)
        assert "points written to InfluxDB" in process.stdout.read()
    assert process.returncode == 0


def test_demo_ends_after_its_seconds() -> None:
    """With --seconds it ends by itself."""
    done = ess_recorder("demo", "--seconds", "20", "--port", "0")
    assert (done.returncode, done.stdout.count(b"samples of the energy flow")) == (0, 1), done.stderr


def test_demo_prints_the_address_of_a_page_with_a_past_and_a_present() -> None:
    """Behind it are the page, live samples with real stamps, and a history of the days before."""
    with demo("--port", "0", "--day-minutes", "5") as address:
        with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as answer:
            assert b"<title>" in answer.read()
        wait_until(lambda: bool(flows(address)))
        newest_s = flows(address)[0]["time"]
        # The plant's clock runs 288 times as fast, and is hours away.
        assert abs(newest_s - time.time()) < TIMEOUT_SECONDS
        # Up to that sample: an hour that has just begun has none yet.
        query = f"from={newest_s - 6 * 86400:.0f}&to={newest_s:.0f}&step=1h&fields=flow.home"
        history = ask(address, f"api/v1/history?{query}")
        assert len(history["time"]) >= 6 * 24
        assert None not in history["series"]["flow.home"]["mean"]
        assert history["totals"]["energy"]["pv"] > 1


def test_demo_takes_another_port_where_its_own_is_in_use() -> None:
    """A port that somebody has is no reason to fail."""
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        with demo("--port", str(port)) as address:
            assert not address.endswith(f":{port}/")
            wait_until(lambda: bool(flows(address)))


def test_demo_takes_time_zone_and_token_from_the_environment() -> None:
    """Its days are those of ESS_TIMEZONE, and an InfluxDB that is named is shown ESS_INFLUXDB_TOKEN."""
    environment = {"ESS_TIMEZONE": "Asia/Tokyo", "ESS_INFLUXDB_TOKEN": "correct-horse"}
    with (
        asked_who() as (url, shown),
        demo("--port", "0", "--influxdb-url", url, **environment) as address,
    ):
        wait_until(lambda: "Token correct-horse" in shown)
        assert ask(address, "api/v1/health")["timezone"] == "Asia/Tokyo"
        wait_until(lambda: bool(flows(address)))


def test_demo_copes_with_faults() -> None:
    """With faults on the buses samples still come, and what went wrong is counted for the page."""
    with demo("--port", "0", "--faults", "crc=0.02") as address:
        wait_until(
            lambda: any(one["counts"].get("crc_errors") for one in ask(address, "api/v1/health")["sources"]),
        )
        wait_until(lambda: bool(flows(address)))
