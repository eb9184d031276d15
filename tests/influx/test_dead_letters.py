"""What InfluxDB refuses is kept, bounded, and can be sent again."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from recorder.influx.dead_letters import DeadLetters, lines_in
from tests.support.influxd import Influxd
from tests.support.service import ess_recorder


def letters(directory: Path, **bounds: Any) -> DeadLetters:
    return DeadLetters(directory, lambda: datetime(2026, 6, 18, 11, tzinfo=UTC), **bounds)


def held(directory: Path) -> list[bytes]:
    return [line for file in sorted(directory.glob("*.jsonl*")) for line in lines_in(file)]


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    """Directory and file have modes that keep others out."""
    letters(tmp_path / "dead").add([b"m f=1i 1"], ["a reason"])
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "dead").iterdir()}
    assert modes == {"rejected-000001.jsonl": 0o600, "lock": 0o600}
    assert (tmp_path / "dead").stat().st_mode & 0o777 == 0o700


def test_oldest_file_goes_first_and_is_counted(tmp_path: Path) -> None:
    """Beyond the bound the oldest file is deleted, and kept and dropped lines add up."""
    dead = letters(tmp_path, max_file_bytes=1000, max_files=3)
    for number in range(100):
        dead.add([b"m f=1i %d" % number], ["a reason"])
    kept = held(tmp_path)
    assert len(list(tmp_path.glob("*.jsonl"))) == 3
    assert sum(file.stat().st_size for file in tmp_path.glob("*.jsonl")) <= 3000
    assert dead.dropped + len(kept) == dead.added == 100
    assert kept[-1] == b"m f=1i 99"


def test_disk_that_does_not_take_them_is_a_problem_and_no_error(tmp_path: Path) -> None:
    """Where the directory can not be made the lines are counted, with a remedy, until it can."""
    (tmp_path / "file").write_text("in the way")
    dead = letters(tmp_path / "file" / "dead")
    dead.add([b"a", b"b"], ["x", "y"])
    assert (dead.added, dead.unwritten) == (0, 2)
    assert "make room" in dead.problem
    (tmp_path / "file").unlink()
    dead.add([b"c"], ["z"])
    assert (dead.added, dead.unwritten, dead.problem) == (1, 2, "")


def test_what_is_added_after_a_file_was_taken_goes_to_another(tmp_path: Path) -> None:
    """A file that is being replayed is left alone, also across interrupted attempts."""
    dead = letters(tmp_path)
    for number in range(3):
        dead.add([b"m f=1i %d" % number], ["a reason"])
        assert len(dead.take()) == number + 1
    assert held(tmp_path) == [b"m f=1i 0", b"m f=1i 1", b"m f=1i 2"]


@given(st.lists(st.binary()))
def test_every_line_comes_back(tmp_path_factory: Any, lines: list[bytes]) -> None:
    """Lines of any bytes are read back as they were."""
    directory = tmp_path_factory.mktemp("dead")
    letters(directory).add(lines, [""] * len(lines))
    assert held(directory) == lines


@given(st.binary())
def test_file_of_anything_is_read(tmp_path_factory: Any, content: bytes) -> None:
    """What is no dead letter is left out, and the letters around it are not."""
    file = tmp_path_factory.mktemp("dead") / "file"
    letter = json.dumps({"line": "m f=1.0 1"}).encode()
    file.write_bytes(letter + b"\n" + content + b"\n" + letter)
    lines = list(lines_in(file))
    assert (lines[0], lines[-1]) == (b"m f=1.0 1", b"m f=1.0 1")


def test_replay_sends_dead_letters_again(tmp_path: Path) -> None:
    """What InfluxDB takes now leaves the files and gets its averages; what it refuses again stays, exit 1."""
    directory = tmp_path / "data" / "dead-letters"
    begin_ns = time.time_ns() - 600 * 10**9
    good = [b"pcs,device=pcs,site=home pv_power=%d.0 %d" % (at, begin_ns + at * 10**9) for at in range(12)]
    with Influxd(tmp_path / "influxd") as influxd:
        env = {"ESS_INFLUXDB_URL": influxd.url, "ESS_DATA_DIR": str(tmp_path / "data")}
        assert ess_recorder("queries", "apply", env=env).returncode == 0
        letters(directory).add([*good, b"no line"], ["a reason"] * 13)
        done = ess_recorder("replay", "--dead-letters", env=env)
        assert done.returncode == 1, done.stderr
        assert str(directory).encode() in done.stderr
        assert held(directory) == [b"no line"]
        assert len(influxd.query("SELECT pv_power FROM pcs", "ess")) == 12
        assert len(influxd.query("SELECT pv_power FROM avg10.pcs_avg10", "ess")) == 3
        (file,) = directory.glob("*.jsonl")
        file.write_text(json.dumps({"line": good[0].decode()}))
        assert ess_recorder("replay", "--dead-letters", str(file), env=env).returncode == 0
    assert held(directory) == []


def test_replay_of_dead_letters_without_influxdb_leaves_them(tmp_path: Path) -> None:
    """Where nothing answers no file is touched."""
    letters(tmp_path / "dead-letters").add([b"m f=1i 1"], ["a reason"])
    env = {"ESS_INFLUXDB_URL": "http://127.0.0.1:1", "ESS_DATA_DIR": str(tmp_path)}
    assert ess_recorder("replay", "--dead-letters", env=env).returncode == 1
    assert [file.suffix for file in (tmp_path / "dead-letters").glob("rejected*")] == [".jsonl"]
