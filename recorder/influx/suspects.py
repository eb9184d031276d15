"""Which lines of a refused batch the answer speaks of.

Takes the lines and the judged answer, gives the lines to send apart from the others. It is a hint that
saves requests: only the server's next answer decides what becomes of a line. Never does I/O.

An answer of InfluxDB 1.x and 2.x names the field, its measurement and the wrong type, or repeats the
line that it can not parse; of points beyond retention it tells the number.
"""

import re
from collections.abc import Sequence

from recorder.influx.answers import Action, Verdict
from recorder.influx.stamps import stamp_ns

_CONFLICT = re.compile(r'input field "(.+?)" on measurement "(.+?)" is type (float|integer|string|boolean)')
_NOT_PARSED = re.compile(r"unable to parse '(.+?)': ")
_VALUES = {
    "float": rb"[-+.\deE]+(?=[, ])",
    "integer": rb"-?\d+i",
    "string": rb'"',
    "boolean": rb"[tTfF]",
}


def suspects(lines: Sequence[bytes], verdict: Verdict) -> set[int]:
    """Give the indices of the lines that the answer speaks of; none where it does not tell."""
    if verdict.action is Action.DROP:
        by_age = sorted(range(len(lines)), key=lambda index: stamp_ns(lines[index]) or 0)
        return set(by_age[: verdict.dropped or 0])
    if conflict := _CONFLICT.search(verdict.reason):
        field, measurement, kind = conflict.groups()
        value = re.compile(
            rb"%s(?=[, ]).*?[, ]%s=%s" % (_escaped(measurement), _escaped(field), _VALUES[kind]), re.DOTALL
        )
        return {index for index, line in enumerate(lines) if value.match(line)}
    named = {text.encode() for text in _NOT_PARSED.findall(verdict.reason)}
    return {index for index, line in enumerate(lines) if line in named}


def _escaped(name: str) -> bytes:
    """Give a pattern of the name as it stands in a line, where a backslash may precede any sign."""
    return rb"\\?".join(re.escape(sign.encode()) for sign in name)
