"""Records: what was put in comes out, whatever lies around it, and nothing else does."""

from hypothesis import given
from hypothesis import strategies as st

from recorder.spool.records import Record, decode_header, encode_header, encode_record, scan

LINES = st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), min_size=1, max_size=5)
RECORDS = st.lists(
    st.builds(Record, st.integers(0, 2**64 - 10), st.floats(0, 1e10), LINES), min_size=1, max_size=4
)


@given(RECORDS, st.lists(st.binary(max_size=40), min_size=5, max_size=5))
def test_records_are_found_between_any_bytes(records: list[Record], garbage: list[bytes]) -> None:
    """Each whole record is given with its number, time and lines, in order."""
    data = garbage[-1] + b"".join(
        encode_record(record) + rest for record, rest in zip(records, garbage, strict=False)
    )
    assert list(scan(data)) == records


@given(RECORDS, st.data())
def test_a_changed_byte_costs_its_record_and_no_other(records: list[Record], data: st.DataObject) -> None:
    """A record of which any byte differs is not given; those beside it are."""
    encoded = [encode_record(record) for record in records]
    victim = data.draw(st.integers(0, len(records) - 1))
    changed = bytearray(encoded[victim])
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    encoded[victim] = bytes(changed)
    assert list(scan(b"".join(encoded))) == records[:victim] + records[victim + 1 :]


@given(st.binary(max_size=300))
def test_any_bytes_are_no_record(content: bytes) -> None:
    """Bytes that nobody wrote give neither a record nor an error, and no header."""
    assert list(scan(content)) == []
    assert decode_header(content) is None


@given(st.integers(0, 2**64 - 1), st.floats(0, 1e10))
def test_header_comes_back(first: int, created_at: float) -> None:
    """Number and time of a segment are read as they were written, and a cut header is none."""
    header = encode_header(first, created_at)
    assert decode_header(header + b"more") == (1, first, created_at)
    assert decode_header(header[:-1]) is None
