"""A site's points in InfluxDB under another name.

Takes the old and the new name of the `site` tag. Copies each series in pieces, reads each piece back, and
drops the old series only once all are there. Never overwrites a field that the new name has already: what
both have, as the day in which the name was changed, is computed again from the samples of both. Doing it
again after any interruption goes on. Blocks.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from recorder.influx.answers import reason_of
from recorder.influx.errors import InfluxRefused
from recorder.influx.influxql import identifier, text
from recorder.influx.server import InfluxServer, Row
from recorder.influx.setup import SetUp
from recorder.points.line_protocol import to_line
from recorder.points.point import Point

SITE: Final = "site"
_PIECE_POINTS: Final = 5000
_TIMEOUT_SECONDS: Final = 600.0
# The averages behind the last sample of the old name know it.
_BESIDE: Final = timedelta(minutes=15)

Tags = tuple[tuple[str, str], ...]


class SiteRename:
    """Carries the points of one database over from one site's name to another.

    Args:
        server: where the database is.
        set_up: that of the database, for its queries.
        old: the name that the points have.
        new: the name that they get.
    """

    def __init__(self, server: InfluxServer, set_up: SetUp, old: str, new: str) -> None:
        self._server = server
        self._set_up = set_up
        self._old = old
        self._new = new

    def run(self, progress: Callable[[int, int], None]) -> int:
        """Copy, compute again what both names share, drop the old; returns the number of points copied.

        `progress` is called with the points that are done and their total.

        Raises:
            InfluxUnreachable: Nothing answered in time; the old series are all there.
            InfluxRefused: The server does not carry a statement or a write out.
        """
        series = list(self._series())
        total = sum(points for _, _, points in series)
        done = 0
        for source, tags, _ in series:
            for points in self._pieces(self._path(*source), tags):
                self._copy(*source, tags, points)
                done += len(points)
                progress(done, max(total, done))
        last = self._last_sample()
        if last is not None:
            self._set_up.backfill(last - timedelta(minutes=1), last + _BESIDE, datetime.now(UTC), _quiet)
        if series:
            self._query(f"DROP SERIES WHERE {identifier(SITE)} = {text(self._old)}")
        return done

    def _series(self) -> Iterator[tuple[tuple[str, str], Tags, int]]:
        """Yield each series of the old name: policy and measurement, its tags, how many points it has."""
        database = self._server.connection.database
        is_old = f"{identifier(SITE)} = {text(self._old)}"
        for policy in self._query(f"SHOW RETENTION POLICIES ON {identifier(database)}"):
            for measurement in self._query(f"SHOW MEASUREMENTS WHERE {is_old}"):
                source = self._path(policy["name"], measurement["name"])
                self._refuse_other_types(source)
                for row in self._query(f"SELECT count(*) FROM {source} WHERE {is_old} GROUP BY *"):  # noqa: S608 - all names are quoted
                    counts = [value for name, value in row.items() if name.startswith("count_")]
                    points = max(value or 0 for value in counts)
                    yield (policy["name"], measurement["name"]), _tags(row), points

    def _path(self, policy: str, measurement: str) -> str:
        return ".".join(map(identifier, (self._server.connection.database, policy, measurement)))

    def _refuse_other_types(self, source: str) -> None:
        rows = self._query(f"SHOW FIELD KEYS FROM {source}")
        if any(row["fieldType"] != "float" for row in rows):
            remedy = "another program wrote it: rename its site by hand, or drop it"
            raise InfluxRefused(400, f"{source} has a field that is no float", remedy)

    def _pieces(self, source: str, tags: Tags) -> Iterator[list[Row]]:
        """Yield the points of a series in order, a few thousand at a time."""
        after_ns = -(1 << 62)
        while True:
            where = f"{_with(tags)} AND time > {after_ns}"
            rows = self._query(f"SELECT * FROM {source} WHERE {where} ORDER BY time LIMIT {_PIECE_POINTS}")  # noqa: S608 - all names are quoted
            if not rows:
                return
            yield rows
            after_ns = rows[-1]["time"]

    def _copy(self, policy: str, measurement: str, tags: Tags, rows: Sequence[Row]) -> None:
        """Write a piece under the new name, without what is there already, and read it back."""
        source = self._path(policy, measurement)
        renamed = tuple((name, self._new if name == SITE else value) for name, value in tags)
        fields_at = {row["time"]: _fields(row, tags) for row in rows}
        present = self._present(source, renamed, rows)
        lines = []
        for at_ns, fields in fields_at.items():
            missing = {name: value for name, value in fields.items() if name not in present.get(at_ns, {})}
            if missing:
                lines.append(to_line(Point(measurement, renamed, missing, at_ns)))
        if not lines:
            return
        answer = self._server.write_into(policy, b"\n".join(lines))
        if answer.status != 204:
            reason = reason_of(answer.status, answer.body)
            raise InfluxRefused(answer.status, reason, "let the recorder's user write into this database")
        present = self._present(source, renamed, rows)
        if any(fields.keys() - present.get(at_ns, {}).keys() for at_ns, fields in fields_at.items()):
            raise InfluxRefused(500, f"{source} does not have all that was written", "run the command again")

    def _present(self, source: str, tags: Tags, rows: Sequence[Row]) -> dict[int, dict[str, float]]:
        within = f"{_with(tags)} AND time >= {rows[0]['time']} AND time <= {rows[-1]['time']}"
        found = self._query(f"SELECT * FROM {source} WHERE {within}")  # noqa: S608 - all names are quoted
        return {row["time"]: _fields(row, tags) for row in found}

    def _last_sample(self) -> datetime | None:
        """Return the time of the last energy of the old name."""
        is_old = f"{identifier(SITE)} = {text(self._old)}"
        database = identifier(self._server.connection.database)
        times = [
            row["time"]
            for source in ('"energy_10s"', f'{database}."rollups"."energy_15m"')
            for row in self._query(f"SELECT * FROM {source} WHERE {is_old} ORDER BY time DESC LIMIT 1")  # noqa: S608 - all names are quoted
        ]
        return datetime.fromtimestamp(max(times) / 1e9, UTC) if times else None

    def _query(self, statement: str) -> list[Row]:
        return self._server.query(statement, timeout_seconds=_TIMEOUT_SECONDS)


def sites_in(server: InfluxServer) -> frozenset[str]:
    """Return the sites whose points a database has.

    Raises:
        InfluxUnreachable: Nothing answered in time.
        InfluxRefused: The server does not carry a statement out.
    """
    rows = server.query(f"SHOW TAG VALUES WITH KEY = {identifier(SITE)}")
    return frozenset(row["value"] for row in rows)


def _tags(row: Mapping[str, object]) -> Tags:
    """Return the tags of a row: what is text; every field is a number."""
    return tuple(
        sorted(
            (name, value) for name, value in row.items() if isinstance(value, str) and name != "series_name"
        )
    )


def _fields(row: Row, tags: Tags) -> dict[str, float]:
    names = {name for name, _ in tags}
    return {
        name: value
        for name, value in row.items()
        if name not in names and name != "time" and isinstance(value, int | float)
    }


def _with(tags: Tags) -> str:
    return " AND ".join(f"{identifier(name)} = {text(value)}" for name, value in tags)


def _quiet(done: int, steps: int) -> None:
    """Progress that nobody watches."""
