"""The password script, in busybox and with the capabilities of its service."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.compose import SERVICES, run_passwords
from tests.support.needs import needs_root

pytestmark = needs_root

FILES = {
    "recorder/influxdb-admin": 10001,
    "recorder/influxdb-reader": 10001,
    "grafana/influxdb-reader": 472,
    "grafana/grafana-admin": 472,
}


@pytest.fixture
def volumes() -> Iterator[Path]:
    """Two empty volumes, in a directory that other users may enter, which pytest's own is not."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        for service in ("recorder", "grafana"):
            (directory / service).mkdir()
        yield directory


def make(volumes: Path, *limits: str) -> subprocess.CompletedProcess[str]:
    """One run of the script."""
    return run_passwords(volumes / "recorder", volumes / "grafana", *limits)


def contents(volumes: Path) -> dict[str, str]:
    """Every file of both volumes."""
    return {
        str(path.relative_to(volumes)): path.read_text() for path in volumes.glob("*/*") if path.is_file()
    }


def test_each_password_is_for_one_user_only(volumes: Path) -> None:
    """The script makes exactly these files, each readable by its owner alone."""
    assert make(volumes).returncode == 0
    assert {name: (volumes / name).stat().st_uid for name in contents(volumes)} == FILES
    assert {(volumes / name).stat().st_mode & 0o7777 for name in FILES} == {0o400}


def test_passwords_are_long_and_different(volumes: Path) -> None:
    """Each is 40 letters and digits, and only the reader's is shared."""
    make(volumes)
    made = contents(volumes)
    assert all(len(text.strip()) == 40 and text.strip().isalnum() for text in made.values())
    assert made["recorder/influxdb-reader"] == made["grafana/influxdb-reader"]
    assert len(set(made.values())) == 3


def test_second_run_changes_nothing(volumes: Path) -> None:
    """Starting the stack again keeps every password, and says nothing."""
    make(volumes)
    before = contents(volumes)
    again = make(volumes)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert contents(volumes) == before


def test_a_lost_file_alone_is_made_again(volumes: Path) -> None:
    """A volume that was lost is filled again, with the reader's password that InfluxDB knows."""
    make(volumes)
    before = contents(volumes)
    for name in ("grafana/influxdb-reader", "grafana/grafana-admin"):
        (volumes / name).unlink()
    assert make(volumes).returncode == 0
    after = contents(volumes)
    assert after.keys() == before.keys()
    assert after["grafana/influxdb-reader"] == before["grafana/influxdb-reader"]
    assert after["recorder/influxdb-admin"] == before["recorder/influxdb-admin"]


def test_no_password_is_printed(volumes: Path) -> None:
    """The first run prints nothing that a log could keep."""
    first = make(volumes)
    assert (first.stdout, first.stderr) == ("", "")


def test_a_write_that_fails_leaves_no_password(volumes: Path) -> None:
    """When nothing can be written the script fails, and a later run repairs it."""
    assert make(volumes, "--fsize=10").returncode != 0
    assert not any((volumes / name).exists() for name in FILES)
    assert make(volumes).returncode == 0
    assert contents(volumes).keys() == FILES.keys()


def test_a_short_password_is_refused(volumes: Path) -> None:
    """What is too short to be a password is not handed on, and the error names the file."""
    (volumes / "recorder/influxdb-reader").write_text("short\n")
    failed = make(volumes)
    assert failed.returncode == 1
    assert "grafana/influxdb-reader would be too short" in failed.stderr
    assert not (volumes / "grafana/influxdb-reader").exists()


@pytest.mark.parametrize(("user", "readable"), [(10001, True), (472, False), (1500, False)])
def test_another_service_cannot_read_it(volumes: Path, user: int, readable: bool) -> None:
    """The administrator's password of InfluxDB is the recorder's alone, whoever reaches the volume."""
    make(volumes)
    command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--bounding-set=-all"]
    file = volumes / "recorder/influxdb-admin"
    ended = subprocess.run([*command, "cat", file], capture_output=True, check=False)
    assert (ended.returncode == 0) is readable


def test_services_read_files_that_the_script_makes() -> None:
    """Each file that a service is told to read is one that the script makes for it."""
    for name in ("recorder", "grafana"):
        paths = [
            value for variable, value in SERVICES[name]["environment"].items() if variable.endswith("_FILE")
        ]
        assert paths
        for path in paths:
            assert f"{name}/{path.removeprefix('/run/passwords/')}" in FILES
