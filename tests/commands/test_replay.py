"""`ess-recorder replay` of several files: side by side, and never done before all is written."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from shutil import copytree

import pytest

from recorder.commands.seams import PART_BYTES, cut
from recorder.simulator.faults import parse_faults
from recorder.simulator.plant import Plant
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import SiteStream
from tests.support.influxd import TIMEOUT_SECONDS, Influxd, wait_until
from tests.support.service import ROOT, ess_recorder

BEGIN_S = int(time.time()) - 3600  # within the retention
SECONDS = 40


@pytest.fixture
def influxd(tmp_path: Path) -> Iterator[Influxd]:
    """Give a running influxd of the test's own."""
    with Influxd(tmp_path / "influxd") as server:
        yield server


def capture(number: int, dialect: str = "ttt") -> bytes:
    stream = SiteStream(Plant(number, BEGIN_S + number * SECONDS), DIALECTS[dialect], seed=number)
    return b"".join(second.texts[0] for second in islice(stream, SECONDS))


def points(influxd: Influxd, database: str) -> dict[str, list[dict[str, object]]]:
    return {
        name: influxd.query(f'SELECT * FROM "{name}"', database) for name in ("pcs", "powermeter", "flow")
    }


def test_files_side_by_side_give_what_one_after_the_other_gives(tmp_path: Path, influxd: Influxd) -> None:
    """Four files of one site by three processes are the same points as by one."""
    files = [tmp_path / f"{number}.gz" for number in range(4)]
    for number, file in enumerate(files):
        file.write_bytes(gzip.compress(capture(number)))
    for jobs in ("1", "3"):
        env = {
            "ESS_INFLUXDB_URL": influxd.url,
            "ESS_INFLUXDB_DATABASE": f"of_{jobs}",
            "ESS_DATA_DIR": str(tmp_path),
        }
        done = ess_recorder("replay", "--jobs", jobs, "--no-backfill", *map(str, files), env=env)
        assert done.returncode == 0, done.stderr
    found = points(influxd, "of_3")
    assert len(found["pcs"]) == 4 * SECONDS
    assert len(found["flow"]) == 4 * SECONDS - 1  # none before the first sample of the meter
    assert found == points(influxd, "of_1")


