"""The store's file: one SQLite database with the cells of each bucket as one row.

Takes cells to merge into what is there, gives them back by series and range. Never trusts what it
reads: each row has a checksum, and one that is damaged counts as not there. Used by one thread at a time.

    series   id, site, measurement, device, fields in the order of the cells (only ever appended to)
    bucket   key = series, step and time in one integer, so that a range is one walk through the file
    owed     one row: the time that no InfluxDB has got yet
    facts    what else is known of the file, by name: from when on energies of all flows are stored; by
             which time zone hours and days begin
"""

import json
import sqlite3
import struct
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, NoReturn
from zlib import crc32

import structlog

from recorder.store.buckets import STEPS, Cells, Step, merge
from recorder.store.thinning import SeriesKey

FILE_NAME: Final = "history.db"
_APPLICATION_ID: Final = 0x45535348
_VERSION: Final = 1
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS series (number INTEGER PRIMARY KEY, site, measurement, device, fields, crc)",
    "CREATE TABLE IF NOT EXISTS bucket (key INTEGER PRIMARY KEY, cells BLOB)",
    "CREATE TABLE IF NOT EXISTS owed (number INTEGER PRIMARY KEY, first_s, last_s, crc)",
    "CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value, crc)",
)
_DAMAGE: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_CELL: Final = struct.Struct("<4d")
_CRC: Final = struct.Struct("<I")
# Minutes fit into 32 bits until the year 10000; above them stand the series and the step.
_TIME_BITS: Final = 32
_MOST_SET_ASIDE: Final = 3
LAST_S: Final = 60 << _TIME_BITS
"""Beyond every bucket, Unix seconds."""

_log = structlog.get_logger(__name__)


class _Everything:
    """Holds every name."""

    def __contains__(self, name: object) -> bool:
        return True


EVERYTHING: Final[Container[str]] = _Everything()
"""What is wanted where every field of a series is."""

Rows = dict[tuple[SeriesKey, Step, int], Cells]
"""The cells of buckets by series, width and beginning."""


class Owed(NamedTuple):
    """The time that was recorded without an InfluxDB and is in none yet, Unix seconds."""

    first_s: int
    last_s: int


