"""Secrets in files of their own.

Takes the path of a file, gives the one line in it. Never shows what it has read in a message.
"""

from pathlib import Path

MAX_SECRET_BYTES = 4096


def secret_in(file: Path) -> str:
    """Give the line of text that a file holds, without the end of the line.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no file, too large, or not one line of UTF-8 text; says which.
    """
    if not file.is_file():
        raise ValueError("is not a file")
    with file.open("rb") as stream:
        content = stream.read(MAX_SECRET_BYTES + 1)
    if len(content) > MAX_SECRET_BYTES:
        raise ValueError(f"holds more than {MAX_SECRET_BYTES} bytes")
    try:
        text = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    if not text or not text.isprintable():
        raise ValueError("is empty or holds more than one line of text")
    return text
