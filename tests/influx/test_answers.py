"""What a write can answer, row by row."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.influx.answers import Action, judge


def action(status: int, body: bytes) -> Action:
    """The verdict's action on an answer without headers."""
    return judge(status, body, {}).action


def test_only_204_is_success() -> None:
    """204 is accepted, and a proxy's 200 is not."""
    assert action(204, b"") is Action.ACCEPT
    assert action(200, b"") is Action.PAUSE
    assert action(202, b"{}") is Action.PAUSE


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b'{"error":"partial write: field type conflict: input field \\"f\\" on ... dropped=1"}'),
        (400, b'{"error":"field type conflict"}'),
        (422, b'{"code":"unprocessable entity","message":"failure writing points: field type conflict"}'),
    ],
)
def test_type_conflict_is_split(status: int, body: bytes) -> None:
    """A field type conflict leads to halves, so that only the bad line is rejected."""
    assert action(status, body) is Action.SPLIT


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":"partial write: unable to parse \'m f 1\': invalid field format dropped=0"}',
        b'{"code":"invalid","message":"unable to parse \'m\': missing fields"}',
    ],
)
def test_parse_error_is_split(body: bytes) -> None:
    """A line that can not be parsed leads to halves."""
    assert action(400, body) is Action.SPLIT


@pytest.mark.parametrize(
    ("status", "body", "dropped"),
    [
        (400, b'{"error":"partial write: points beyond retention policy dropped=12"}', 12),
        (400, b'{"error":"partial write: dropped 7 points outside retention policy of duration 1h0m0s"}', 7),
        (422, b'{"message":"points beyond retention policy"}', None),
    ],
)
def test_points_beyond_retention_are_dropped_with_their_count(
    status: int, body: bytes, dropped: int | None
) -> None:
    """No repeat helps against the retention policy, and the server's count is read."""
    verdict = judge(status, body, {})
    assert (verdict.action, verdict.dropped) == (Action.DROP, dropped)


@pytest.mark.parametrize("status", [401, 403])
def test_wrong_password_pauses_with_a_remedy(status: int) -> None:
    """A wrong password keeps everything and says what to set."""
    verdict = judge(status, b'{"error":"authorization failed"}', {})
    assert verdict.action is Action.PAUSE
    assert "password" in verdict.remedy


def test_missing_database_pauses_and_is_told_apart() -> None:
    """A missing database can be created; a missing path can not."""
    missing = judge(404, b'{"error":"database not found: \\"ess\\""}', {})
    no_path = judge(404, b"404 page not found\n", {})
    assert (missing.action, missing.database_missing) == (Action.PAUSE, True)
    assert (no_path.action, no_path.database_missing) == (Action.PAUSE, False)


def test_too_large_is_split() -> None:
    """413 leads to halves."""
    assert action(413, b'{"error":"Request Entity Too Large"}') is Action.SPLIT


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("86400", 60.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-1", None)],
)
def test_retry_after_is_obeyed_but_capped(header: str, seconds: float | None) -> None:
    """429 waits as long as the server asks for, but not for ever."""
    verdict = judge(429, b"", {"retry-after": header})
    assert (verdict.action, verdict.after_seconds) == (Action.RETRY, seconds)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b'{"error":"timeout"}'),
        (500, b'{"error":"write /var/lib/influxdb: no space left on device"}'),
        (500, b'{"error":"engine: cache-max-memory-size exceeded: (1/2)"}'),
        (502, b"<html>Bad Gateway</html>"),
        (503, b"write limit exceeded"),
    ],
)
def test_a_server_in_trouble_gets_the_same_bytes_again(status: int, body: bytes) -> None:
    """What the server can not take now is sent again."""
    assert action(status, body) is Action.RETRY


def test_missing_retention_policy_pauses_although_it_is_a_500() -> None:
    """A configuration error in a 5xx is not retried as an outage."""
    verdict = judge(500, b'{"error":"retention policy not found: zz"}', {})
    assert verdict.action is Action.PAUSE
    assert "retention" in verdict.remedy


@pytest.mark.parametrize(
    ("status", "body"),
    [(301, b""), (302, b"<html>login</html>"), (400, b"<html>"), (405, b"Method Not Allowed"), (418, b"")],
)
def test_anything_else_pauses(status: int, body: bytes) -> None:
    """A wrong URL or a proxy acknowledges nothing and loses nothing."""
    verdict = judge(status, body, {})
    assert verdict.action is Action.PAUSE
    assert "URL" in verdict.remedy


@given(status=st.integers(0, 999), body=st.binary(max_size=200))
def test_no_answer_but_204_is_taken_for_success(status: int, body: bytes) -> None:
    """Whatever the body says, only 204 is accepted, and a reason fits into a line of the log."""
    verdict = judge(status, body, {"retry-after": "x"})
    assert (verdict.action is Action.ACCEPT) == (status == 204)
    assert "\n" not in verdict.reason
    assert len(verdict.reason) < 320
