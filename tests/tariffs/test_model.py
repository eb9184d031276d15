"""The tariff file: what it may hold, and which price holds when."""

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.tariffs.model import DAYS, Tariffs, parse_tariffs
from recorder.yaml_document import ConfigurationError

ROOT = Path(__file__).parents[2]


def tariffs(text: str) -> Tariffs:
    """A file of one tariff with these lines."""
    lines = "\n".join(f"    {line}" for line in text.splitlines())
    return parse_tariffs(f"currency: EUR\ntariffs:\n  - valid_from: 2026-01-01\n{lines}", "t.yaml", {})


def test_example_is_valid() -> None:
    """The shipped example is read, with its prices as they are written."""
    path = ROOT / "config/tariff.yaml"
    found = parse_tariffs(path.read_text(), str(path), {})
    assert found.currency == "EUR"
    assert [tariff.valid_from.isoformat()[:10] for tariff in found.tariffs] == ["2024-01-01", "2026-01-01"]
    assert found.tariffs[0].import_price == Decimal("0.3290")


def test_price_is_the_decimal_that_was_written() -> None:
    """A price is not rounded to a power of two."""
    (tariff,) = tariffs("import_price: 0.1\nfeed_in_price: -0.07").tariffs
    assert (tariff.import_price * 3, tariff.feed_in_price) == (Decimal("0.3"), Decimal("-0.07"))


def test_what_is_left_out_is_nothing() -> None:
    """Feed-in price and base fee may be left out, and are 0 then."""
    (tariff,) = tariffs("import_price: 1").tariffs
    assert tariff.feed_in_price == tariff.base_fee_per_month == 0
    assert not tariff.windows


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("import_price: 0.3\nwindows: [{between: 22:00-22:00, import_price: 1}]", "two times"),
        ("import_price: 0.3\nwindows: [{between: 24:00-06:00, import_price: 1}]", "two times"),
        ("import_price: 0.3\nwindows: [{between: 22:05-06:00, import_price: 1}]", "two times"),
        ("import_price: 0.3\nwindows: [{between: 22-06, import_price: 1}]", "two times"),
        ("import_price: 0.3\nwindows: [{between: 25:00-06:00, import_price: 1}]", "two times"),
        ("import_price: 0.3\nwindows: [{between: 5, import_price: 1}]", "two times"),
        ("import_price: 0.3\nwindows: [{between: 22:00-06:00}]", "has no price"),
        ("import_price: 0.3\nwindows: [{between: 22:00-06:00, days: [], import_price: 1}]", "a list of mon"),
        ("import_price: true", "a price per kWh"),
        ("import_price: 100.5", "a price per kWh"),
        ("import_price: .nan", "a price per kWh"),
        ("import_price: '0.3'", "a price per kWh"),
        ("base_fee_per_month: 9", "is missing"),
        ("import_price: 0.3\nimport_prices: 0.3", "did you mean import_price?"),
    ],
)
def test_mistake_is_named(lines: str, message: str) -> None:
    """What cannot be meant is refused, with what is allowed."""
    with pytest.raises(ConfigurationError, match=message):
        tariffs(lines)


@pytest.mark.parametrize("begin", ["2026-1-1", "2026-02-30", "2026-01-01 13:05", "2026-01-01T13:00", "1"])
def test_begin_is_a_day_or_a_quarter_of_an_hour(begin: str) -> None:
    """A tariff begins on a day that exists, or at a quarter of an hour of it."""
    text = f"currency: EUR\ntariffs: [{{valid_from: '{begin}', import_price: 1}}]"
    with pytest.raises(ConfigurationError, match=r"tariffs\[0\]\.valid_from"):
        parse_tariffs(text, "t.yaml", {})


@pytest.mark.parametrize("second", ["2025-12-31", "2026-01-01"])
def test_tariffs_stand_in_order(second: str) -> None:
    """A tariff that does not begin after the one above is refused, with its line."""
    one, two = (f"- {{valid_from: {day}, import_price: 1}}" for day in ("2026-01-01", second))
    with pytest.raises(ConfigurationError, match=r"t\.yaml:4: tariffs\[1\]\.valid_from: is not after"):
        parse_tariffs(f"currency: EUR\ntariffs:\n{one}\n{two}", "t.yaml", {})


WINDOWS = tariffs(
    "import_price: 1\nfeed_in_price: 7\nwindows:\n"
    "- {between: 22:00-06:00, days: [fri], import_price: 2}\n"
    "- {between: 00:00-24:00, days: [sat, sun], import_price: 3, feed_in_price: 8}\n"
    "- {between: 05:00-23:00, days: [sat], import_price: 4}\n"
).tariffs[0]


@pytest.mark.parametrize(
    ("day", "minute", "expected"),
    [
        ("thu", 23 * 60, (1, 7)),
        ("fri", 22 * 60 - 15, (1, 7)),
        ("fri", 22 * 60, (2, 7)),
        ("sat", 0, (2, 7)),
        ("sat", 6 * 60 - 15, (2, 7)),
        ("sat", 6 * 60, (3, 8)),
        ("sun", 24 * 60 - 15, (3, 8)),
        ("mon", 0, (1, 7)),
        ("mon", 5 * 60, (1, 7)),
    ],
)
def test_first_window_that_holds_has_the_price(day: str, minute: int, expected: tuple[int, int]) -> None:
    """A window over midnight belongs to the day on which it begins; of two, the upper one counts."""
    assert list(map(int, WINDOWS.prices(DAYS.index(day), minute))) == list(expected)


def refusal(text: str) -> str:
    """The message for a text; empty where it is read as tariffs."""
    try:
        assert parse_tariffs(text, "t.yaml", {}).tariffs
    except ConfigurationError as error:
        return str(error)
    return ""


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Whatever stands in the file, the answer is tariffs or a message."""
    first = "currency: EUR\ntariffs:\n  - valid_from: 2026-01-01\n    import_price: 1\n    "
    assert refusal(text).startswith("t.yaml:")
    added = refusal(first + text)
    assert not added or added.startswith("t.yaml:")


@given(st.from_regex(r"[0-9:T\- ]{0,17}", fullmatch=True))
def test_any_time_is_read_or_refused(text: str) -> None:
    """Whatever looks like a time, the answer is tariffs or a message that says what a time is."""
    begin = refusal(f"currency: EUR\ntariffs: [{{valid_from: '{text}', import_price: 1}}]")
    window = f"windows: [{{between: '{text}', import_price: 1}}]"
    of_window = refusal(f"currency: EUR\ntariffs: [{{valid_from: 2026-01-01, import_price: 1, {window}}}]")
    assert not begin or "such as 2026-01-01" in begin
    assert not of_window or "such as 22:00-06:00" in of_window
