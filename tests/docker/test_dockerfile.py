"""The image, built step by step on this machine: what the Dockerfile makes is what then runs."""

import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.docker.native_build import NativeBuild, instructions
from tests.support.influxd import TIMEOUT_SECONDS, free_port
from tests.support.needs import needs_root

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
DECLARED = {name: argument for name, argument in instructions(DOCKERFILE) if name not in {"RUN", "COPY"}}


@pytest.fixture(scope="module")
def image() -> Iterator[NativeBuild]:
    """The image's files; in a directory that other users may enter, which pytest's own is not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        build = NativeBuild(context=ROOT, root=Path(name))
        build.run(DOCKERFILE)
        yield build


def run(image: NativeBuild, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The container's command, run to its end."""
    return subprocess.run(
        image.command(*arguments),
        cwd=image.directory,
        env=image.environment,
        capture_output=True,
        text=True,
        check=False,
    )


@needs_root
def test_image_runs_as_its_own_user(image: NativeBuild) -> None:
    """The built command answers as user 10001, without a capability."""
    answer = run(image, "--version")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith("ess-recorder")


@needs_root
def test_image_holds_the_shipped_configuration(image: NativeBuild) -> None:
    """The installed package brings its configuration and profiles along."""
    found = subprocess.run(
        ["python", "-c", "from recorder.resources import shipped_config_dir as d; print(d())"],
        cwd=image.directory,
        env=image.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    directory = Path(found.stdout.strip())
    assert directory.is_relative_to(image.root / "opt/ess-recorder")
    assert (directory / "profiles").is_dir()


@needs_root
def test_image_holds_no_installer_and_no_test(image: NativeBuild) -> None:
    """Neither pip nor the build backend nor a development tool is in the environment that is shipped."""
    installed = {path.name.split("-")[0] for path in (image.root / "opt").rglob("*.dist-info")}
    assert {"ess_recorder", "aiohttp"} <= installed
    assert not installed & {"pip", "hatchling", "pytest", "ruff"}


@needs_root
def test_user_of_the_image_owns_its_data_directory_only(image: NativeBuild) -> None:
    """User 10001 may write its data directory, and nothing of the program."""
    data = (image.root / "var/lib/ess-recorder").stat()
    assert (data.st_uid, data.st_gid, data.st_mode & 0o7777) == (10001, 10001, 0o750)
    entry = f"recorder:x:10001:10001::{image.root}/var/lib/ess-recorder:/usr/sbin/nologin\n"
    assert (image.root / "etc/passwd").read_text() == entry
    assert {path.lstat().st_uid for path in (image.root / "opt").rglob("*")} == {0}


def test_every_download_is_checked_by_hash() -> None:
    """Each pip command either checks hashes or has no index to download from."""
    commands = re.findall(
        r"pip (?:--python \S+ )?(?:install|wheel) [^&]*",
        " && ".join(argument for _, argument in instructions(DOCKERFILE)),
    )
    assert len(commands) == 4
    assert all("--require-hashes" in command or "--no-index" in command for command in commands)


def test_base_image_is_pinned() -> None:
    """All stages start from the same exact version of the same image."""
    bases = {argument.split()[0] for name, argument in instructions(DOCKERFILE) if name == "FROM"}
    (base,) = bases
    assert re.fullmatch(r"python:3\.13\.\d+-slim-\w+", base)


def test_container_ends_by_signal_and_not_as_root() -> None:
    """SIGTERM ends it, its user is 10001, and `run` is what it does unless told otherwise."""
    expected = {
        "STOPSIGNAL": "SIGTERM",
        "USER": "10001:10001",
        "ENTRYPOINT": '["ess-recorder"]',
        "CMD": '["run"]',
    }
    assert {name: DECLARED[name] for name in expected} == expected


def health_check_exit(port: int) -> int:
    """The exit code of the declared check, when the recorder's HTTP port is `port`."""
    words = json.loads(DECLARED["HEALTHCHECK"].partition(" CMD ")[2])
    words = [word.replace(":8080/", f":{port}/") for word in words]
    return subprocess.run(words, capture_output=True, check=False, timeout=TIMEOUT_SECONDS).returncode


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_health_check_follows_the_answer(status: int, code: int) -> None:
    """The container is healthy when /healthz says 200, and is not when it says 503."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            assert health_check_exit(server.server_port) == code
        finally:
            server.shutdown()
            thread.join()


def test_container_without_an_answer_is_unhealthy() -> None:
    """The check fails when nobody listens."""
    assert health_check_exit(free_port()) == 1
