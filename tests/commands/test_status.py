"""`ess-recorder status` against a real recorder."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.controller import Controller, Moment
from tests.support.influxd import free_port, wait_until
from tests.support.service import ROOT, Service, ess_recorder


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A recorder that wants a token, with a controller that sends."""
    with (
        Service(tmp_path_factory.mktemp("recorder"), "", ESS_HTTP_TOKEN="correct-horse") as recorder,
        Controller(recorder.pcs_port, Moment(pv_w=1200, battery_w=800, home_w=2600)),
    ):
        wait_until(lambda: b'"flow"' in ess_recorder("status", "--json", env=recorder.env).stdout)
        yield recorder


def test_status_shows_flows_energies_and_parts_once(service: Service) -> None:
    """With the settings of the recorder it finds it, and shows it all."""
    # A busy machine may be late with a sample.
    wait_until(lambda: b"live, sample of" in ess_recorder("status", "--once", env=service.env).stdout)
    done = ess_recorder("status", "--once", env=service.env)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode()
    assert "2,600 W" in shown
    assert "self-sufficiency" in shown
    assert "port pcs" in shown
    assert "not configured: the recorder keeps the data itself" in shown


def test_status_gives_the_answers_as_json(service: Service) -> None:
    """--json is one object with what the recorder answered."""
    done = ess_recorder("status", "--json", env=service.env)
    answers = json.loads(done.stdout)
    assert answers.keys() == {"latest", "health", "today"}
    assert answers["health"]["site"] == "home"


def test_status_follows_in_a_terminal(service: Service) -> None:
    """In a terminal it goes on showing newer samples until Ctrl-C, and then ends with 0."""
    screen, terminal = pty.openpty()
    command = [sys.executable, "-m", "recorder", "status"]
    env = {**os.environ, **service.env, "TERM": "xterm", "COLUMNS": "100", "LINES": "60"}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdin=terminal, stdout=terminal) as process:
        os.close(terminal)
        shown = b""
        while shown.count(b"live, sample of") < 3:
            shown += os.read(screen, 65536)
        process.send_signal(2)
        while True:
            try:
                if not os.read(screen, 65536):
                    break
            except OSError:
                break
    os.close(screen)
    assert process.returncode == 0


def test_status_without_a_recorder_says_so() -> None:
    """Where nobody answers it ends with 1, and says what to do."""
    done = ess_recorder("status", "--url", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert b"ess-recorder run" in done.stderr
    assert b"Traceback" not in done.stderr


def test_status_without_the_token_says_so(service: Service) -> None:
    """A recorder that wants a token is not one that is away."""
    done = ess_recorder("status", "--once", "--url", f"http://127.0.0.1:{service.http_port}")
    assert done.returncode == 1
    assert b"--token" in done.stderr


def test_status_of_something_else_than_a_recorder_says_so(tmp_path: Path) -> None:
    """Another server's answers are no recorder's, and an address needs its scheme."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        "--directory",
        str(tmp_path),
        str(port),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: b"is no recorder" in ess_recorder("status", "--url", url).stderr)
        assert ess_recorder("status", "--url", url).returncode == 1
        server.terminate()
    assert ess_recorder("status", "--url", "somewhere").returncode == 2
