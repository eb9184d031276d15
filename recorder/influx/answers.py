"""What to do about each answer that a write can get.

Takes status, body and headers of an HTTP answer, gives a `Verdict`. Never decides on the status
alone, and never takes anything but 204 for success: a proxy answers 200 as well.

The wording of servers: InfluxDB 1.6.7 and VictoriaMetrics as run, 1.12 and 2.9 from their sources.
"""

import json
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from enum import Enum

LONGEST_RETRY_SECONDS = 60.0
_LONGEST_REASON = 300

_DROPPED = re.compile(r"dropped[= ](\d+)", re.IGNORECASE)


class Action(Enum):
    """What becomes of the lines that were sent."""

    ACCEPT = "accept"
    """They are in the database."""
    SPLIT = "split"
    """At least one is bad: send halves, until the bad ones stand alone."""
    DROP = "drop"
    """`Verdict.dropped` of them are older than the retention policy keeps: split those from the rest."""
    PAUSE = "pause"
    """Somebody has to change something first: keep them, and try once a minute."""
    RETRY = "retry"
    """The server can not take them now: send the same bytes again."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One judged answer; `reason` is the server's, `remedy` says what the user can change.

    `dropped` is how many lines the server says it did not write, where it does; it leaves out those that
    it could not parse.
    """

    action: Action
    reason: str = ""
    remedy: str = ""
    after_seconds: float | None = None
    dropped: int | None = None
    database_missing: bool = False


def reason_of(status: int, body: bytes) -> str:
    """The server's own words in one line: the JSON error or message, else the start of the text."""
    text = body[: 16 * _LONGEST_REASON].decode("utf-8", "replace").strip()
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if isinstance(answer, dict):
        text = str(answer.get("error") or answer.get("message") or text)
    text = " ".join(text.split())[:_LONGEST_REASON]
    return f"{status} {text}".strip()


@dataclass(frozen=True, slots=True)
class _Rule:
    """What an answer with one of these statuses and these words means."""

    statuses: Container[int]
    words: str
    action: Action
    remedy: str = ""


_DATABASE_MISSING = _Rule(
    {400, 404, 500},
    r"(database|bucket).{0,80}not found",
    Action.PAUSE,
    "create the database, or let the recorder's user do so",
)
_RULES = (
    _Rule({204}, "", Action.ACCEPT),
    _DATABASE_MISSING,
    _Rule({400, 422}, r"beyond retention|outside (of )?retention|dropped \d+ points? outside", Action.DROP),
    _Rule({400, 422}, r"partial write|type conflict|(unable|cannot|failed|error).{0,20}pars", Action.SPLIT),
    _Rule({400, 422}, r"max-(values-per-tag|series-per-database)", Action.SPLIT),
    _Rule({401, 403}, "", Action.PAUSE, "set the user name, password or token that InfluxDB knows"),
    _Rule({413}, "", Action.SPLIT),
    _Rule({500}, "retention policy not found", Action.PAUSE, "restore the default retention policy"),
    _Rule({408, 429, *range(500, 600)}, "", Action.RETRY),
)
_ANYTHING_ELSE = _Rule(
    range(1000), "", Action.PAUSE, "check URL and database: what answers there takes no line protocol"
)


def judge(status: int, body: bytes, headers: Mapping[str, str]) -> Verdict:
    """What to do with the lines that got this answer; the names of `headers` are in lower case."""
    reason = reason_of(status, body)
    matches = (
        rule for rule in _RULES if status in rule.statuses and re.search(rule.words, reason, re.IGNORECASE)
    )
    rule = next(matches, _ANYTHING_ELSE)
    dropped = _DROPPED.search(reason)
    return Verdict(
        rule.action,
        reason,
        rule.remedy,
        after_seconds=_retry_after_seconds(headers) if rule.action is Action.RETRY else None,
        dropped=int(dropped[1]) if dropped and rule.action in {Action.DROP, Action.SPLIT} else None,
        database_missing=rule is _DATABASE_MISSING,
    )


def _retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """The number of a Retry-After header, capped; a date there is left to the usual back-off."""
    text = headers.get("retry-after", "")
    return min(float(text), LONGEST_RETRY_SECONDS) if text.isascii() and text.isdigit() else None
