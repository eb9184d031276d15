"""The charting library that the page ships."""

import hashlib
import re

from tests.support.service import ROOT


def test_charting_library_is_what_its_page_says() -> None:
    """Each file of uPlot has the SHA-256 that docs/live-page.md names, and there is no other file."""
    text = (ROOT / "docs" / "live-page.md").read_text()
    named = dict(re.findall(r"^\| `([\w.]+)` \| `([0-9a-f]{64})` \|$", text, re.MULTILINE))
    files = (ROOT / "recorder" / "web" / "static" / "uplot").iterdir()
    assert named == {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
