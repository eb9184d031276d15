"""The database made ready, and kept so: user, database, retention, continuous queries.

Takes a server and settings, gives a report of what was changed and of what somebody else has to
change. Doing it twice changes nothing. Never touches continuous queries of others, never shortens
retention, and never logs a password. Every call blocks.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import structlog

from recorder.influx.backfill import Step, steps
from recorder.influx.continuous_queries import ContinuousQuery, PolicyNames, statements
from recorder.influx.errors import InfluxRefused
from recorder.influx.influxql import identifier, parse_duration, text
from recorder.influx.retention import FOR_EVER, Policy, Retention, policy
from recorder.influx.server import InfluxServer, Row
from recorder.profiles.model import Profile

_log = structlog.get_logger(__name__)

_RAW_SHARD = timedelta(days=7)
_ROLLUPS_SHARD = timedelta(days=28)
_DEFAULT_POLICY = "autogen"
_EPOCH = datetime.fromtimestamp(0, UTC)
# What retention is about to delete is not worth the race.
_MARGIN = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class SetUpSettings:
    """What the database should look like.

    `timezone` is an IANA name. With `claim_new_server` the connection's user is created as the admin
    of a server that demands a login and has no user yet. A reader, for Grafana, is created where
    `reader_username` is set. `backfill_timeout_seconds` bounds one statement of a backfill.
    """

    profiles: tuple[Profile, ...]
    timezone: str
    retention: Retention = field(default_factory=Retention)
    create_database: bool = True
    claim_new_server: bool = False
    reader_username: str = ""
    reader_password: str = field(default="", repr=False)
    backfill_timeout_seconds: float = 600.0


@dataclass(slots=True)
class Report:
    """What was changed, and what is not as it should be, with what to do about it.

    `has_continuous_queries` is False where the server has none, as InfluxDB 2 and VictoriaMetrics:
    there nothing was done.
    """

    has_continuous_queries: bool = True
    changes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class SetUp:
    """Prepares one database, and repairs it."""

    def __init__(self, server: InfluxServer, settings: SetUpSettings) -> None:
        self._server = server
        self._settings = settings
        self._database = server.connection.database
        self._printed: dict[str, str] = {}
        self._told: set[str] = set()
        self.has_continuous_queries = True
        self.on_other_timezone: Callable[[str], None] | None = None
        """Called with the zone of installed queries by which days began so far, before they are replaced."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What was not as it should be when it was last looked at, with what to do about it."""
        return tuple(sorted(self._told))

    def apply(self) -> Report:
        """Claim a fresh server, create what is missing, repair what differs.

        Raises:
            InfluxUnreachable: Nothing answered in time.
            InfluxRefused: What answers is no time series database.
        """
        return self._run(self._claim, self._ensure_database, self._ensure_policies, self._ensure_reader)

    def audit(self) -> Report:
        """Repair what others changed or dropped since: database, retention, continuous queries.

        Raises:
            InfluxUnreachable: Nothing answered in time.
            InfluxRefused: What answers is no time series database.
        """
        return self._run(self._ensure_database, self._ensure_policies)

    def queries(self, raw_policy: str = _DEFAULT_POLICY) -> tuple[ContinuousQuery, ...]:
        """The continuous queries as they should be; `raw_policy` is the default one of the database."""
        names = PolicyNames(raw=raw_policy)
        return statements(self._database, self._settings.profiles, names, self._settings.timezone)

    def installable_queries(self) -> tuple[ContinuousQuery, ...]:
        """The continuous queries as they should be in the database as it is.

        Raises:
            InfluxUnreachable: Nothing answered in time.
            InfluxRefused: The server does not carry a statement out.
        """
        return self.queries(_default_of(self._policies()))

    def installed_timezone(self) -> str:
        """Return the zone by which the installed queries compute days; empty where there is none.

        Raises:
            InfluxUnreachable: Nothing answered in time.
            InfluxRefused: The server does not carry a statement out.
        """
        return _timezone_of(self._present_queries().get("energy_1d", ""))

    def backfill(
        self,
        start: datetime,
        end: datetime,
        now: datetime,
        progress: Callable[[int, int], None],
        resume: tuple[int, int] = (0, 0),
    ) -> int:
        """Compute again what the continuous queries write from `start` to `end`, both aware.

        `progress` is called with the steps done and their total, before each step and at the end; what it
        raises ends the backfill. The last such pair is `resume` where one that was cut short goes on. What
        retention policies no longer keep at `now` is left out. Returns the number of points written.

        Raises:
            InfluxUnreachable: Nothing answered in time.
            InfluxRefused: The server does not carry a statement out.
        """
        todo = self._steps(start, end, now)
        # What retention no longer keeps may have gone from the list since it was cut short.
        done_before = resume[0] if resume[1] == len(todo) else 0
        written = 0
        for done, (step, oldest) in enumerate(todo[done_before:], done_before):
            progress(done, len(todo))
            written += self._carry_out(step, oldest)
        progress(len(todo), len(todo))
        return written

    def compute(
        self, start: datetime, end: datetime, now: datetime, wanted: Callable[[ContinuousQuery], bool]
    ) -> None:
        """The same for some of the queries, at once.

        Raises:
            InfluxUnreachable: Nothing answered in time.
            InfluxRefused: The server does not carry a statement out.
        """
        for step, oldest in self._steps(start, end, now):
            if wanted(step.query):
                self._carry_out(step, oldest)

    def last_sample_before(self, at: datetime) -> int | None:
        """Give the Unix ns of the newest sample that is older than `at`; None where there is none.

        Raises:
            InfluxUnreachable: Nothing answered in time.
            InfluxRefused: The server does not carry a statement out.
        """
        raw = _default_of(self._policies())
        averages = (query for query in self.queries(raw) if query.source_policy == raw and query.preceding)
        rows = [row for query in averages for row in self._slow_query(query.preceding_statement(at, 1))]
        return max((int(row["time"]) for row in rows), default=None)

    def _steps(self, start: datetime, end: datetime, now: datetime) -> list[tuple[Step, datetime]]:
        """Give the steps of a backfill, each with the time from which on its results are kept."""
        timezone = ZoneInfo(self._settings.timezone)
        policies = self._policies()
        todo: list[tuple[Step, datetime]] = []
        for query in self.queries(_default_of(policies)):
            kept = policies[query.policy][0].kept
            oldest = _EPOCH if kept == FOR_EVER else now - kept + query.bucket + _MARGIN
            todo += ((step, oldest) for step in steps(query, max(start, oldest), end, timezone))
        return todo

    def _carry_out(self, step: Step, oldest: datetime) -> int:
        """Run one step, and give the number of points written."""
        statements = step.statements(self._slow_query, oldest)
        return sum(int(row["written"]) for one in statements for row in self._slow_query(one))

    def _slow_query(self, statement: str) -> list[Row]:
        return self._server.query(statement, timeout_seconds=self._settings.backfill_timeout_seconds)

    def _run(self, *tasks: Callable[[Report], None]) -> Report:
        kind = self._server.detect()
        self.has_continuous_queries = kind.has_continuous_queries
        report = Report(has_continuous_queries=kind.has_continuous_queries)
        if kind.has_continuous_queries:
            try:
                for task in (*tasks, self._ensure_queries):
                    task(report)
            except InfluxRefused as error:
                report.problems.append(str(error))
        else:
            name = kind.version or "this server"
            report.problems.append(
                f"{name} has no continuous queries: averages and energies need InfluxDB 1.x"
            )
        for change in report.changes:
            _log.info("InfluxDB was set up", change=change, database=self._database)
        for problem in set(report.problems) - self._told:
            _log.warning("InfluxDB is not set up", problem=problem, database=self._database)
        self._told = set(report.problems)
        return report

    def _claim(self, report: Report) -> None:
        """Create the configured user as the first admin of a server that demands one."""
        connection = self._server.connection
        try:
            self._server.query("SHOW DATABASES")
        except InfluxRefused as error:
            claims = self._settings.claim_new_server and connection.username
            if "create admin user first" not in error.reason or not claims:
                raise
            user, password = identifier(connection.username), text(connection.password)
            self._server.query(f"CREATE USER {user} WITH PASSWORD {password} WITH ALL PRIVILEGES")
            report.changes.append(f"created the admin user {connection.username}")

    def _ensure_database(self, report: Report) -> None:
        if any(row["name"] == self._database for row in self._server.query("SHOW DATABASES")):
            return
        if not self._settings.create_database:
            remedy = "create it, or let the recorder do so"
            raise InfluxRefused(404, f"database {self._database} is missing", remedy)
        default = policy(_DEFAULT_POLICY, self._settings.retention.raw, _RAW_SHARD)
        self._server.query(default.create_database_statement(self._database))
        report.changes.append(f"created the database {self._database}")

    def _ensure_policies(self, report: Report) -> None:
        found = self._policies()
        raw = _default_of(found)
        names, kept = PolicyNames(raw), self._settings.retention
        wanted = (
            policy(names.raw, kept.raw, _RAW_SHARD),
            policy(names.avg10, kept.avg10, _RAW_SHARD),
            policy(names.rollups, kept.rollups, _ROLLUPS_SHARD),
        )
        for each in wanted:
            if each.name not in found:
                self._server.query(each.create_statement(self._database))
                report.changes.append(f"created the retention policy {each.name}")
            else:
                self._align(found[each.name][0], each, report)

    def _align(self, present: Policy, wanted: Policy, report: Report) -> None:
        """Change a policy's duration; its shards only along with that."""
        if present.kept == wanted.kept:
            return
        if present.keeps_longer_than(wanted):
            report.problems.append(
                f"retention policy {wanted.name} keeps data longer than configured, and shortening it "
                "deletes data: configure the longer duration, or shorten it yourself with the statement "
                f"{wanted.alter_statement(self._database)}"
            )
            return
        self._server.query(wanted.alter_statement(self._database))
        report.changes.append(f"retention policy {wanted.name} changed from {present.kept} to {wanted.kept}")

    def _ensure_reader(self, report: Report) -> None:
        """A user who may read this database; its password is set only where the present one is wrong."""
        reader = self._settings.reader_username
        if not reader:
            return
        user, password = identifier(reader), text(self._settings.reader_password)
        if not any(row["user"] == reader for row in self._server.query("SHOW USERS")):
            self._server.query(f"CREATE USER {user} WITH PASSWORD {password}")
            report.changes.append(f"created the user {reader}")
        grants = self._server.query(f"SHOW GRANTS FOR {user}")
        if not any(row["database"] == self._database and row["privilege"] == "READ" for row in grants):
            self._server.query(f"GRANT READ ON {identifier(self._database)} TO {user}")
            report.changes.append(f"let {reader} read {self._database}")
        if not self._knows_password(reader):
            self._server.query(f"SET PASSWORD FOR {user} = {password}")
            report.changes.append(f"set the password of {reader}")

    def _knows_password(self, reader: str) -> bool:
        login = replace(
            self._server.connection, username=reader, password=self._settings.reader_password, token=""
        )
        server = InfluxServer(login)
        try:
            server.query("SHOW MEASUREMENTS LIMIT 1")
        except InfluxRefused:
            return False
        finally:
            server.close()
        return True

    def _ensure_queries(self, report: Report) -> None:
        """Make the continuous queries of the database the ones of the table; others stay."""
        raw = _default_of(self._policies())
        wanted = {query.name: query for query in self.queries(raw)}
        present = self._present_queries()
        installed = _timezone_of(present.get("energy_1d", ""))
        if installed not in {"", self._settings.timezone}:
            report.changes.append(f"days begin by {self._settings.timezone}, no longer by {installed}")
            if self.on_other_timezone is not None:
                self.on_other_timezone(installed)
        for name in [name for name, printed in present.items() if self._is_ours(name, printed)]:
            if name not in wanted:
                self._drop(name)
                report.changes.append(f"dropped the continuous query {name}, which is not needed any more")
        created = []
        for name, query in wanted.items():
            printed = present.get(name)
            if printed in {_normalised(query.create_statement), self._printed.get(name, "")}:
                continue
            if printed is not None:
                self._drop(name)
            self._server.query(query.create_statement)
            created.append(name)
            report.changes.append(
                f"{'created' if printed is None else 'repaired'} the continuous query {name}"
            )
        if created:
            # A server may print a query in words of its own: those are as good as ours from now on.
            present = self._present_queries()
            self._printed.update((name, present[name]) for name in created)

    def _drop(self, name: str) -> None:
        self._server.query(f"DROP CONTINUOUS QUERY {identifier(name)} ON {identifier(self._database)}")

    def _present_queries(self) -> dict[str, str]:
        rows = self._server.query("SHOW CONTINUOUS QUERIES")
        return {
            row["name"]: _normalised(row["query"]) for row in rows if row["series_name"] == self._database
        }

    def _is_ours(self, name: str, printed: str) -> bool:
        """Whether a query writes into a retention class of ours, under the name of its target."""
        names = PolicyNames()
        target = re.search(
            rf" INTO {re.escape(self._database)}\.({names.avg10}|{names.rollups})\.(\S+)", printed
        )
        return target is not None and name.startswith(target[2])

    def _policies(self) -> dict[str, tuple[Policy, bool]]:
        """Each retention policy of the database, and whether it is the default one."""
        rows = self._server.query(f"SHOW RETENTION POLICIES ON {identifier(self._database)}")
        return {
            row["name"]: (
                Policy(
                    row["name"], parse_duration(row["duration"]), parse_duration(row["shardGroupDuration"])
                ),
                row["default"],
            )
            for row in rows
        }


def _default_of(policies: Mapping[str, tuple[Policy, bool]]) -> str:
    """Give the name of the default retention policy.

    Raises:
        InfluxRefused: There is none.
    """
    for name, (_, is_default) in policies.items():
        if is_default:
            return name
    raise InfluxRefused(500, "the database has no default retention policy", "restore it")


def _normalised(statement: str) -> str:
    """A statement without what servers print differently: quotes of names, and spacing."""
    return " ".join(statement.replace('"', "").split())


def _timezone_of(printed: str) -> str:
    found = re.search(r"TZ\('([^']+)'\)", printed)
    return found[1] if found else ""


def show(queries: Sequence[ContinuousQuery]) -> str:
    """The statements that install the queries, one a line, for a person to read or to run."""
    return "".join(f"{query.create_statement};\n" for query in queries)
