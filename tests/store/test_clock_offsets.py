"""The offsets of a controller's clock on disk."""

from pathlib import Path

from recorder.points.offsets import Cursor
from recorder.store.clock_offsets import FILE_NAME, ClockOffsets, offsets_in

HOUR = 3600 * 10**9
DAY = 24 * HOUR


def noted(directory: Path, *notes: tuple[int, int]) -> ClockOffsets:
    offsets = ClockOffsets(directory)
    offsets.load()
    for stamp_ns, offset_ns in notes:
        offsets.note("home", "pcs", stamp_ns, offset_ns)
    offsets.save()
    return offsets


def found(directory: Path, *stamps_ns: int, device: str = "pcs") -> list[int]:
    offsets, cursor, result = offsets_in(directory, "home"), None, []
    for stamp_ns in stamps_ns:
        offset_ns, cursor = offsets.find(device, stamp_ns, cursor)
        result.append(offset_ns)
    return result


def test_replay_gets_what_was_noted(tmp_path: Path) -> None:
    """Each stamp has the offset that held for it, over a restart of the recorder as well."""
    noted(tmp_path, (100, 0), (200, 0), (300, HOUR))
    noted(tmp_path, (400, HOUR), (500, -HOUR))
    assert found(tmp_path, 100, 240, 300, 450, 500, 10**9) == [0, 0, HOUR, HOUR, -HOUR, -HOUR]
    assert found(tmp_path, 100, 500, device="meter") == [0, 0]
    assert len((tmp_path / FILE_NAME).read_text().splitlines()) == 4


def test_stamps_that_come_twice_are_told_apart_by_their_order(tmp_path: Path) -> None:
    """The clock was set back by an hour: stamps of that hour first have one offset, then the other."""
    noted(tmp_path, (DAY, 0), (DAY + HOUR, 0), (DAY + 10, HOUR), (DAY + 2 * HOUR, HOUR))
    assert found(tmp_path, DAY, DAY + HOUR, DAY + 10, DAY + HOUR, DAY + 2 * HOUR) == [0, 0, HOUR, HOUR, HOUR]


def test_stamps_long_before_are_kept(tmp_path: Path) -> None:
    """What the recorder does not know of is corrected up to a day away."""
    noted(tmp_path, (10 * DAY, HOUR))
    assert found(tmp_path, 9 * DAY, 9 * DAY - 1) == [HOUR, 0]


def test_damaged_line_costs_itself_only(tmp_path: Path) -> None:
    """A loss of power cut a line; the next one begins anew."""
    noted(tmp_path, (100, HOUR))
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(b'["home", "pcs", 20')
    noted(tmp_path, (300, -HOUR))
    assert found(tmp_path, 100, 300) == [HOUR, -HOUR]


def test_file_of_another_version_is_not_read(tmp_path: Path) -> None:
    """Its offsets may mean something else."""
    (tmp_path / FILE_NAME).write_text('{"version": 2}\n["home", "pcs", 1, 5, null]\n')
    assert found(tmp_path, 1) == [0]
    noted(tmp_path, (100, HOUR))
    assert found(tmp_path, 100) == [HOUR]


def test_disk_that_fails_loses_no_note(tmp_path: Path) -> None:
    """What could not be written is written the next time."""
    offsets = ClockOffsets(tmp_path / "file" / "inside")
    (tmp_path / "file").write_text("")
    offsets.note("home", "pcs", 100, HOUR)
    offsets.save()
    (tmp_path / "file").unlink()
    offsets.save()
    assert found(tmp_path / "file" / "inside", 100) == [HOUR]


def test_cursor_is_where_the_stamps_are(tmp_path: Path) -> None:
    """A part of a capture that is decoded by itself begins where the part before ended."""
    noted(tmp_path, (100, 0), (300, HOUR))
    assert offsets_in(tmp_path, "home").find("pcs", 350, None) == (HOUR, Cursor(1, 350))
