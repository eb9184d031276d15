"""The page of performance."""

from pathlib import Path

from bench.report import Machine, Result, Row, document, update_document, write_document

MACHINE = Machine("a processor", 2, "Linux 6", "3.13", "1.6.7")


def result(title: str, figure: float) -> Result:
    return Result(title, (Row("what", figure, "MB/s"),), ("a note",))


def test_bench_measured_again_changes_its_own_section_only(tmp_path: Path) -> None:
    """The other sections, and what was written by hand, stay as they are; what is new comes last."""
    page = tmp_path / "performance.md"
    write_document(document([result("Decode", 1), result("Write", 2)], MACHINE, quick=False), page)
    page.write_text(page.read_text() + "\n## By hand\n")
    before = page.read_text()
    update_document([result("Decode", 7)], page)
    assert page.read_text() == before.replace("1 MB/s", "7 MB/s")
    update_document([result("Replay", 9)], page)
    titles = [line for line in page.read_text().splitlines() if line.startswith("#")]
    assert titles == ["# Performance, measured", "## Decode", "## Write", "## Replay", "## By hand"]
