"""What a day cost and earned, and what it would have cost without PV and battery.

Takes quarters of an hour with their energies, tariffs and a time zone, gives amounts of each local day.
Exact: it computes with decimals and rounds once, at the end of a day, to `STEP`. Never does I/O.

    cost_without_system = home x import price + base fee       what the home used, had all of it been bought
    import_cost         = bought x import price + base fee
    feed_in_income      = sold x feed-in price
    saved               = cost_without_system - import_cost + feed_in_income

summed over the quarters of an hour of the day, each with the prices at its begin. A day's base fee is that of
a month by the days of that month, of the tariff at the day's first quarter that has one.
"""

from bisect import bisect_right
from calendar import monthrange
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import groupby
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from recorder.tariffs.model import Tariff, Tariffs

STEP: Final = Decimal("0.000001")
"""To what amounts are rounded, in the currency; halves go to the even neighbour."""


class Quarter(NamedTuple):
    """The energies of a quarter of an hour, kWh, and its begin, an aware time."""

    begin: datetime
    home: float
    bought: float
    sold: float


class Savings(NamedTuple):
    """The amounts of a local day, in the currency of the tariffs."""

    day: date
    cost_without_system: Decimal
    import_cost: Decimal
    feed_in_income: Decimal

    @property
    def saved(self) -> Decimal:
        """What the system saved; the other amounts as they were rounded add up to it exactly."""
        return self.cost_without_system - self.import_cost + self.feed_in_income


def savings(quarters: Iterable[Quarter], tariffs: Tariffs, zone: ZoneInfo) -> Iterator[Savings]:
    """Give the amounts of each local day, from quarters in order of time; none for a day without a tariff."""
    begins = [midnight(each.valid_from, zone).timestamp() for each in tariffs.tariffs]
    for day, of_day in groupby(quarters, lambda quarter: quarter.begin.astimezone(zone).date()):
        priced = [
            (quarter, tariffs.tariffs[number - 1])
            for quarter in of_day
            if (number := bisect_right(begins, quarter.begin.timestamp()))
        ]
        if priced:
            yield _of_day(day, priced, zone)


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """When a local day begins, or the local time itself, in UTC."""
    local = day if isinstance(day, datetime) else datetime.combine(day, time())
    return local.replace(tzinfo=zone).astimezone(UTC)


def _of_day(day: date, priced: list[tuple[Quarter, Tariff]], zone: ZoneInfo) -> Savings:
    fee = priced[0][1].base_fee_per_month / monthrange(day.year, day.month)[1]
    without, bought, sold = fee, fee, Decimal(0)
    for quarter, tariff in priced:
        local = quarter.begin.astimezone(zone)
        import_price, feed_in_price = tariff.prices(local.weekday(), local.hour * 60 + local.minute)
        without += _exact(quarter.home) * import_price
        bought += _exact(quarter.bought) * import_price
        sold += _exact(quarter.sold) * feed_in_price
    return Savings(day, _rounded(without), _rounded(bought), _rounded(sold))


def _exact(energy_kwh: float) -> Decimal:
    return Decimal(repr(energy_kwh))


def _rounded(amount: Decimal) -> Decimal:
    return amount.quantize(STEP, ROUND_HALF_EVEN)
