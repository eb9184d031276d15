"""Every folder in `cases` holds a file with a mistake, and the message that its owner must see."""

from pathlib import Path

import pytest

from recorder.commands.configuration import load_configuration
from recorder.profiles.parse import parse_profile
from recorder.yaml_document import ConfigurationError

CASES = sorted(path.parent for path in (Path(__file__).parent / "cases").glob("*/*.yaml"))


def load(case: Path) -> None:
    """Load the file of a case as the program would."""
    if (case / "recorder.yaml").exists():
        load_configuration(case / "recorder.yaml", {})
    else:
        parse_profile((case / "profile.yaml").read_text(), str(case / "profile.yaml"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_mistake_is_named_with_file_line_key_and_remedy(case: Path) -> None:
    """The message says exactly what the case expects."""
    with pytest.raises(ConfigurationError) as caught:
        load(case)
    message = str(caught.value).replace(f"{case}/", "")
    assert message == (case / "expected.txt").read_text().rstrip("\n")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_secret_is_never_shown(case: Path) -> None:
    """No message and no chained error repeats a password or a token of its file."""
    with pytest.raises(ConfigurationError) as caught:
        load(case)
    error: BaseException | None = caught.value
    while error is not None:
        assert "hidden" not in str(error)
        error = error.__cause__
