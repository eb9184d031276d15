"""The documented registers are those of the profiles."""

from pathlib import Path

from docs import registers


def test_register_document_is_current() -> None:
    """`docs/registers.md` is what its generator writes now."""
    document = Path(registers.__file__).with_name("registers.md")
    assert document.read_text(encoding="utf-8") == registers.render()
