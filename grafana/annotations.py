"""What is marked on every plot over time: alerts, restarts of the recorder, gaps in the data.

Takes the names of the data model, gives annotations as builders. Never writes a file.
"""

from grafana_foundation_sdk.builders.dashboard import AnnotationQuery
from grafana_foundation_sdk.models.dashboard import AnnotationTarget, DataSourceRef

from grafana.influxql import DATA_SOURCE, OF_SITE, Ready, select, select_from

_ALERT, _RESTART, _GAP = "red", "blue", "orange"


class EventTarget(AnnotationTarget):
    """The query of an annotation; the library knows only those of Grafana's own data source.

    Source of the names: public/app/plugins/datasource/influxdb/migrations.ts of Grafana.
    """

    def __init__(self, name: str, query: str, text: str, tags: str) -> None:
        super().__init__(limit=100, match_any=False, tags=[], type_val="tags")
        self._influxql = {
            "name": name,
            "refId": "Anno",
            "query": query,
            "queryType": "tags",
            "fromAnnotations": True,
            "textColumn": text,
            "tagsColumn": tags,
            "timeEndColumn": "",
            "titleColumn": "",
        }

    def to_json(self) -> dict[str, object]:
        """The target with its query."""
        return {**super().to_json(), **self._influxql}


def annotations() -> list[AnnotationQuery]:
    """Alerts, restarts of the recorder, and gaps in the data, on every plot over time.

    A gap is told at its end, with its minutes: to the minute where it is of the last two days, else by the
    hours that lack minutes, so that a year is searched as fast as a day.
    Gaps have no switch above the dashboard, as three of them would fill a phone's screen.
    """
    flow_1m, flow_1h = '"rollups"."flow_1m"', '"rollups"."flow_1h"'
    recent, older = f"{OF_SITE} AND time > now() - 2d", f"{OF_SITE} AND time < now() - 2d"
    since = select({"minutes": 'elapsed("home", 1m)'}, "", flow_1m, recent)
    lacking = select({"minutes": '60 - 60 * "coverage"'}, "", flow_1h, older)
    hours = select({"hours": 'elapsed("coverage", 1h)'}, "", flow_1h, older)
    alerts = (
        AnnotationQuery()
        .name("Alerts")
        .datasource(DataSourceRef(type_val="grafana", uid="-- Grafana --"))
        .built_in(1)
        .type("dashboard")
        .icon_color(_ALERT)
    )
    restarts = select({"started": '"started"'}, "", '"recorder"', OF_SITE)
    gaps = (
        _event("Gaps: minutes without data", _gaps(since, "minutes", "> 1"), "minutes", _GAP),
        _event("Gaps: minutes that an hour lacks", _gaps(lacking, "minutes", ">= 1"), "minutes", _GAP),
        _event("Gaps: hours since the last data", _gaps(hours, "hours", "> 1"), "hours", _GAP),
    )
    return [alerts, _event("Restarts", restarts, "started", _RESTART), *(gap.hide(True) for gap in gaps)]


def _gaps(rows: str, column: str, condition: str) -> str:
    return select_from(rows, f'"{column}"', f'"{column}" {condition}')


def _event(name: str, query: str, text: str, colour: str) -> AnnotationQuery:
    event = AnnotationQuery().name(name).datasource(DATA_SOURCE).icon_color(colour)
    return event.target(Ready(EventTarget(name, query, text, "site")))
