import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from recorder.commands.controller_script import controller_script
from recorder.controller.script import Stream, render
from tests.controller.rig import BUSYBOX

ONE = [Stream(("PCSMgr",), 5001)]


def heading(text: str) -> dict[str, str]:
    """Give the script's settings as a shell reads them."""
    lines = text.split("\n\n")[1] + '\nprintf "%s" "$HOST|$STREAMS|$STRACE|$RUN"\n'
    read = subprocess.run(["sh", "-c", lines], check=True, capture_output=True).stdout.decode()
    return dict(zip(("host", "streams", "strace", "run"), read.split("|"), strict=True))


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(controller_script, arguments)
    return result.exit_code, result.output


def test_each_process_has_its_own_port() -> None:
    """Without --both, PCSMgr and PowerMeterMgr stream to two ports."""
    exit_code, text = invoke("--host", "192.168.1.20", "--powermeter-port", "6002")
    assert exit_code == 0
    assert heading(text) == {
        "host": "192.168.1.20",
        "streams": "PCSMgr:5001 PowerMeterMgr:6002",
        "strace": "/root/strace",
        "run": "/var/run/ess-stream",
    }


def test_both_makes_one_stream() -> None:
    """With --both, one stream to the PCS port carries both processes."""
    _, text = invoke("--host", "recorder.lan", "--both", "--pcs-port", "7001")
    assert heading(text)["streams"] == "PCSMgr+PowerMeterMgr:7001"


def test_output_is_an_executable_file(tmp_path: Path) -> None:
    """--output writes the same text, ready to run, and prints nothing."""
    file = tmp_path / "ess-stream.sh"
    assert invoke("--host", "fe80::1%eth0", "--output", str(file)) == (0, "")
    assert file.read_text() == invoke("--host", "fe80::1%eth0")[1]
    assert file.stat().st_mode & 0o777 == 0o755


def test_output_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """An unwritable --output ends with 1 and the reason."""
    exit_code, text = invoke("--host", "a", "--output", str(tmp_path / "absent" / "file"))
    assert exit_code == 1
    assert "No such file or directory" in text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "--host"),
        (("--host", "a b"), "'a b' is neither a host name nor an address"),
        (("--host", "-e"), "neither a host name"),
        (("--host", "a", "--pcs-port", "0"), "1<=x<=65535"),
        (("--host", "a", "--strace", "strace"), "not an absolute path"),
        (("--host", "a", "--strace", "/root/strace-armv7-static"), "longer than 15 bytes"),
    ],
)
def test_impossible_values_are_refused(arguments: tuple[str, ...], told: str) -> None:
    """A value that the controller could not use ends with 2 and names it."""
    exit_code, text = invoke(*arguments)
    assert exit_code == 2
    assert told in text


@pytest.mark.parametrize(
    "stream", [Stream(("PCS Mgr",), 1), Stream(("",), 1), Stream(("a" * 16,), 1), Stream(("a",), 65536)]
)
def test_impossible_streams_are_refused(stream: Stream) -> None:
    """A process name that no kernel keeps, or a port that is none, is an error."""
    with pytest.raises(ValueError, match=r"process name|port"):
        render("a", [stream])


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\n/|"), min_size=1, max_size=3))
@example("\\0")
def test_any_path_reaches_the_shell_unchanged(name: str) -> None:
    """Quotes, blanks, dollars and marks in the path of strace are text to the shell, and nothing else."""
    assert heading(render("a", ONE, strace=f"/{name}"))["strace"] == f"/{name}"


def test_busybox_shell_accepts_the_script(tmp_path: Path) -> None:
    """Busybox ash finds no error of syntax."""
    file = tmp_path / "ess-stream.sh"
    file.write_text(render("a", ONE))
    subprocess.run([BUSYBOX, "ash", "-n", file], check=True)
