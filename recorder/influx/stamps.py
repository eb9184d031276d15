"""The time that a line of line protocol carries.

Takes lines that this recorder made, gives Unix ns. Never parses more than the end of a line.
"""


def stamp_ns(line: bytes) -> int | None:
    """Give the stamp at the end of a line; None where there is none, as in a line of a damaged file."""
    end = line[line.rfind(b" ") + 1 :]
    return int(end) if end.isdigit() else None
