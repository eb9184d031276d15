"""What is marked on every plot over time: alerts, restarts of the recorder, gaps in the data.

Takes the names of the data model, gives annotations as builders. Never writes a file.
"""

from grafana_foundation_sdk.builders.dashboard import AnnotationQuery as AnnotationBuilder
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import AnnotationQuery, AnnotationTarget, DataSourceRef

from grafana.influxql import DATA_SOURCE, OF_SITE, OF_SITE_ALWAYS, Ready, select, select_from

_ALERT, _RESTART, _GAP, _OUTAGE = "red", "blue", "orange", "orange"
_OUTAGE_MINUTES = 5


class EventTarget(AnnotationTarget):
    """The query of an annotation; the library knows only those of Grafana's own data source.

    Source of the names: public/app/plugins/datasource/influxdb/migrations.ts of Grafana.
    """

    def __init__(self, name: str, query: str, text: str, end: str) -> None:
        super().__init__(limit=100, match_any=False, tags=[], type_val="tags")
        self._influxql = {
            "name": name,
            "refId": "Anno",
            "query": query,
            "queryType": "tags",
            "fromAnnotations": True,
            "textColumn": text,
            "tagsColumn": "site",
            "timeEndColumn": end,
            "titleColumn": "",
        }

    def to_json(self) -> dict[str, object]:
        """Return the target with its query."""
        return {**super().to_json(), **self._influxql}


class Event(AnnotationQuery):
    """An annotation whose tooltip is a sentence; the library has no mappings.

    Without them Grafana shows the time in ms as the title, and the value of the query as the text.
    Source of the names: public/app/features/annotations/standardAnnotationSupport.ts of Grafana.
    """

    def __init__(self, name: str, colour: str, target: EventTarget, sentence: str, *, counted: bool) -> None:
        super().__init__(name=name, datasource=DATA_SOURCE, icon_color=colour, target=target)
        said = {"source": "text", "value": sentence}
        self._mappings: dict[str, object] = (
            {"title": said} if counted else {"title": {"source": "skip"}, "text": said}
        )

    def to_json(self) -> dict[str, object]:
        """Return the annotation with its sentence."""
        return {**super().to_json(), "mappings": self._mappings}


def annotations() -> list[Builder[AnnotationQuery]]:
    """Return alerts, restarts of the recorder, and gaps in the data, for every plot over time.

    A gap is marked at its end, with its minutes: to the minute where it is of the last two days, else by the
    hours that lack minutes, so that a year is searched as fast as a day. One that has not ended is a region.
    Gaps have no switch above the dashboard, as four of them would fill a phone's screen.
    """
    flow_1m, flow_1h = '"rollups"."flow_1m"', '"rollups"."flow_1h"'
    recent, older = f"{OF_SITE} AND time > now() - 2d", f"{OF_SITE} AND time < now() - 2d"
    since = select({"minutes": 'elapsed("home", 1m)'}, "", flow_1m, recent)
    lacking = select({"minutes": '60 - 60 * "coverage"'}, "", flow_1h, older)
    hours = select({"hours": 'elapsed("coverage", 1h)'}, "", flow_1h, older)
    alerts = (
        AnnotationBuilder()
        .name("Alerts")
        .datasource(DataSourceRef(type_val="grafana", uid="-- Grafana --"))
        .built_in(1)
        .type("dashboard")
        .icon_color(_ALERT)
    )
    restart = EventTarget(
        "Restarts", select({"started": '"started"'}, "", '"recorder"', OF_SITE), "started", ""
    )
    return [
        alerts,
        Ready(Event("Restarts", _RESTART, restart, "The recorder started", counted=False)),
        _gap("minutes without data", _gaps(since, "minutes", "> 1"), "minutes"),
        _gap("minutes that an hour lacks", _gaps(lacking, "minutes", ">= 1"), "minutes"),
        _gap("hours since the last data", _gaps(hours, "hours", "> 1"), "hours"),
        _outage(),
    ]


def _gaps(rows: str, column: str, condition: str) -> str:
    return select_from(rows, f'"{column}"', f'"{column}" {condition}')


def _gap(meaning: str, query: str, column: str) -> Builder[AnnotationQuery]:
    name, sentence = f"Gaps: {meaning}", f"{meaning[0].upper()}{meaning[1:]}:"
    event = Event(name, _GAP, EventTarget(name, query, column, ""), sentence, counted=True)
    event.hide = True
    return Ready(event)


def _outage() -> Builder[AnnotationQuery]:
    """Mark a gap that goes on, from its first minute to the end of the range.

    `elapsed` needs a point at the end of the gap: the last of buckets of a minute that are filled up to now.
    Backwards in time, it has the time at which the gap began, and is negative.
    """
    name, flow_1m, backwards = "Gaps: without an end", '"rollups"."flow_1m"', "ORDER BY time DESC"
    of_site = f"{OF_SITE_ALWAYS} AND time > now() - 7d AND time < ${{__to}}ms AND time < now() - 1m"
    newest = select({"known": 'last("home")'}, "", flow_1m, of_site, backwards)
    each = "GROUP BY time(1m) fill(0)"
    now = select({"known": 'count("home")'}, "", flow_1m, of_site, each, backwards, "LIMIT 1")
    both = f'SELECT "known" FROM ({newest}), ({now}) {backwards}'  # noqa: S608 - queries of our own
    passed = f'SELECT elapsed("known", 1m) AS "minutes" FROM ({both}) {backwards}'  # noqa: S608 - the same
    columns = '0 - "minutes" AS "minutes", 0 * "minutes" + ${__to} AS "until"'
    query = select_from(passed, columns, f'"minutes" <= -{_OUTAGE_MINUTES}', backwards)
    # Grafana finds the text by a part of the column's name, the end only by its whole name.
    target = EventTarget(name, query, "minutes", "flow_1m.until")
    event = Event(name, _OUTAGE, target, "No data since then. Minutes so far:", counted=True)
    event.hide = True
    return Ready(event)
