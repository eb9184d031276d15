"""The continuous queries, as a table that is generated from the profiles.

Takes profiles, gives InfluxQL: ten-sample means, minute rollups, energies. Never talks to a server.

    pcs ───────► pcs_avg10              mean of the last ten samples, each second
    pcs ───────► pcs_1m                 mean, min, max, last of each minute
    energy_10s ► energy_15m ──► energy_1h
                          └───► energy_1d
    *_1m ──────► *_1h                   mean, min, max, last of each local hour
    recorder ──► recorder_1h            highest ages and queues, last counts

Each query is run once more over what it has already computed (`FOR`), so that late points count; what
is later still is recomputed by a backfill. All results keep the tags of their source: the flows of a site and
each of its submeters are series of one measurement, told apart by `device`, and a reader sums over the series
of a site.
"""

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from recorder.counts import MEANINGS
from recorder.influx.influxql import duration, identifier, instant, text
from recorder.points.energy import MEASUREMENT as ENERGY
from recorder.points.energy import energy_fields
from recorder.points.flow import FLOW_FIELDS
from recorder.points.health import MEASUREMENT as HEALTH
from recorder.profiles.model import DerivedField, Profile, Register

SAMPLES_OF_AVERAGE = 10
# Shorter than the spacing of samples, so that no bucket holds two of them.
_SAMPLE_BUCKET = timedelta(milliseconds=100)
_MINUTE = timedelta(minutes=1)
_FLOWS_WITH_EXTREMES = FLOW_FIELDS[:6]
# Of the recorder's own figures: what is bad when it is high, and what only grows.
_HEALTH_LEVELS = ("sample_age", "connections", "queue_points", "queue_bytes", "queue_age", "late_seconds")
_HEALTH_COUNTERS = ("dropped", "damaged", "rejected", "written", "retries", "dead_letters", "backfills")


@dataclass(frozen=True, slots=True)
class PolicyNames:
    """The retention policies: `raw` is the default one of the database, the others are ours."""

    raw: str = "autogen"
    avg10: str = "avg10"
    rollups: str = "rollups"


class Term(NamedTuple):
    """One field of a rollup: `function` (mean, last, min or max) of a `field`, stored as `result`."""

    function: str
    field: str
    result: str


@dataclass(frozen=True, slots=True)
class ContinuousQuery:
    """One query: `select` from the measurement `source` into `target`, in buckets of `bucket`.

    `source_policy` and `policy` are the retention policies of the two. The query is run each `every`
    over the last `resampled`. `timezone` is set where buckets begin by local time. A backfill cuts its
    range into pieces of `chunk`, small enough for a Raspberry Pi. A result depends on as many as `preceding`
    samples from before its bucket, however long before; a backfill looks for them.
    """

    name: str
    database: str
    select: str
    source_policy: str
    source: str
    policy: str
    target: str
    bucket: timedelta
    every: timedelta
    resampled: timedelta
    chunk: timedelta
    preceding: int = 0
    timezone: str = ""

    @property
    def create_statement(self) -> str:
        """The statement that installs the query."""
        return (
            f"CREATE CONTINUOUS QUERY {identifier(self.name)} ON {identifier(self.database)} "
            f"RESAMPLE EVERY {duration(self.every)} FOR {duration(self.resampled)} "
            f"BEGIN {self._statement('')} END"
        )

    def backfill_statement(
        self, start: datetime, end: datetime, tags: Mapping[str, str] | None = None
    ) -> str:
        """The same for one range of past buckets; both ends have to be where buckets begin.

        With `tags` it is for the one series that has them.
        """
        series = "".join(f" AND {identifier(name)} = {text(value)}" for name, value in (tags or {}).items())
        return self._statement(f" WHERE {_within(start, end)}{series}")

    def series_statement(self, start: datetime, end: datetime) -> str:
        """The statement that gives a row for each series that has samples in a range."""
        return f"SELECT * FROM {self._source} WHERE {_within(start, end)} GROUP BY * LIMIT 1"  # noqa: S608 - all names are quoted

    def preceding_statement(self, before: datetime, rows: int) -> str:
        """The statement that gives each series' last `rows` samples before an instant, newest first."""
        where = f"WHERE time < {instant(before)} GROUP BY * ORDER BY time DESC LIMIT {rows}"
        return f"SELECT * FROM {self._source} {where}"  # noqa: S608 - all names are quoted

    def oldest_statement(self) -> str:
        """The statement that gives the oldest point of the source."""
        return f"SELECT * FROM {self._source} ORDER BY time LIMIT 1"  # noqa: S608 - all names are quoted

    def results_statement(self, start: datetime, end: datetime) -> str:
        """The statement that gives the results of a range."""
        target = _path(self.database, self.policy, self.target)
        return f"SELECT * FROM {target} WHERE {_within(start, end)}"  # noqa: S608 - all names are quoted

    def _statement(self, where: str) -> str:
        zone = f" TZ({text(self.timezone)})" if self.timezone else ""
        target = _path(self.database, self.policy, self.target)
        grouping = f"GROUP BY time({duration(self.bucket)}), * fill(none){zone}"
        return f"SELECT {self.select} INTO {target} FROM {self._source}{where} {grouping}"  # noqa: S608 - all names are quoted

    @property
    def _source(self) -> str:
        return _path(self.database, self.source_policy, self.source)


