"""The tariff file: prices with the day from which they hold, and windows of the day with prices of their own.

Takes the text of the file, gives frozen `Tariffs`. Never reads a file, and knows no time zone: days and times
are those of the clock on the wall.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from recorder.yaml_document import Allowed, ConfigurationError, Document, Mistake, parse_document

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
QUARTER_MINUTES: Final = 15
DAY_MINUTES: Final = 24 * 60

_TEXT_KEYS = frozenset({"currency", "valid_from", "between"})


def _decimal(value: object) -> Decimal:
    """A number as it was written, so that no price is rounded to a power of two."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError  # noqa: TRY004  # pydantic translates this one; the words are in `Allowed`
    return Decimal(repr(value))


def _begin(value: object) -> datetime:
    """A local day, or a quarter of an hour of one."""
    text = value if isinstance(value, str) else ""
    for form in ("%Y-%m-%d", "%Y-%m-%d %H:%M"):
        if len(text) == len("2026-01-01") + 6 * ("%H" in form):
            begin = datetime.strptime(text, form)  # noqa: DTZ007  # the owner's clock on the wall
            if begin.minute % QUARTER_MINUTES == 0:
                return begin
    raise ValueError


def _between(value: object) -> tuple[int, int]:
    """Minutes of the day from which and up to which a window is."""
    begin, dash, end = value.partition("-") if isinstance(value, str) else ("", "", "")
    minutes = _minute_of_day(begin), _minute_of_day(end)
    if not dash or minutes[0] == minutes[1] or minutes[0] == DAY_MINUTES:
        raise ValueError
    return minutes


def _minute_of_day(text: str) -> int:
    if text == "24:00":
        return DAY_MINUTES
    if len(text) != len("22:00"):
        raise ValueError
    at = datetime.strptime(text, "%H:%M")  # noqa: DTZ007  # the owner's clock on the wall
    if at.minute % QUARTER_MINUTES:
        raise ValueError
    return at.hour * 60 + at.minute


Price = Annotated[Decimal, BeforeValidator(_decimal), Field(ge=-10, le=100)]
_PRICE = Allowed("a price per kWh from -10 to 100, such as 0.3290")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Window(_Model):
    """A part of each of some days in which prices differ; the days are those on which it begins."""

    between: Annotated[
        tuple[int, int],
        BeforeValidator(_between),
        Allowed("two times on quarters of an hour, such as 22:00-06:00 or 13:00-24:00"),
    ]
    days: Annotated[
        tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...],
        Field(min_length=1, max_length=7),
        Allowed("a list of mon, tue, wed, thu, fri, sat, sun"),
    ] = DAYS
    import_price: Annotated[Price | None, _PRICE] = None
    feed_in_price: Annotated[Price | None, _PRICE] = None

    def holds(self, weekday: int, minute: int) -> bool:
        """Whether it holds at a minute of the day, on a weekday counted from Monday, 0."""
        begin, end = self.between
        today, yesterday = DAYS[weekday] in self.days, DAYS[weekday - 1] in self.days
        if begin < end:
            return today and begin <= minute < end
        return (today and minute >= begin) or (yesterday and minute < end)


class Tariff(_Model):
    """Prices that hold from a local time on, until the next tariff does."""

    valid_from: Annotated[
        datetime,
        BeforeValidator(_begin),
        Allowed("a local day, such as 2026-01-01, or a quarter of an hour of it, such as 2026-07-01 13:00"),
    ]
    import_price: Annotated[Price, _PRICE]
    feed_in_price: Annotated[Price, _PRICE] = Decimal(0)
    base_fee_per_month: Annotated[
        Annotated[Decimal, BeforeValidator(_decimal), Field(ge=0, le=1000)],
        Allowed("an amount from 0 to 1000"),
    ] = Decimal(0)
    windows: Annotated[
        tuple[Window, ...], Field(max_length=32), Allowed("a list of up to 32 windows, each with between")
    ] = ()

    def prices(self, weekday: int, minute: int) -> tuple[Decimal, Decimal]:
        """The price of a bought and of a sold kWh; of windows that hold together the first one counts."""
        for window in self.windows:
            if window.holds(weekday, minute):
                bought, sold = window.import_price, window.feed_in_price
                return (
                    self.import_price if bought is None else bought,
                    self.feed_in_price if sold is None else sold,
                )
        return self.import_price, self.feed_in_price


class Tariffs(_Model):
    """The whole file; `tariffs` are in the order in which they hold."""

    currency: Annotated[
        str, Field(pattern=r"\A[A-Z]{3}\z"), Allowed("three capitals of ISO 4217, such as EUR")
    ]
    tariffs: Annotated[
        tuple[Tariff, ...],
        Field(min_length=1, max_length=1000),
        Allowed("a list of 1 to 1000 tariffs, each with valid_from and import_price"),
    ]


def parse_tariffs(text: str, file: str, environment: Mapping[str, str]) -> Tariffs:
    """Check the text of a tariff file; `file` names it in messages.

    Raises:
        ConfigurationError: with all mistakes found, each with file, line, key and what is allowed.
    """
    document = parse_document(text, file, environment, _TEXT_KEYS)
    tariffs = document.validate(Tariffs)
    mistakes = list(_mistakes(document, tariffs))
    if mistakes:
        raise ConfigurationError(mistakes)
    return tariffs


def _mistakes(document: Document, found: Tariffs) -> Iterator[Mistake]:
    for index, tariff in enumerate(found.tariffs):
        if index and tariff.valid_from <= found.tariffs[index - 1].valid_from:
            path = ("tariffs", index, "valid_from")
            yield document.mistake(
                path, "is not after the tariff above", "put tariffs in order, oldest first"
            )
        for number, window in enumerate(tariff.windows):
            if window.import_price is None and window.feed_in_price is None:
                remedy = "give import_price, feed_in_price or both"
                yield document.mistake(("tariffs", index, "windows", number), "has no price", remedy)
