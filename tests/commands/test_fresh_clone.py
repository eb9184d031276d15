"""The first thing that anybody does: `make demo` in a fresh clone."""

import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.support.influxd import LONG_SECONDS, TIMEOUT_SECONDS, wait_until
from tests.support.service import ROOT

# What Makefile and Python call; neither influxd nor a compiler is among it.
TOOLS = ("make", "sh", "env", "touch", "rm", "uname")
NOT_CLONED = (
    ".git",
    ".venv*",
    ".*cache",
    "__pycache__",
    "data",
    ".hypothesis",
    ".schemathesis",
    "*.egg-info",
)


def test_make_demo_needs_only_python_and_make(tmp_path: Path) -> None:
    """In a directory without an environment it makes one, prints an address, and the page is there."""
    clone, tools = tmp_path / "clone", tmp_path / "bin"
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(*NOT_CLONED))
    tools.mkdir()
    for tool in TOOLS:
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    python = Path(sys.base_prefix, "bin", "python3")
    command = ["make", "demo", f"PYTHON={python}", "DEMO_OPTIONS=--port 0"]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=clone, env={**os.environ, "PATH": str(tools)}, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        wait_until(lambda: process.poll() is not None or b"The live page: " in log.read_bytes(), LONG_SECONDS)
        assert process.poll() is None, log.read_text()
        address = log.read_text().partition("The live page: ")[2].split()[0]
        with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as answer:
            assert b'id="flows"' in answer.read()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=TIMEOUT_SECONDS)
