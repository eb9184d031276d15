"""The durable queue of a real process: killed, and on disks that fail."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.spool.process import line
from tests.spool.test_durable_queue import drain, opened
from tests.support.influxd import TIMEOUT_SECONDS, free_port
from tests.support.service import ROOT, Service, ess_recorder

CHILD = [sys.executable, "-m", "tests.spool.process"]


def run(
    directory: Path, lines: int, rounds: int, *, before: tuple[str, ...] = (), **env: str
) -> list[dict[str, Any]]:
    """The lines that a child says, one a round."""
    done = subprocess.run(
        [*before, *CHILD, str(directory), str(lines), str(rounds)],
        cwd=ROOT, env={**os.environ, **env}, capture_output=True, timeout=TIMEOUT_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(said) for said in done.stdout.splitlines() if said.startswith(b"{")]


def in_mount_namespace(directory: Path, size: str) -> tuple[str, ...]:
    """A prefix that mounts a tmpfs on a directory for the command alone; skips where that is not allowed."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("mounting needs root and unshare")
    directory.mkdir()
    script = f'mount -t tmpfs -o size={size} none "$0" && exec "$@"'
    return ("unshare", "-m", "sh", "-c", script, str(directory))


@pytest.mark.parametrize("seed", range(8))
def test_kill_loses_nothing_that_was_committed(tmp_path: Path, seed: int) -> None:
    """After kill -9 at a random moment every line whose commit was told is there, once, and no other."""
    child = subprocess.Popen(
        [*CHILD, str(tmp_path / "queue"), "50", "0"], cwd=ROOT, stdout=subprocess.PIPE
    )  # fmt: skip
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(Random(seed).uniform(0, 0.3))  # the random moment itself; nothing is waited for
    child.kill()
    said = child.stdout.read().splitlines()
    child.wait()
    child.stdout.close()
    committed = json.loads(said[-1])["appended"] if said else 50
    queue = opened(tmp_path / "queue")
    given = drain(queue)
    assert given == [line(number) for number in range(len(given))]
    assert len(given) >= committed
    assert queue.depth().damaged == 0
    queue.close()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("fdatasync:error=EIO", "check the disk or SD card, it fails"),
        ("pwrite64:error=ENOSPC", "free space on that disk"),
        ("pwrite64:error=EROFS", "mount it writable, and check whether the disk or SD card fails"),
    ],
)
def test_failed_write_is_told_and_tried_again(tmp_path: Path, fault: str, reason: str) -> None:
    """A commit that fails stores nothing and loses nothing: the next one stores all, and the problem ends."""
    call = fault.split(":", 1)[0]
    strace = (
        "strace", "-f", "-qq", "-o", str(tmp_path / "trace"), "-e", f"trace={call}",
        "-e", f"inject={fault}:when=3..6",
    )  # fmt: skip
    said = run(tmp_path / "queue", 20, 12, before=strace)
    failed = [one for one in said if not one["stored"]]
    assert failed
    assert all(reason in one["problem"] for one in failed)
    assert (said[-1]["stored"], said[-1]["problem"]) == (True, "")
    assert [one["points"] for one in said] == [one["appended"] for one in said]
    queue = opened(tmp_path / "queue")
    assert sorted(drain(queue)) == [line(number) for number in range(240)]
    assert queue.depth().damaged == 0
    queue.close()


def test_commit_is_told_only_after_the_segment_is_on_the_disk(tmp_path: Path) -> None:
    """Between the last write to a segment and the word that it is stored lies its fdatasync."""
    trace = tmp_path / "trace"
    strace = ("strace", "-f", "-qq", "-y", "-o", str(trace), "-e", "trace=pwrite64,fdatasync,write")
    run(tmp_path / "queue", 10, 1, before=strace)
    calls = [text for text in trace.read_text().splitlines() if ".segment>" in text or "appended" in text]
    told = next(index for index, text in enumerate(calls) if "appended" in text)
    assert [text.split()[1].split("(")[0] for text in calls[:told]][-2:] == ["pwrite64", "fdatasync"]


def test_full_disk_is_told_and_recovers_by_itself(tmp_path: Path) -> None:
    """On a full tmpfs points stay in memory; once there is room they are stored, and nothing is lost."""
    directory = tmp_path / "disk"
    before = in_mount_namespace(directory, "3m")
    said = run(
        directory / "queue", 2000, 6, before=before,
        BEFORE_2=f"head -c 4m /dev/zero > {directory}/ballast || true", BEFORE_4=f"rm {directory}/ballast",
    )  # fmt: skip
    assert [one["stored"] for one in said] == [True, True, False, False, True, True]
    assert "free space on that disk" in said[2]["problem"]
    assert said[-1]["problem"] == ""
    assert [one["points"] for one in said] == [one["appended"] for one in said]


def test_read_only_disk_is_told_and_recovers_by_itself(tmp_path: Path) -> None:
    """On a file system that is read-only points stay in memory until it can be written."""
    directory = tmp_path / "disk"
    before = in_mount_namespace(directory, "8m,ro")
    said = run(directory / "queue", 100, 6, before=before, BEFORE_3=f"mount -o remount,rw {directory}")
    assert [one["stored"] for one in said] == [False, False, False, True, True, True]
    assert "mount it writable" in said[0]["problem"]
    assert said[-1]["problem"] == ""
    assert said[-1]["points"] == 600


def test_second_recorder_on_the_same_queue_is_refused(tmp_path: Path) -> None:
    """It ends with 1 and says what to change, before it takes a port; the first one goes on."""
    with Service(tmp_path, f"http://127.0.0.1:{free_port()}") as service:
        done = ess_recorder("run", env=service.env)
        assert done.returncode == 1
        assert b"another recorder uses the queue" in done.stderr
        assert b"data_dir" in done.stderr
        assert service.health()
