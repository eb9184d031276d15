"""What each local day saved, in the database: `savings_1d` beside the energies it is computed from.

Takes tariffs and days, reads `energy_15m`, writes a point for each site and day that has both energy and a
tariff. Doing it twice changes nothing. Blocks; never retries.

Energies are those of the counters where a quarter of an hour has one, else those integrated from power. The
time of a point is the local midnight at which its day begins, as in `energy_1d`.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from recorder.influx.answers import reason_of
from recorder.influx.continuous_queries import PolicyNames
from recorder.influx.errors import InfluxRefused
from recorder.influx.influxql import identifier, instant
from recorder.influx.server import InfluxServer, Row
from recorder.points.line_protocol import to_line
from recorder.points.point import Point
from recorder.tariffs.model import Tariffs
from recorder.tariffs.savings import Quarter, Savings, midnight, savings

MEASUREMENT = "savings_1d"
# So many days are read at once: a year of quarter hours would be much memory for a small machine.
_CHUNK = timedelta(days=31)
_DAY = timedelta(days=1)
_READ = ("home", "grid_import", "grid_export", "grid_import_integrated", "grid_export_integrated")


class DailySavings:
    """Computes the savings of days in one database.

    Args:
        server: whose database has the energies.
        tariffs: what energy costs and earns.
        timezone: an IANA name: days, and the windows of tariffs, are by it.
    """

    def __init__(self, server: InfluxServer, tariffs: Tariffs, timezone: str) -> None:
        self._server = server
        self._tariffs = tariffs
        self._zone = ZoneInfo(timezone)
        self._policy = PolicyNames().rollups

    def first_day(self) -> date | None:
        """Give the local day of the oldest energy; None where there is none.

        Raises:
            InfluxUnreachable: Nothing answered in time.
            InfluxRefused: The server does not carry a statement out.
        """
        rows = self._server.query(f'SELECT first("home") FROM {self._source}')  # noqa: S608 - all names are quoted
        times = [datetime.fromtimestamp(row["time"] / 1e9, self._zone) for row in rows]
        return min(times).date() if times else None

    def today(self, now: datetime) -> date:
        """Give the local day of an aware moment."""
        return now.astimezone(self._zone).date()

    def compute(self, first: date, last: date) -> int:
        """Write the savings of local days, both ends included; the number of points written.

        Raises:
            InfluxUnreachable: Nothing answered in time; some days may have been written.
            InfluxRefused: The server does not carry a statement or a write out.
        """
        written = 0
        while first <= last:
            end = min(first + _CHUNK - _DAY, last)
            lines = [to_line(point) for point in self._points(first, end)]
            if lines:
                self._write(lines)
            written += len(lines)
            first = end + _DAY
        return written

    def compute_anew(self, first: date, last: date) -> int:
        """The same, and forget what these days had before: a day without a tariff has nothing then.

        Raises:
            InfluxUnreachable: Nothing answered in time; some days may have been written.
            InfluxRefused: The server does not carry a statement or a write out.
        """
        self._server.query(f"DELETE FROM {identifier(MEASUREMENT)} WHERE {self._within(first, last)}")  # noqa: S608 - all names are quoted
        return self.compute(first, last)

    @property
    def _source(self) -> str:
        names = (self._server.connection.database, self._policy, "energy_15m")
        return ".".join(map(identifier, names))

    def _within(self, first: date, last: date) -> str:
        begin, end = midnight(first, self._zone), midnight(last + _DAY, self._zone)
        return f"time >= {instant(begin)} AND time < {instant(end)}"

    def _points(self, first: date, last: date) -> Iterator[Point]:
        sums = ", ".join(f"sum({identifier(name)}) AS {identifier(name)}" for name in _READ)
        grouping = 'GROUP BY time(15m), "site" fill(none)'
        statement = f"SELECT {sums} FROM {self._source} WHERE {self._within(first, last)} {grouping}"  # noqa: S608 - all names are quoted
        by_site: dict[str, list[Quarter]] = {}
        for row in self._server.query(statement):
            by_site.setdefault(row["site"], []).append(_quarter(row))
        for site, quarters in by_site.items():
            for of_day in savings(quarters, self._tariffs, self._zone):
                yield self._point(site, of_day)

    def _point(self, site: str, of_day: Savings) -> Point:
        fields = {
            "cost_without_system": float(of_day.cost_without_system),
            "import_cost": float(of_day.import_cost),
            "feed_in_income": float(of_day.feed_in_income),
            "saved": float(of_day.saved),
        }
        at_ns = round(midnight(of_day.day, self._zone).timestamp()) * 10**9
        return Point(MEASUREMENT, (("site", site),) if site else (), fields, at_ns)

    def _write(self, lines: list[bytes]) -> None:
        answer = self._server.write_into(self._policy, b"\n".join(lines))
        if answer.status != 204:
            reason = reason_of(answer.status, answer.body)
            raise InfluxRefused(answer.status, reason, "let the recorder's user write into this database")


def _quarter(row: Row) -> Quarter:
    """Counters first: what was integrated counts where no counter gained anything that is known."""
    bought, sold = (
        row[f"{name}_integrated"] if row[name] is None else row[name]
        for name in ("grid_import", "grid_export")
    )
    begin = datetime.fromtimestamp(row["time"] // 10**9, UTC)
    return Quarter(begin, row["home"] or 0.0, bought or 0.0, sold or 0.0)
