"""The stack without containers: real processes with the environment that docker-compose.yml gives them."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.docker.compose import ROOT, SERVICES, run_passwords
from tests.support.influxd import TIMEOUT_SECONDS, Influxd, QueryError, free_port, wait_until
from tests.support.needs import needs_root

pytestmark = needs_root


class ComposeInfluxd(Influxd):
    """`influxd` with the environment of the service on top of its own directories and port."""

    def command(self) -> list[str]:
        """The command of the helper, with the service's variables in front."""
        variables = [f"{name}={value}" for name, value in SERVICES["influxdb"]["environment"].items()]
        return ["env", *variables, *super().command()]


class Stack(NamedTuple):
    """What runs, and where its passwords are."""

    influxd: ComposeInfluxd
    passwords: Path
    http_port: int
    recorder_log: Path


def data_source() -> dict[str, Any]:
    """The provisioned data source as written."""
    text = (ROOT / "grafana/provisioning/datasources/influxdb.yaml").read_text()
    (source,) = yaml.safe_load(text)["datasources"]
    loaded: dict[str, Any] = source
    return loaded


def expanded(text: str, passwords: Path) -> str:
    """A value as Grafana expands it: the file's content, stripped. Source: pkg/setting/expanders.go."""
    match = re.fullmatch(r"\$__file\{/run/passwords/([a-z-]+)\}", text)
    assert match
    return (passwords / "grafana" / match[1]).read_text().strip()


def as_reader(stack: Stack, username: str, password: str) -> Influxd:
    """A view on the running server with Grafana's login."""
    reader = Influxd(stack.passwords)
    reader.port = stack.influxd.port
    reader.username, reader.password = username, password
    return reader


def answers(server: Influxd) -> bool:
    """Whether the login of a view is accepted and the database is there."""
    try:
        return any(row["name"] == "rollups" for row in server.query("SHOW RETENTION POLICIES", "ess"))
    except QueryError:
        return False


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Passwords, a fresh InfluxDB and the recorder, started in the order of the services."""
    directory = tmp_path_factory.mktemp("stack")
    for name in ("recorder", "grafana"):
        (directory / name).mkdir()
    assert run_passwords(directory / "recorder", directory / "grafana").returncode == 0
    log, http_port = directory / "recorder.log", free_port()
    with ComposeInfluxd(directory / "influxd") as influxd, log.open("w") as output:
        given = {
            name: value.replace("/run/passwords", f"{directory}/recorder")
            for name, value in SERVICES["recorder"]["environment"].items()
        }
        mapped = {
            "ESS_INFLUXDB_URL": influxd.url,
            "ESS_DATA_DIR": f"{directory}/data",
            "ESS_PCS_PORT": "0",
            "ESS_POWERMETER_PORT": "0",
            "ESS_HTTP_PORT": str(http_port),
        }
        recorder = subprocess.Popen(
            [sys.executable, "-m", "recorder", "run"],
            env={**os.environ, **given, **mapped},
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield Stack(influxd, directory, http_port, log)
        finally:
            recorder.send_signal(signal.SIGTERM)
            recorder.wait(timeout=TIMEOUT_SECONDS)


@pytest.fixture(scope="module")
def reader(stack: Stack) -> Influxd:
    """Grafana's login, once the recorder has made it."""
    source = data_source()
    password = expanded(source["secureJsonData"]["password"], stack.passwords)
    server = as_reader(stack, source["user"], password)
    wait_until(lambda: answers(server))
    return server


def test_data_source_reads_what_the_recorder_set_up(reader: Influxd) -> None:
    """The provisioned login reads the database and finds the retention policies that dashboards name."""
    assert data_source()["jsonData"]["dbName"] == SERVICES["recorder"]["environment"]["ESS_INFLUXDB_DATABASE"]
    policies = {row["name"] for row in reader.query("SHOW RETENTION POLICIES", "ess")}
    assert {"avg10", "rollups"} <= policies


def test_data_source_cannot_write(reader: Influxd) -> None:
    """Grafana's user may read and nothing else."""
    with pytest.raises(QueryError):
        reader.write(b"pcs active_power=1.0 1", "ess")
    with pytest.raises(QueryError):
        reader.query('DROP DATABASE "ess"')


def test_nobody_gets_in_without_a_login(stack: Stack, reader: Influxd) -> None:
    """The claimed server refuses the anonymous and the wrong password."""
    for username, password in (("", ""), (reader.username, "wrong"), ("admin", "admin")):
        with pytest.raises(QueryError):
            as_reader(stack, username, password).query("SHOW DATABASES")


def test_data_source_points_at_the_service() -> None:
    """Grafana asks the server that the recorder writes to, as the reader that the recorder makes."""
    assert (
        data_source()["url"]
        == SERVICES["recorder"]["environment"]["ESS_INFLUXDB_URL"]
        == "http://influxdb:8086"
    )
    assert data_source()["user"] == SERVICES["recorder"]["environment"]["ESS_GRAFANA_READER_USERNAME"]


def test_health_check_of_influxdb_works_in_busybox(stack: Stack) -> None:
    """The check of the service succeeds on the running server, and fails on a port where nobody listens."""
    kind, *command = SERVICES["influxdb"]["healthcheck"]["test"]
    assert (kind, command[0]) == ("CMD", "wget")
    codes = []
    for port in (stack.influxd.port, free_port()):
        check = [word.replace(":8086/", f":{port}/") for word in command]
        codes.append(subprocess.run(["busybox", *check], capture_output=True, check=False).returncode)
    assert codes == [0, 1]


def test_environment_of_influxdb_takes_effect() -> None:
    """The server understands every variable of the service: its configuration holds their values."""
    variables = dict(SERVICES["influxdb"]["environment"])
    # Debian's influxd has no reports to switch off, and so not this variable.
    variables.pop("INFLUXDB_REPORTING_DISABLED")
    influxd = shutil.which("influxd")
    assert influxd
    shown = subprocess.run(
        [influxd, "config"],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    sections: dict[str, str] = {}
    section = ""
    for line in shown.splitlines():
        if header := re.fullmatch(r"\[+(.+?)\]+", line.strip()):
            section = header[1]
        elif " = " in line:
            key, value = line.strip().split(" = ", 1)
            name = f"INFLUXDB_{section}_{key}" if section else f"INFLUXDB_{key}"
            sections.setdefault(name.upper().replace("-", "_"), value.strip('"'))
    units = {"256m": str(256 * 2**20), "16m": str(16 * 2**20), "2m": "2m0s"}
    assert {name: sections.get(name) for name in variables} == {
        name: value if name.startswith("INFLUXDB_LOGGING") else units.get(value, value)
        for name, value in variables.items()
    }


def test_no_password_is_logged(stack: Stack, reader: Influxd) -> None:
    """Neither the recorder nor InfluxDB prints a password while the database is set up."""
    said = stack.recorder_log.read_text() + stack.influxd.log_text
    assert said
    for file in (*stack.passwords.glob("recorder/*"), *stack.passwords.glob("grafana/*")):
        assert file.read_text().strip() not in said