class Database:
    """The open file; a damaged one, or one of another program, is moved aside and a fresh one begun.

    Args:
        path: the file; made, with its directory, where it is not there.

    Raises:
        OSError: it cannot be made.
        sqlite3.Error: it cannot be opened, for another reason than damage.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._has_told_damage = False
        self.owed: Owed | None = None
        self.energy_since_s = 0
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._series: dict[SeriesKey, tuple[int, list[str]]] = {}
        self._last_number = 0
        try:
            self._connection = self._open()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self._set_aside(str(error))
            self._connection = self._open()

    @property
    def series(self) -> tuple[SeriesKey, ...]:
        """The series that are stored."""
        return tuple(self._series)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def set_aside(self, reason: str) -> None:
        """Close the file and move it out of the way, because it is damaged."""
        self._connection.close()
        self._set_aside(reason)

    def add(self, rows: Rows, owed: Owed | None) -> None:
        """Merge cells into their buckets, and remember what is owed: all of it, or nothing when it fails.

        Raises:
            sqlite3.Error: the file cannot be written.
        """
        known = dict(self._series)
        try:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._merge(rows)
                self._write_owed(owed)
        except BaseException:
            # The commit, too, may fail: it is where the disk is written.
            self._series = known
            raise
        self.owed = owed

    def replace(
        self,
        outdated: Iterable[tuple[SeriesKey, Step]],
        start_s: int,
        end_s: int,
        rows: Rows,
        facts: Mapping[str, object],
    ) -> None:
        """Delete buckets of series that begin in a range, then merge others in, and remember facts.

        All of it, or nothing when it fails.

        Raises:
            sqlite3.Error: the file cannot be written.
        """
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            for series, step in outdated:
                number, _ = self._series[series]
                keys = (_key(number, step, start_s), _key(number, step, end_s - 1))
                self._connection.execute("DELETE FROM bucket WHERE key BETWEEN ? AND ?", keys)
            self._merge(rows)
            self._write_facts(facts)

    def fact(self, name: str) -> object:
        """Return what is known under a name; None where nothing is, or where its row is damaged."""
        for _, value, checksum in self._connection.execute("SELECT * FROM facts WHERE name = ?", (name,)):
            if checksum == _checksum_of((name, value)):
                return value
        return None

    def fact_names(self, prefix: str) -> list[str]:
        """Return the names that begin so."""
        rows = self._connection.execute(
            "SELECT name FROM facts WHERE substr(name, 1, ?) = ?", (len(prefix), prefix)
        )
        return [name for (name,) in rows]

    def put(self, facts: Mapping[str, object]) -> None:
        """Remember facts by their names, and forget those that are None.

        Raises:
            sqlite3.Error: the file cannot be written.
        """
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._write_facts(facts)

    def rename_site(self, old: str, new: str) -> int:
        """Give the series of a site another one's name, merged where both have one; returns how many.

        All of it, or nothing when it fails.

        Raises:
            sqlite3.Error: the file cannot be read or written.
        """
        renamed = [key for key in self._series if key.site == old]
        known = dict(self._series)
        try:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                for key in renamed:
                    target = key._replace(site=new)
                    if target in self._series:
                        self._fold_in(key, target)
                    self._name_series(target, *self._series.pop(key))
        except BaseException:
            self._series = known
            raise
        return len(renamed)

    def _fold_in(self, kept: SeriesKey, other: SeriesKey) -> None:
        """Merge the rows of a series into another one's, and forget it."""
        # The younger of the two is the smaller one as a rule.
        for step in STEPS:
            for begin_s, cells in self.read(other, EVERYTHING, step, 0, LAST_S):
                self._merge({(kept, step, begin_s): cells})
        number, _ = self._series.pop(other)
        self._connection.execute(
            "DELETE FROM bucket WHERE key BETWEEN ? AND ?",
            (_all_of(number, STEPS[0])[0], _all_of(number, STEPS[-1])[1]),
        )
        self._connection.execute("DELETE FROM series WHERE number = ?", (number,))

    def begins(self, step: Step) -> list[int]:
        """Return when the buckets of one width begin, Unix seconds, of all series, in order."""
        query = "SELECT key FROM bucket WHERE key BETWEEN ? AND ?"
        keys = (_all_of(number, step) for number, _ in self._series.values())
        return sorted(
            {_begin_of(key) for of_step in keys for (key,) in self._connection.execute(query, of_step)}
        )

    def owe(self, owed: Owed | None) -> None:
        """Remember what is owed.

        Raises:
            sqlite3.Error: the file cannot be written.
        """
        with self._connection:
            self._write_owed(owed)
        self.owed = owed

    def read(
        self, series: SeriesKey, wanted: Container[str], step: Step, start_s: int, end_s: int
    ) -> Iterator[tuple[int, Cells]]:
        """Give the cells of the wanted fields, of a series' buckets that begin in a range, in order.

        Raises:
            sqlite3.Error: the file cannot be read.
        """
        if series not in self._series or start_s >= end_s:
            return
        number, names = self._series[series]
        places = [place for place in _places(names) if place[0] in wanted]
        first, last = _key(number, step, start_s), _key(number, step, end_s - 1)
        query = "SELECT key, cells FROM bucket WHERE key BETWEEN ? AND ? ORDER BY key"
        for key, blob in self._connection.execute(query, (first, last)):
            yield _begin_of(key), self._decode(key, blob, places)

    def newest(self, series: SeriesKey, step: Step) -> tuple[int, Cells]:
        """Return the begin and the cells of a series' last bucket; 0 and none where there is no bucket."""
        if series not in self._series:
            return 0, {}
        number, names = self._series[series]
        query = "SELECT key, cells FROM bucket WHERE key BETWEEN ? AND ? ORDER BY key DESC LIMIT 1"
        found = self._connection.execute(query, _all_of(number, step))
        return next(
            ((_begin_of(key), self._decode(key, blob, _places(names))) for key, blob in found), (0, {})
        )

    def oldest_s(self, steps: Sequence[Step] = STEPS) -> int | None:
        """Give when the oldest bucket of these widths begins, Unix seconds; None where there is none."""
        query = "SELECT key FROM bucket WHERE key BETWEEN ? AND ? ORDER BY key LIMIT 1"
        begins = [
            _begin_of(key)
            for number, _ in self._series.values()
            for step in steps
            for (key,) in self._connection.execute(query, _all_of(number, step))
        ]
        return min(begins, default=None)

    def used_bytes(self) -> int:
        """Give how much of the file is in use."""
        (page,), (pages,), (free,) = (
            self._connection.execute(f"PRAGMA {name}").fetchone()
            for name in ("page_size", "page_count", "freelist_count")
        )
        return int(page * (pages - free))

    def forget_before(self, step: Step, before_s: int) -> int:
        """Delete the buckets of one width that begin before a time; gives how many there were."""
        forgotten = 0
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            for number, _ in self._series.values():
                first, _last = _all_of(number, step)
                keys = (first, _key(number, step, max(0, before_s)) - 1)
                deleted = self._connection.execute("DELETE FROM bucket WHERE key BETWEEN ? AND ?", keys)
                forgotten += deleted.rowcount
        return forgotten

    def _merge(self, rows: Rows) -> None:
        for (series, step, begin_s), cells in rows.items():
            number, names = self._number_of(series, cells)
            key = _key(number, step, begin_s)
            found = self._connection.execute("SELECT cells FROM bucket WHERE key = ?", (key,))
            stored = next((self._decode(key, blob, _places(names)) for (blob,) in found), {})
            merge(stored, cells)
            row = (key, _encode(key, stored, names))
            self._connection.execute("INSERT OR REPLACE INTO bucket VALUES (?, ?)", row)

    def _write_facts(self, facts: Mapping[str, object]) -> None:
        for name, value in facts.items():
            if value is None:
                self._connection.execute("DELETE FROM facts WHERE name = ?", (name,))
            else:
                row = (name, value, _checksum_of((name, value)))
                self._connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", row)

    def _write_owed(self, owed: Owed | None) -> None:
        if owed == self.owed:
            return
        if owed is None:
            self._connection.execute("DELETE FROM owed")
            return
        row = (1, *owed)
        self._connection.execute("INSERT OR REPLACE INTO owed VALUES (?, ?, ?, ?)", (*row, _checksum_of(row)))

    def _number_of(self, series: SeriesKey, cells: Cells) -> tuple[int, list[str]]:
        number, names = self._series.get(series, (0, []))
        new = [name for name in cells if name not in names]
        if number and not new:
            return number, names
        names = [*names, *new]
        if not number:
            number = self._last_number = self._last_number + 1
        self._name_series(series, number, names)
        return number, names

    def _name_series(self, series: SeriesKey, number: int, names: list[str]) -> None:
        row = (number, *series, json.dumps(names))
        self._connection.execute(
            "INSERT OR REPLACE INTO series VALUES (?, ?, ?, ?, ?, ?)", (*row, _checksum_of(row))
        )
        self._series[series] = (number, names)

    def _decode(self, key: int, blob: object, places: Iterable[tuple[str, int]]) -> Cells:
        body = blob[: -_CRC.size] if isinstance(blob, bytes) else b""
        if not body or len(body) % _CELL.size or blob != body + _crc_of(key, body):
            if not self._has_told_damage:
                self._has_told_damage = True
                _log.error("rows of the store are damaged and left out: check the disk", file=str(self._path))
            return {}
        cells = {name: _CELL.unpack_from(body, at) for name, at in places if at < len(body)}
        return {name: cell for name, cell in cells.items() if cell[0]}

    def _open(self) -> sqlite3.Connection:
        existed = self._path.exists()
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            (identity,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if existed and (identity, version) != (_APPLICATION_ID, _VERSION):
                _refuse("it is no store of this version")
            # A write-ahead log with few syncs: a loss of power costs the last minutes, and never the file.
            for statement in (
                "PRAGMA journal_mode = WAL",
                "PRAGMA synchronous = NORMAL",
                "PRAGMA cache_size = -1024",
                f"PRAGMA application_id = {_APPLICATION_ID}",
                f"PRAGMA user_version = {_VERSION}",
                *_TABLES,
            ):
                connection.execute(statement)
            self._series = _series_of(connection)
            self._last_number = max((number for number, _ in self._series.values()), default=0)
            self.owed = self._owed_in(connection)
            self.energy_since_s = self._energy_since_in(connection)
        except BaseException:
            connection.close()
            raise
        self._path.chmod(0o600)
        return connection

    def _owed_in(self, connection: sqlite3.Connection) -> Owed | None:
        """Read what is owed; where the row is damaged, all that is stored: what InfluxDB has it keeps."""
        for *row, checksum in connection.execute("SELECT * FROM owed"):
            if checksum == _checksum_of(row):
                return Owed(*row[1:])
            query = "SELECT max(key) FROM bucket WHERE key BETWEEN ? AND ?"
            ranges = [_all_of(number, step) for number, _ in self._series.values() for step in STEPS]
            newest = [key for of_step in ranges for (key,) in connection.execute(query, of_step) if key]
            return Owed(0, max(map(_begin_of, newest), default=0) + 60)
        return None

    def _energy_since_in(self, connection: sqlite3.Connection) -> int:
        """Read from when on energies of all flows are stored: a file without that fact is an older one."""
        name = "energy_since_s"
        for _, value, checksum in connection.execute("SELECT * FROM facts WHERE name = ?", (name,)):
            if checksum == _checksum_of((name, value)):
                return int(value)
        query = "SELECT max(key) FROM bucket WHERE key BETWEEN ? AND ?"
        minutes = [_all_of(number, STEPS[0]) for number, _ in self._series.values()]
        newest = [key for of_series in minutes for (key,) in connection.execute(query, of_series) if key]
        since_s = max((_begin_of(key) + 60 for key in newest), default=0)
        row = (name, since_s)
        connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", (*row, _checksum_of(row)))
        return since_s

    def _set_aside(self, reason: str) -> None:
        aside = [
            self._path.with_name(f"{self._path.name}.damaged-{n}") for n in range(1, _MOST_SET_ASIDE + 1)
        ]
        target = next((path for path in aside if not path.exists()), aside[-1])
        self._path.replace(target)
        for suffix in ("-wal", "-shm"):
            beside = self._path.with_name(self._path.name + suffix)
            if beside.exists():
                beside.replace(target.with_name(target.name + suffix))
        _log.error("the store is damaged, a fresh one is begun", moved_to=str(target), reason=reason)


class Glance(NamedTuple):
    """What a file says of itself: its sites, and the zone of its days, empty where it is not known."""

    sites: frozenset[str]
    timezone: str
    is_regrouped: bool


def glance(path: Path) -> Glance:
    """Read what a file says of itself, which another process may be using.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        sites = frozenset(str(site) for (site,) in connection.execute("SELECT DISTINCT site FROM series"))
        facts = dict(connection.execute("SELECT name, value FROM facts"))
    finally:
        connection.close()
    return Glance(sites, str(facts.get("timezone", "")), "next_timezone" in facts)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is at fault, and not the disk that it lies on."""
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _DAMAGE


def _series_of(connection: sqlite3.Connection) -> dict[SeriesKey, tuple[int, list[str]]]:
    """Read which series there are; one that is damaged makes all rows worthless."""
    series = {}
    for *row, checksum in connection.execute("SELECT * FROM series"):
        if checksum != _checksum_of(row):
            _refuse("the names of a series are damaged")
        number, site, measurement, device, names = row
        series[SeriesKey(site, measurement, device)] = (number, json.loads(names))
    return series


def _refuse(reason: str) -> NoReturn:
    """Treat another program's file, or another version's, as a damaged one."""
    error = sqlite3.DatabaseError(reason)
    error.sqlite_errorcode = sqlite3.SQLITE_NOTADB
    raise error


def _checksum_of(row: Sequence[object]) -> int:
    return crc32(repr(tuple(row)).encode())


def _key(number: int, step: Step, begin_s: int) -> int:
    return ((number * len(STEPS) + step.index) << _TIME_BITS) | (begin_s // 60)


def _begin_of(key: int) -> int:
    return (key & ((1 << _TIME_BITS) - 1)) * 60


def _all_of(number: int, step: Step) -> tuple[int, int]:
    first = (number * len(STEPS) + step.index) << _TIME_BITS
    return first, first | ((1 << _TIME_BITS) - 1)


def _places(names: Iterable[str]) -> list[tuple[str, int]]:
    """Give where each field's cell begins in a row; a row from before a field was known is shorter."""
    return [(name, index * _CELL.size) for index, name in enumerate(names)]


def _encode(key: int, cells: Cells, names: list[str]) -> bytes:
    body = b"".join(_CELL.pack(*cells.get(name, (0.0, 0.0, 0.0, 0.0))) for name in names)
    return body + _crc_of(key, body)


def _crc_of(key: int, body: bytes) -> bytes:
    """Give the checksum of a row's cells and of their place, so that none turns up at another time."""
    return _CRC.pack(crc32(body, crc32(key.to_bytes(8, "little", signed=True))))
