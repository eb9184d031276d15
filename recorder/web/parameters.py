"""What a request asks for, checked.

Takes the query of a request, gives checked values or an error that names the parameter and what is
allowed. Never reads anything else.
"""

import re
from collections.abc import Container, Sequence
from typing import Final

from aiohttp import web

from recorder.store.buckets import STEPS, Step
from recorder.store.history import MOST_FIELDS

_FIELD: Final = re.compile(r"([a-z][a-z0-9_]{0,63})\.([a-z][a-z0-9_]{0,63})")
# Until the year 5138.
_NUMBER: Final = re.compile(r"[0-9]{1,11}(\.[0-9]{1,9})?")
_DAY_SECONDS: Final = 86400.0


class Parameters:
    """The parameters of one request.

    Args:
        request: the request.
        allowed: the names that it may have.

    Raises:
        HTTPBadRequest: a name is unknown, or there twice.
    """

    def __init__(self, request: web.Request, allowed: Sequence[str]) -> None:
        self._query = request.query
        for name in self._query:
            if name not in allowed:
                _refuse("query", f"unknown parameter; allowed is {', '.join(allowed) or 'none'}")
            if len(self._query.getall(name)) > 1:
                _refuse(name, "is there twice; give it once")

    def site(self, known: Container[str]) -> str | None:
        """Give the site that is asked for, None where any will do.

        Raises:
            HTTPNotFound: nothing is known of it.
        """
        site = self._query.get("site")
        if site is not None and site not in known:
            raise web.HTTPNotFound(text="site: there is none of this name")
        return site

    def any_site(self) -> str | None:
        """Give the site that is asked for, whether it is known or not."""
        return self._query.get("site")

    def range(self, now_s: float, today_s: float) -> tuple[float, float]:
        """Give the beginning and the end of the range, Unix seconds.

        Raises:
            HTTPBadRequest: one of them is no time.
        """
        end_s = self._time("to", now_s)
        if self._query.get("from") == "today":
            return today_s, end_s
        return self._time("from", max(0.0, end_s - _DAY_SECONDS)), end_s

    def step(self) -> Step | None:
        """Give the width of buckets, None for any.

        Raises:
            HTTPBadRequest: there is none of this name.
        """
        name = self._query.get("step", "auto")
        step = next((step for step in STEPS if step.name == name), None)
        if step is None and name != "auto":
            _refuse("step", "allowed is auto, 1m, 15m, 1h or 1d")
        return step

    def fields(self) -> Sequence[tuple[str, str]]:
        """Return the fields that are asked for, each once; none where the request names none.

        Raises:
            HTTPBadRequest: one is not written as it has to be, or there are too many.
        """
        text = self._query.get("fields")
        if text is None:
            return ()
        found = [_FIELD.fullmatch(name) for name in text.split(",", MOST_FIELDS)]
        if len(found) > MOST_FIELDS or not all(found):
            _refuse("fields", f"allowed is up to {MOST_FIELDS} of measurement.field, with commas")
        return list(dict.fromkeys((match[1], match[2]) for match in found if match))

    def _time(self, name: str, default_s: float) -> float:
        text = self._query.get(name)
        if text is None:
            return default_s
        if not _NUMBER.fullmatch(text):
            _refuse(name, "allowed is a time in Unix seconds" + (", or today" if name == "from" else ""))
        return float(text)


def _refuse(name: str, what: str) -> None:
    raise web.HTTPBadRequest(text=f"{name}: {what}")