def statements(
    database: str, profiles: Sequence[Profile], policies: PolicyNames, timezone: str
) -> tuple[ContinuousQuery, ...]:
    """Every continuous query of a database, in the order in which one needs the other.

    `timezone` is an IANA name: hours and days begin by it. Profiles with the same measurement share
    its queries.
    """
    table = _Table(database, policies, timezone)
    energies = energy_fields(profiles)
    of_minutes = minute_terms(profiles)
    return (
        *(table.average(measurement, tuple(known)) for measurement, known in _fields_of(profiles).items()),
        *(table.minutes(measurement, _select(terms)) for measurement, terms in of_minutes.items()),
        *(table.hours(measurement, terms) for measurement, terms in of_minutes.items()),
        table.health_hours(),
        table.energy_of_quarters(energies),
        table.energy_sums("energy_1h", timedelta(hours=1), timedelta(days=1), energies),
        table.energy_sums("energy_1d", timedelta(days=1), timedelta(days=2), energies),
    )


def minute_terms(profiles: Sequence[Profile]) -> dict[str, tuple[Term, ...]]:
    """What a minute of each measurement holds, `flow` last.

    Gauges are averaged; counters and states keep the last value of the minute.
    """
    terms = {name: _rollups(fields.values()) for name, fields in _fields_of(profiles).items()}
    return {**terms, "flow": _flow_rollups()}


def _fields_of(profiles: Sequence[Profile]) -> dict[str, dict[str, Register | DerivedField]]:
    fields: dict[str, dict[str, Register | DerivedField]] = {}
    for profile in profiles:
        fields.setdefault(profile.measurement, {}).update((each.name, each) for each in profile.fields)
    return fields


def _rollups(fields: Collection[Register | DerivedField]) -> tuple[Term, ...]:
    taken = {each.name for each in fields}
    terms = []
    for each in fields:
        terms.append(Term("mean" if each.kind == "gauge" else "last", each.name, each.name))
        if each.extremes:
            terms += _extremes(each.name, taken)
    return tuple(terms)


def _flow_rollups() -> tuple[Term, ...]:
    terms = [Term("mean", name, name) for name in FLOW_FIELDS]
    for name in _FLOWS_WITH_EXTREMES:
        terms += _extremes(name)
    return tuple(terms)


def _extremes(name: str, taken: Container[str] = ()) -> list[Term]:
    """The extremes, and where each goes: to `_maximum` where a device has a value named `_max`."""
    return [
        Term(short, name, f"{name}_{long}" if f"{name}_{short}" in taken else f"{name}_{short}")
        for short, long in (("min", "minimum"), ("max", "maximum"))
    ]


def _select(terms: Iterable[Term]) -> str:
    return ", ".join(_term(*term) for term in terms)


def _select_of_minutes(terms: Iterable[Term]) -> str:
    """The same of the minutes: the least of the least, the greatest of the greatest."""
    return _select(Term(function, result, result) for function, _, result in terms)


def _term(function: str, field_name: str, result: str) -> str:
    return f"{function}({identifier(field_name)}) AS {identifier(result)}"


