"""The lines that an answer speaks of."""

from hypothesis import given
from hypothesis import strategies as st

from recorder.influx.answers import Action, Verdict
from recorder.influx.stamps import stamp_ns
from recorder.influx.suspects import suspects

CONFLICT = 'input field "{}" on measurement "{}" is type {}, already exists as type float dropped=1'


def conflict(field: str, measurement: str, kind: str) -> Verdict:
    return Verdict(Action.SPLIT, CONFLICT.format(field, measurement, kind))


def test_field_measurement_and_type_name_the_lines() -> None:
    """Only lines of that measurement, with that field, with a value of that type are suspected."""
    lines = [
        b"m,site=a f=1.0 1",
        b"m,site=a g=1i,f=2i 2",
        b"n f=1i 3",
        b"m g=1i 4",
        b'm f="1i" 5',
        b"m f=t 6",
    ]
    assert suspects(lines, conflict("f", "m", "integer")) == {1}
    assert suspects(lines, conflict("f", "m", "float")) == {0}
    assert suspects(lines, conflict("f", "m", "string")) == {4}
    assert suspects(lines, conflict("f", "m", "boolean")) == {5}


def test_names_are_found_behind_their_backslashes() -> None:
    """Names with spaces and commas are escaped in a line, and not in an answer."""
    assert suspects([b"my\\ m my\\,f=1i 1", b"m f=1i 1"], conflict("my,f", "my m", "integer")) == {0}


def test_line_that_is_repeated_in_the_answer_is_suspected() -> None:
    """A parse error repeats the line."""
    verdict = Verdict(Action.SPLIT, "400 partial write: unable to parse 'bad line': missing fields dropped=0")
    assert suspects([b"m f=1.0 1", b"bad line"], verdict) == {1}


def test_as_many_of_the_oldest_as_were_dropped_are_suspected() -> None:
    """An answer about retention tells only how many points are too old."""
    lines = [b"m f=1.0 50", b"m f=1.0 7", b"m f=1.0 60", b"m f=1.0 8"]
    assert suspects(lines, Verdict(Action.DROP, "beyond retention", dropped=2)) == {1, 3}


@given(st.lists(st.binary(max_size=40)), st.text(), st.sampled_from([Action.SPLIT, Action.DROP]))
def test_no_line_and_no_answer_is_too_strange(lines: list[bytes], reason: str, action: Action) -> None:
    """Whatever the server says about whatever lines, only lines of the batch are named."""
    for text in (reason, CONFLICT.format(reason, reason, "float"), f"unable to parse '{reason}': "):
        assert suspects(lines, Verdict(action, text, dropped=2)) <= set(range(len(lines)))


@given(st.integers(0, 2**63), st.binary())
def test_stamp_is_what_stands_at_the_end(stamp: int, line: bytes) -> None:
    """The stamp is read back, whatever stands before it."""
    assert stamp_ns(b"%s %d" % (line, stamp)) == stamp
