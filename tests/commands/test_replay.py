"""`ess-recorder replay` of several files: side by side, and never done before all is written."""

import gzip
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest

from recorder.simulator.plant import Plant
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import SiteStream
from tests.support.influxd import Influxd, wait_until
from tests.support.service import ROOT, ess_recorder

BEGIN_S = int(time.time()) - 3600  # within the retention
SECONDS = 40


@pytest.fixture
def influxd(tmp_path: Path) -> Iterator[Influxd]:
    """Give a running influxd of the test's own."""
    with Influxd(tmp_path / "influxd") as server:
        yield server


def capture(number: int) -> bytes:
    stream = SiteStream(Plant(number, BEGIN_S + number * SECONDS), DIALECTS["ttt"], seed=number)
    return b"".join(second.texts[0] for second in islice(stream, SECONDS))


def points(influxd: Influxd, database: str) -> dict[str, list[dict[str, object]]]:
    return {
        name: influxd.query(f'SELECT * FROM "{name}"', database) for name in ("pcs", "powermeter", "flow")
    }


def test_files_side_by_side_give_what_one_after_the_other_gives(tmp_path: Path, influxd: Influxd) -> None:
    """Four files by three processes are the same points as by one, each file's balance its own."""
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
    assert len(found["flow"]) == 4 * (SECONDS - 1)  # none before the first sample of the meter
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


@contextmanager
def waiting_replay(tmp_path: Path, influxd: Influxd) -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    """Let a replay read from a pipe that brings nothing; gives it and the processes that decode."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    env = {**os.environ, "ESS_INFLUXDB_URL": influxd.url, "ESS_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "recorder", "replay", "--no-backfill", str(pipe)]
    with subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE) as process:
        try:
            with pipe.open("wb"):  # waits for the reader
                yield process, children(process.pid)
        finally:
            process.kill()


def children(pid: int) -> list[int]:
    texts = [file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for child in " ".join(texts).split()]


@pytest.mark.parametrize("victim", ["child", "parent"])
def test_replay_that_is_ended_says_so_and_leaves_no_process(
    tmp_path: Path, influxd: Influxd, victim: str
) -> None:
    """A decoding process that is killed, or Ctrl-C, ends the command with 1, in words, and its processes."""
    with waiting_replay(tmp_path, influxd) as (process, (child,)):
        if victim == "child":
            os.kill(child, signal.SIGKILL)
        else:
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 1
        assert process.stderr is not None
        said = process.stderr.read()
    assert (b"--jobs" if victim == "child" else b"Aborted") in said
    assert b"Traceback" not in said
    wait_until(lambda: not Path(f"/proc/{child}").exists())
