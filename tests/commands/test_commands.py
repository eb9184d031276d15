"""The command line as a user meets it: output, exit codes, and errors that say what to change."""

import gzip
import json
import socket
from itertools import islice
from pathlib import Path
from shutil import copytree

import pytest

from recorder.cli import _COMMANDS
from recorder.simulator.plant import Plant
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import SiteStream
from tests.support.influxd import Influxd, free_port
from tests.support.service import ROOT, ess_recorder

NOON_S = 1_781_780_400  # 2026-06-18 11:00 UTC


def text(dialect: str = "ttt", seconds: int = 3) -> bytes:
    return b"".join(
        piece.texts[0] for piece in islice(SiteStream(Plant(1, NOON_S), DIALECTS[dialect]), seconds)
    )


@pytest.mark.parametrize("command", [*_COMMANDS, "queries show", "queries apply", "queries backfill"])
def test_every_command_explains_itself(command: str) -> None:
    """Each command has --help."""
    done = ess_recorder(*command.split(), "--help")
    assert done.returncode == 0
    assert b"Usage:" in done.stdout


def test_decode_prints_a_json_line_for_each_point(tmp_path: Path) -> None:
    """Points go to standard output, counts to standard error, and no database is needed."""
    (tmp_path / "capture").write_bytes(text())
    done = ess_recorder("decode", str(tmp_path / "capture"))
    points = [json.loads(line) for line in done.stdout.splitlines()]
    assert [point["measurement"] for point in points].count("pcs") == 3
    assert points[0].keys() == {"time", "measurement", "tags", "fields"}
    assert all(isinstance(value, float) for point in points for value in point["fields"].values())
    assert b"24 frames" in done.stderr
    assert done.returncode == 0


def test_decode_reads_standard_input_and_compressed_files(tmp_path: Path) -> None:
    """The same text gives the same points from a file, from a pipe, and compressed."""
    (tmp_path / "capture").write_bytes(text())
    (tmp_path / "capture.gz").write_bytes(gzip.compress(text()))
    plain = ess_recorder("decode", str(tmp_path / "capture")).stdout
    assert ess_recorder("decode", "-", stdin=text()).stdout == plain
    assert ess_recorder("decode", str(tmp_path / "capture.gz")).stdout == plain


def test_decode_gives_no_time_where_the_text_has_none() -> None:
    """Without stamps the time is null."""
    done = ess_recorder("decode", "-", stdin=text("capture"))
    assert {json.loads(line)["time"] for line in done.stdout.splitlines()} == {None}


def test_decode_follows_the_settings_of_the_flow(tmp_path: Path) -> None:
    """Where no sample of the meter is young enough, no point of the energy flow is made."""
    config = tmp_path / "config" / "recorder.yaml"
    copytree(ROOT / "config", config.parent)
    shipped = config.read_text()
    for seconds, flows in (("5", 1), ("0.000001", 0)):
        config.write_text(shipped.replace("meter_max_age_seconds: 5 ", f"meter_max_age_seconds: {seconds} "))
        done = ess_recorder("decode", "--config", str(config), "-", stdin=text())
        assert [json.loads(line)["measurement"] for line in done.stdout.splitlines()].count("flow") == flows


@pytest.mark.parametrize("content", [None, b"\x1f\x8b nonsense"])
def test_decode_of_an_unreadable_file_says_so(tmp_path: Path, content: bytes | None) -> None:
    """A file that is missing, or not what its name says, is an error without a traceback."""
    file = tmp_path / "capture.gz"
    if content is not None:
        file.write_bytes(content)
    done = ess_recorder("decode", str(file))
    assert done.returncode == 1
    assert b"capture.gz" in done.stderr
    assert b"Traceback" not in done.stderr


def test_wrong_configuration_ends_with_2(tmp_path: Path) -> None:
    """File, line and key of the mistake are named, by every command that reads the configuration."""
    config = tmp_path / "mine.yaml"
    config.write_text(
        "site: home\ndata_dir: data\nlisteners:\n  - {name: a, port: 70000}\ndevices: [{profile: abb-b2x}]\n"
    )
    for command in (["run"], ["check"], ["decode", "-"], ["queries", "show"]):
        done = ess_recorder(*command, "--config", str(config))
        assert done.returncode == 2
        assert b"mine.yaml:4: listeners[0].port" in done.stderr


def test_wrong_usage_ends_with_2() -> None:
    """An unknown option is a usage error."""
    assert ess_recorder("decode", "--nonsense").returncode == 2


def test_check_is_content_with_a_working_installation(tmp_path: Path) -> None:
    """With InfluxDB there and free ports it ends with 0."""
    with Influxd(tmp_path / "influxd") as influxd:
        done = ess_recorder(
            "check",
            env={
                "ESS_INFLUXDB_URL": influxd.url,
                "ESS_PCS_PORT": "0",
                "ESS_POWERMETER_PORT": "0",
                "ESS_HTTP_PORT": "0",
                "ESS_DATA_DIR": str(tmp_path),
            },
        )
    assert done.returncode == 0, done.stdout
    assert b"FAIL" not in done.stdout


def test_check_names_what_to_do(tmp_path: Path) -> None:
    """A taken port and a missing InfluxDB are found, each with a remedy, and the exit code is 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = ess_recorder(
            "check",
            env={
                "ESS_BIND": "127.0.0.1",
                "ESS_PCS_PORT": str(taken.getsockname()[1]),
                "ESS_INFLUXDB_URL": f"http://127.0.0.1:{free_port()}",
                "ESS_DATA_DIR": str(tmp_path),
            },
        )
    assert done.returncode == 1
    assert done.stdout.count(b"FAIL") >= 2
    assert b"ESS_INFLUXDB_URL" in done.stdout


def test_queries_show_needs_no_server() -> None:
    """The statements are printed, the ten-sample averages among them."""
    done = ess_recorder("queries", "show")
    assert done.returncode == 0
    assert b'CREATE CONTINUOUS QUERY "pcs_avg10"' in done.stdout


def test_queries_apply_twice_changes_nothing_the_second_time(tmp_path: Path) -> None:
    """What is there is left alone, and said to be."""
    with Influxd(tmp_path / "influxd") as influxd:
        env = {"ESS_INFLUXDB_URL": influxd.url}
        assert b"pcs_avg10" in ess_recorder("queries", "apply", env=env).stdout
        again = ess_recorder("queries", "apply", env=env)
    assert (again.returncode, again.stdout) == (0, b"nothing to change\n")
