"""The range of late points: widened, stored, repaired step by step, forgotten."""

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from recorder.influx.late_range import FILE_NAME, LateRange, LateState, Span

MINUTE = 60 * 10**9


def test_range_holds_all_late_points_and_survives_a_restart(tmp_path: Path) -> None:
    """Stamps widen the range to whole minutes, and another process finds it."""
    late = LateRange(tmp_path / "data" / FILE_NAME)
    late.widen([5 * MINUTE + 1, 3 * MINUTE + 5])
    late.widen([])
    late.widen([9 * MINUTE])
    late.save()
    again = LateRange(tmp_path / "data" / FILE_NAME)
    assert again.state == LateState(pending=Span(3 * MINUTE, 9 * MINUTE))
    assert again.late_seconds == 360
    assert (tmp_path / "data" / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_repair_goes_on_after_a_restart_where_it_was(tmp_path: Path) -> None:
    """Progress is stored, a second outage widens what comes next, and the end forgets only the first."""
    late = LateRange(tmp_path / FILE_NAME)
    first, second = Span(0, MINUTE), Span(4 * MINUTE, 5 * MINUTE)
    late.widen([0, MINUTE])
    late.begin(first, first)
    late.progress(2, 7)
    late.widen([4 * MINUTE, 5 * MINUTE])
    late.save()
    again = LateRange(tmp_path / FILE_NAME)
    assert again.state == LateState(second, first, 2, 7)
    again.finish()
    assert LateRange(tmp_path / FILE_NAME).state == LateState(second)
    again.begin(second, second)
    again.finish()
    assert not (tmp_path / FILE_NAME).exists()


def test_range_that_grew_meanwhile_is_not_begun(tmp_path: Path) -> None:
    """What is widened between looking and beginning is not forgotten."""
    late = LateRange(tmp_path / FILE_NAME)
    late.widen([0, MINUTE])
    seen = late.state.pending
    late.widen([7 * MINUTE])
    assert seen
    assert late.begin(seen, seen).repairing is None
    assert late.state.pending == Span(0, 7 * MINUTE)


def test_full_disk_is_a_problem_and_the_range_stays_in_memory(tmp_path: Path) -> None:
    """Where the file can not be written it is said with a remedy, until it can."""
    (tmp_path / "file").write_text("in the way")
    late = LateRange(tmp_path / "file" / FILE_NAME)
    late.widen([MINUTE])
    late.save()
    assert "make room" in late.problem
    assert late.state.pending == Span(MINUTE, MINUTE)
    (tmp_path / "file").unlink()
    late.save()
    assert late.problem == ""
    assert (tmp_path / "file" / FILE_NAME).exists()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.sampled_from(["first_ns", "last_ns"]), inner)
        | st.fixed_dictionaries({"pending": inner, "repairing": inner, "done": inner, "steps": inner})
    ),
)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_damaged_file_is_forgotten(tmp_path_factory: Any, content: bytes) -> None:
    """Whatever stands in the file, the recorder starts."""
    file = tmp_path_factory.mktemp("late") / FILE_NAME
    file.write_bytes(content)
    late = LateRange(file)
    late.widen([MINUTE])
    late.save()
    assert LateRange(file).state == late.state
