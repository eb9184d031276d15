"""How long each class of data is kept.

Takes durations from the settings, gives InfluxQL for retention policies. Shortening one is left to a
person: InfluxDB deletes at once what a shorter policy no longer covers.
"""

from dataclasses import dataclass
from datetime import timedelta

from recorder.influx.influxql import duration, identifier

FOR_EVER = timedelta(0)
_SHORTEST = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Retention:
    """How long to keep each class of data; 0 is for ever. The defaults keep all of it.

    `raw` is the default policy of the database, which may be older than this recorder. A policy that
    keeps data for longer than the setting says is only reported, with the statement that shortens it.
    """

    raw: timedelta = FOR_EVER
    avg10: timedelta = FOR_EVER
    rollups: timedelta = FOR_EVER

    def __post_init__(self) -> None:
        """Refuse what InfluxDB would refuse.

        Raises:
            ValueError: A duration is shorter than an hour.
        """
        for each in (self.raw, self.avg10, self.rollups):
            if FOR_EVER != each < _SHORTEST:
                raise ValueError(f"InfluxDB keeps data for at least 1 h, or 0 for ever, not {each}")


@dataclass(frozen=True, slots=True)
class Policy:
    """One retention policy, as it is or as it should be."""

    name: str
    kept: timedelta
    shard: timedelta

    def create_statement(self, database: str) -> str:
        """The statement that creates it."""
        return f"CREATE RETENTION POLICY {self._terms(database)} REPLICATION 1{self._shard()}"

    def alter_statement(self, database: str) -> str:
        """The statement that makes an existing policy of this name like it."""
        return f"ALTER RETENTION POLICY {self._terms(database)}{self._shard()}"

    def create_database_statement(self, database: str) -> str:
        """The statement that creates a database with it as the default policy."""
        return (
            f"CREATE DATABASE {identifier(database)} WITH DURATION {_kept(self.kept)}"
            f"{self._shard()} NAME {identifier(self.name)}"
        )

    def keeps_longer_than(self, other: "Policy") -> bool:
        """Whether it covers points that `other` would delete."""
        return other.kept != FOR_EVER and (self.kept == FOR_EVER or self.kept > other.kept)

    def _terms(self, database: str) -> str:
        return f"{identifier(self.name)} ON {identifier(database)} DURATION {_kept(self.kept)}"

    def _shard(self) -> str:
        return f" SHARD DURATION {duration(self.shard)}"


def policy(name: str, kept: timedelta, longest_shard: timedelta) -> Policy:
    """A policy with a shard duration that fits.

    A shard is deleted as a whole, so it covers a tenth of what is kept at the most; a long one saves
    files and memory, but a late point makes InfluxDB compact all of it again.
    """
    if kept == FOR_EVER:
        return Policy(name, kept, longest_shard)
    days = timedelta(days=1)
    tenth = kept / 10
    fitting = tenth // days * days if tenth >= days else timedelta(hours=max(1, tenth // timedelta(hours=1)))
    return Policy(name, kept, min(fitting, longest_shard))


def _kept(value: timedelta) -> str:
    return "INF" if value == FOR_EVER else duration(value)