def test_parts_of_a_large_file_side_by_side_give_what_one_process_gives(
    tmp_path: Path, influxd: Influxd
) -> None:
    """A damaged file large enough to be cut is the same points and counts by three processes as by one."""
    file = tmp_path / "large.strace"
    stream = SiteStream(Plant(1, BEGIN_S), DIALECTS["ttt"], parse_faults("all"), seed=1)
    text = b"".join(second.texts[0] for second in islice(stream, SECONDS))
    # The same seconds over and over: what is damaged in each is the same.
    file.write_bytes(text * (1 + 3 * PART_BYTES // len(text)))
    assert len(cut(file, None)) == 3
    counted = []
    for jobs in ("1", "3"):
        env = {
            "ESS_INFLUXDB_URL": influxd.url,
            "ESS_INFLUXDB_DATABASE": f"of_{jobs}",
            "ESS_DATA_DIR": str(tmp_path),
        }
        done = ess_recorder("replay", "--jobs", jobs, "--no-backfill", str(file), env=env)
        assert done.returncode == 0, done.stderr
        counted.append(done.stderr)
    assert counted[0] == counted[1]
    found = points(influxd, "of_3")
    assert len(found["pcs"]) > SECONDS // 2
    assert found == points(influxd, "of_1")


def test_file_that_ends_early_is_told_and_fails(tmp_path: Path, influxd: Influxd) -> None:
    """A damaged file names itself and ends the command with 1, though another one is whole."""
    whole, cut = tmp_path / "whole.gz", tmp_path / "cut.gz"
    whole.write_bytes(gzip.compress(capture(0)))
    cut.write_bytes(gzip.compress(capture(1))[:-500])
    env = {"ESS_INFLUXDB_URL": influxd.url, "ESS_DATA_DIR": str(tmp_path)}
    done = ess_recorder("replay", "--no-backfill", str(whole), str(cut), env=env)
    assert done.returncode == 1
    assert b"cut.gz" in done.stderr
    assert b"Traceback" not in done.stderr


def with_little_memory(directory: Path) -> str:
    """Give the path of the shipped settings with the least memory for the queue."""
    shipped = (ROOT / "config" / "recorder.yaml").read_text()
    config = directory / "config" / "recorder.yaml"
    copytree(ROOT / "config", config.parent)
    config.write_text(shipped.replace("max_memory_bytes: 33554432", "max_memory_bytes: 65536"))
    return str(config)


def test_replay_drops_no_point_for_lack_of_memory(tmp_path: Path, influxd: Influxd) -> None:
    """Where a queue may hold less than the files bring at once, every point is written all the same."""
    files = [tmp_path / f"{number}.strace" for number in range(4)]
    for number, file in enumerate(files):
        file.write_bytes(capture(number))
    env = {"ESS_INFLUXDB_URL": influxd.url, "ESS_DATA_DIR": str(tmp_path)}
    config = with_little_memory(tmp_path)
    done = ess_recorder("replay", "--no-backfill", "--config", config, *map(str, files), env=env)
    assert done.returncode == 0, done.stderr
    assert len(points(influxd, "ess")["pcs"]) == 4 * SECONDS


def test_dead_letters_are_not_dropped_for_lack_of_memory(tmp_path: Path, influxd: Influxd) -> None:
    """A file of refused lines, larger than the service's queue may be, is written whole before it goes."""
    letters = [
        json.dumps(
            {"rejected_at": "", "reason": "", "line": f"pcs,site={'x' * 100} power={n}.0 {BEGIN_S}{n:09}"}
        )
        for n in range(1500)
    ]
    file = tmp_path / "rejected-000001.jsonl"
    file.write_text("\n".join(letters) + "\n")
    env = {"ESS_INFLUXDB_URL": influxd.url, "ESS_DATA_DIR": str(tmp_path)}
    config = with_little_memory(tmp_path)
    done = ess_recorder("replay", "--dead-letters", "--no-backfill", "--config", config, str(file), env=env)
    assert done.returncode == 0, done.stderr
    assert len(points(influxd, "ess")["pcs"]) == 1500
    assert list(tmp_path.glob("rejected-*")) == []


def test_points_without_a_time_fail_the_replay(tmp_path: Path, influxd: Influxd) -> None:
    """Text whose later part has no stamps ends with 1 and what to do; the points with a time are written."""
    file = tmp_path / "mixed.strace"
    file.write_bytes(capture(0) + capture(1, "capture"))
    env = {"ESS_INFLUXDB_URL": influxd.url, "ESS_DATA_DIR": str(tmp_path)}
    done = ess_recorder("replay", "--no-backfill", str(file), env=env)
    assert done.returncode == 1
    assert b" points have no time" in done.stderr
    assert b"-ttt" in done.stderr
    assert len(points(influxd, "ess")["pcs"]) == SECONDS


@contextmanager
def waiting_replay(
    tmp_path: Path, influxd: Influxd, *more: Path
) -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    """Let a replay read more files, and a pipe that brings nothing; gives it and the processes that decode.

    What it says is in the file `said`.
    """
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    env = {**os.environ, "ESS_INFLUXDB_URL": influxd.url, "ESS_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "recorder", "replay", "--no-backfill", "--jobs", "2", str(pipe)]
    command += map(str, more)
    with (
        (tmp_path / "said").open("wb") as said,
        subprocess.Popen(command, cwd=ROOT, env=env, stderr=said) as process,
    ):
        try:
            with pipe.open("wb"):  # waits for the reader
                yield process, children(process.pid)
        finally:
            for child in children(process.pid):
                os.kill(child, signal.SIGKILL)
            process.kill()


def children(pid: int) -> list[int]:
    texts = [file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for child in " ".join(texts).split()]


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or waits for nothing but to be forgotten by its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except FileNotFoundError:
        return True


def tcp_sockets(pid: int) -> list[str]:
    inodes = {line.split()[9] for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]}
    names = [str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()]
    return [name for name in names if name.startswith("socket:[") and name[8:-1] in inodes]


def test_decoding_process_holds_no_connection(tmp_path: Path, influxd: Influxd) -> None:
    """The connection over which the database was set up is closed before the processes begin."""
    with waiting_replay(tmp_path, influxd) as (_, (child,)):
        assert tcp_sockets(child) == []


def end_of_text(pipe: Path) -> None:
    """Bring the end of the text to whoever reads the pipe, if anyone does."""
    with suppress(OSError):
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [(signal.SIGINT, 1, b"Aborted"), (signal.SIGTERM, -15, b""), (signal.SIGKILL, -9, b"")],
)
def test_replay_that_is_ended_leaves_no_process(
    tmp_path: Path, influxd: Influxd, number: signal.Signals, code: int, words: bytes
) -> None:
    """However the command is ended, the processes that decode end with it, one that waits for work too."""
    (tmp_path / "short").write_bytes(capture(0))
    with waiting_replay(tmp_path, influxd, tmp_path / "short") as (process, decoders):
        assert len(decoders) == 2
        process.send_signal(number)
        assert process.wait(timeout=TIMEOUT_SECONDS) == code

    def have_ended() -> bool:
        end_of_text(tmp_path / "pipe")
        return all(map(has_ended, decoders))

    wait_until(have_ended)
    said = (tmp_path / "said").read_bytes()
    assert words in said
    assert b"Traceback" not in said


def test_end_of_a_decoding_process_is_told(tmp_path: Path, influxd: Influxd) -> None:
    """A decoding process that is killed ends the command with 1, and the words say what may help."""
    with waiting_replay(tmp_path, influxd) as (process, (child,)):
        os.kill(child, signal.SIGKILL)
        assert process.wait(timeout=TIMEOUT_SECONDS) == 1
    said = (tmp_path / "said").read_bytes()
    assert b"--jobs" in said
    assert b"Traceback" not in said
