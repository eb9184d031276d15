"""The command: options, files and exit codes."""

import json
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from recorder.commands.simulate import simulate
from tests.simulator.decoding import Decoder

START = "2024-06-21T10:00:00"


def test_text_and_truth_are_written_and_agree(tmp_path: Path) -> None:
    """Each line of the truth is found in the text, with its time and fields."""
    text, truth = tmp_path / "home.strace", tmp_path / "truth.jsonl"
    options = [
        "--seconds",
        "20",
        "--start",
        START,
        "--dialect",
        "ttt",
        "--output",
        str(text),
        "--truth",
        str(truth),
    ]
    result = CliRunner().invoke(simulate, options)
    assert result.exit_code == 0, result.output
    found = {(measurement, at_ns): fields for measurement, at_ns, fields in Decoder().feed(text.read_bytes())}
    samples = [json.loads(line) for line in truth.read_text().splitlines()]
    assert len(samples) == 40
    for sample in samples:
        assert sample["certain"]
        assert found["pcs" if sample["measurement"] == "pcs" else "powermeter", sample["time"]].items() <= (
            sample["fields"].items()
        )


def test_the_same_seed_writes_the_same_text() -> None:
    """To standard output, twice."""
    options = ["--seconds", "5", "--start", START, "--seed", "9", "--faults", "all", "--output", "-"]
    first, again = (CliRunner().invoke(simulate, options).stdout_bytes for _ in range(2))
    assert first == again
    assert first.count(b"\n") > 200


def test_an_absent_receiver_ends_with_1() -> None:
    """The error names the address and asks whether the receiver runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
        result = CliRunner().invoke(simulate, ["--seconds", "1", "--both", "--pcs-port", port])
    assert result.exit_code == 1
    assert f"cannot reach 127.0.0.1:{port}" in result.output


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--faults", "flood=1"], "use none, some, all"),
        (["--faults", "crc=7"], "from 0 to 1"),
        (["--output", "-"], "--seconds"),
        (["--output", "-", "--seconds", "1", "--sites", "2"], "--sites 1"),
        (["--speed", "-1"], "--speed"),
        (["--dialect", "latin"], "--dialect"),
    ],
)
def test_wrong_usage_ends_with_2(options: list[str], says: str) -> None:
    """The message says what is allowed."""
    result = CliRunner().invoke(simulate, options)
    assert result.exit_code == 2
    assert says in result.output


def test_an_unwritable_file_ends_with_1(tmp_path: Path) -> None:
    """The error names the file."""
    result = CliRunner().invoke(simulate, ["--seconds", "1", "--output", str(tmp_path / "no" / "file")])
    assert result.exit_code == 1
    assert "cannot write" in result.output