@dataclass(frozen=True, slots=True)
class _Table:
    """Makes the queries of one database."""

    database: str
    policies: PolicyNames
    timezone: str

    def average(self, measurement: str, names: Iterable[str]) -> ContinuousQuery:
        """The mean of each field's last ten samples, for every sample from the tenth on.

        Each field has a window of its own, which counts samples and not time, because empty buckets
        are left out. The result carries the start of its bucket as time.
        """
        terms = [
            f"moving_average(mean({identifier(name)}), {SAMPLES_OF_AVERAGE}) AS {identifier(name)}"
            for name in names
        ]
        return ContinuousQuery(
            name=f"{measurement}_avg10",
            database=self.database,
            select=", ".join(terms),
            source_policy=self.policies.raw,
            source=measurement,
            policy=self.policies.avg10,
            target=f"{measurement}_avg10",
            bucket=_SAMPLE_BUCKET,
            every=timedelta(seconds=1),
            resampled=_MINUTE,
            chunk=timedelta(hours=1),
            preceding=SAMPLES_OF_AVERAGE - 1,
        )

    def minutes(self, measurement: str, select: str) -> ContinuousQuery:
        """One point a minute; ten minutes are computed again, for points that came late."""
        return ContinuousQuery(
            name=f"{measurement}_1m",
            database=self.database,
            select=select,
            source_policy=self.policies.raw,
            source=measurement,
            policy=self.policies.rollups,
            target=f"{measurement}_1m",
            bucket=_MINUTE,
            every=_MINUTE,
            resampled=timedelta(minutes=10),
            chunk=timedelta(hours=6),
        )

    def hours(self, measurement: str, terms: Iterable[Term]) -> ContinuousQuery:
        """One point a local hour, from minutes, so that a year is read as fast as a week.

        In `flow_1h` also `coverage`: how much of the hour has minutes, 0 to 1.
        """
        select = _select_of_minutes(terms)
        if measurement == "flow":
            select += f', count({identifier(FLOW_FIELDS[0])}) / 60 AS "coverage"'
        return self._hours(
            measurement, select, self.policies.rollups, f"{measurement}_1m", timedelta(days=31)
        )

    def health_hours(self) -> ContinuousQuery:
        """The recorder's own figures of each local hour."""
        terms = [_term("max", name, name) for name in _HEALTH_LEVELS]
        terms += [_term("last", name, name) for name in (*MEANINGS, *_HEALTH_COUNTERS)]
        return self._hours(HEALTH, ", ".join(terms), self.policies.raw, HEALTH, timedelta(days=1))

    def energy_of_quarters(self, names: Iterable[str]) -> ContinuousQuery:
        """Energy in kWh of quarter hours, the one that is not over yet included."""
        return ContinuousQuery(
            name="energy_15m",
            database=self.database,
            select=", ".join(_term("sum", each, each) for each in names),
            source_policy=self.policies.raw,
            source=ENERGY,
            policy=self.policies.rollups,
            target="energy_15m",
            bucket=timedelta(minutes=15),
            every=timedelta(minutes=5),
            resampled=timedelta(hours=1),
            chunk=timedelta(days=1),
        )

    def energy_sums(
        self, name: str, bucket: timedelta, resampled: timedelta, names: Iterable[str]
    ) -> ContinuousQuery:
        """Energy in kWh of local hours or days, the one that is not over yet included."""
        return ContinuousQuery(
            name=name,
            database=self.database,
            select=", ".join(_term("sum", each, each) for each in names),
            source_policy=self.policies.rollups,
            source="energy_15m",
            policy=self.policies.rollups,
            target=name,
            bucket=bucket,
            every=timedelta(minutes=5),
            resampled=resampled,
            chunk=timedelta(days=366),
            timezone=self.timezone,
        )

    def _hours(
        self, measurement: str, select: str, source_policy: str, source: str, chunk: timedelta
    ) -> ContinuousQuery:
        return ContinuousQuery(
            name=f"{measurement}_1h",
            database=self.database,
            select=select,
            source_policy=source_policy,
            source=source,
            policy=self.policies.rollups,
            target=f"{measurement}_1h",
            bucket=timedelta(hours=1),
            every=timedelta(minutes=5),
            resampled=timedelta(hours=2),
            chunk=chunk,
            timezone=self.timezone,
        )


def _within(start: datetime, end: datetime) -> str:
    return f"time >= {instant(start)} AND time < {instant(end)}"


def _path(*names: str) -> str:
    return ".".join(map(identifier, names))
