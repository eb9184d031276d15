"""All that the recorder answers over HTTP, joined: the live page, JSON, events, metrics, health.

Takes points as they are made, the store, and functions that tell the recorder's state; answers
requests. Read-only; never keeps the recorder from recording.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from recorder.points.point import Point
from recorder.profiles.catalogue import quantity_fields
from recorder.profiles.model import Profile
from recorder.settings import Settings
from recorder.store.buckets import DAY
from recorder.store.history import DEFAULT_FIELDS, Question, history
from recorder.store.store import Store
from recorder.web import older_scripts
from recorder.web.access import Access, add_headers, guard
from recorder.web.events import EventHub
from recorder.web.live import STALE_AFTER_SECONDS, Live, text_of
from recorder.web.metrics import RecorderCollector, registry_of, text_of_metrics
from recorder.web.parameters import Parameters
from recorder.web.server import HttpServer, begin_request

ROOT: Final = Path(__file__).parent
_STATIC: Final = ROOT / "static"
_OPENAPI: Final = ROOT / "openapi.json"
_OLDER: Final = {
    "/lgess": older_scripts.lgess,
    "/lgessgen1": older_scripts.lgessgen1,
    "/json/all": older_scripts.json_all,
}

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Health:
    """Whether all is well; `problems` are sentences that say what is not, and what to do."""

    problems: tuple[str, ...]
    details: dict[str, Any]

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


class WebService:
    """The HTTP side of the recorder, from `start` to `close`.

    Args:
        settings: what the owner set.
        profiles: the devices, for units of metrics.
        store: where the history comes from.
        health: tells the answer of `/healthz`; must not wait.
        report: tells the answer of `/api/v1/health`, but for `clients`; must not wait.
    """

    def __init__(
        self,
        settings: Settings,
        profiles: Sequence[Profile],
        store: Store,
        health: Callable[[], Health],
        report: Callable[[], dict[str, Any]],
    ) -> None:
        self._timezone = settings.timezone
        self._store = store
        self._health = health
        self._report = report
        token = settings.http.token
        self._access = Access(token.get_secret_value() if token else "")
        self._hosts = frozenset(settings.http.hosts)
        quantities = quantity_fields(profiles)
        soc = quantities.get("soc")
        self._live = Live(settings.site, quantities)
        self._fields = (*DEFAULT_FIELDS, soc) if soc else DEFAULT_FIELDS
        self._events = EventHub(self._live, self._beat)
        self._metrics = registry_of(RecorderCollector(profiles, self._live, self._full_report, time.time))
        self._server = HttpServer(self.application(), settings.http.bind, settings.http.port)

    @property
    def port(self) -> int:
        """The TCP port; known once started."""
        return self._server.port

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be bound.
        """
        await self._server.start()

    async def close(self) -> None:
        """Stop answering, and end every stream of events."""
        self._events.close()
        await self._server.close()

    def publish(self, points: Sequence[Point]) -> None:
        """Take points as they are made. Cheap, no I/O."""
        self._events.publish(self._live.observe(points))

    def clock_was_set(self, by_seconds: float) -> None:
        """Learn that our clock was set, and tell it to those who look on."""
        self._live.clock_was_set(by_seconds)
        self._events.beat()

    def routes(self) -> dict[str, Answer]:
        """Give what is behind each path, but for the page's files."""
        return {
            "/": self._page,
            "/healthz": self._healthz,
            "/metrics": self._scrape,
            "/api/v1/latest": self._latest,
            "/api/v1/history": self._history,
            "/api/v1/events": self._stream,
            "/api/v1/health": self._health_report,
            "/api/v1/openapi.json": self._openapi,
            **dict.fromkeys(_OLDER, self._older),
        }

    def application(self) -> web.Application:
        """Give the aiohttp application, with its guard before every path."""
        application = web.Application(
            client_max_size=0, middlewares=[_count_heads, guard(self._access, self._hosts)]
        )
        for path, answer in self.routes().items():
            application.router.add_get(path, answer)
        application.router.add_static("/static", _STATIC)
        application.on_response_prepare.append(add_headers)
        return application

    async def _page(self, _request: web.Request) -> web.StreamResponse:
        return web.FileResponse(_STATIC / "index.html")

    async def _openapi(self, request: web.Request) -> web.StreamResponse:
        Parameters(request, ())
        return web.FileResponse(_OPENAPI)

    async def _healthz(self, request: web.Request) -> web.StreamResponse:
        health = self._health()
        told = {"problems": health.problems, **health.details} if self._access.allows(request) else {}
        status = HTTPStatus.OK if health.healthy else HTTPStatus.SERVICE_UNAVAILABLE
        return _json({"healthy": health.healthy, **told}, status)

    async def _scrape(self, _request: web.Request) -> web.StreamResponse:
        headers = {"Content-Type": CONTENT_TYPE_PLAIN_0_0_4}
        return web.Response(body=text_of_metrics(self._metrics), headers=headers)

    async def _latest(self, request: web.Request) -> web.StreamResponse:
        site = Parameters(request, ("site",)).site(self._live.sites)
        return _json(self._live.latest(time.time(), site))

    async def _history(self, request: web.Request) -> web.StreamResponse:
        asked = Parameters(request, ("site", "from", "to", "step", "fields"))
        now_s = time.time()
        start_s, end_s = asked.range(now_s, self._store.buckets.begin(DAY, now_s))
        step, fields = asked.step(), asked.fields() or self._fields
        # In a thread, because it may read a disk.
        stored = await asyncio.to_thread(self._store.series)
        site = asked.site({*self._live.sites, *(key.site for key in stored)}) or self._live.site
        try:
            found = await asyncio.to_thread(
                history, self._store, Question(site, start_s, end_s, step, fields)
            )
        except OSError as error:
            raise web.HTTPServiceUnavailable(text=str(error)) from error
        return web.Response(
            text=await asyncio.to_thread(text_of, {"timezone": self._timezone, **found}),
            content_type="application/json",
        )

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        site = Parameters(request, ("site",)).any_site()
        if request.method == "HEAD":
            return web.Response(content_type="text/event-stream")
        return await self._events.stream(request, site)

    async def _health_report(self, request: web.Request) -> web.StreamResponse:
        Parameters(request, ())
        return _json(self._full_report())

    async def _older(self, request: web.Request) -> web.StreamResponse:
        site = Parameters(request, ("site",)).site(self._live.sites) or self._live.site
        answer = _OLDER[request.path](self._live, site)
        if answer is None:
            raise web.HTTPServiceUnavailable(text="no sample has come yet")
        return _json(answer)

    def _full_report(self) -> dict[str, Any]:
        clients = {"events": self._events.clients, "dropped": self._events.dropped}
        return {**self._report(), "clients": clients}

    def _beat(self) -> dict[str, Any]:
        health = self._health()
        return {
            "time": round(time.time(), 3),
            "healthy": health.healthy,
            "problems": health.problems,
            "stale_after_seconds": STALE_AFTER_SECONDS,
        }


@web.middleware
async def _count_heads(request: web.Request, handler: Handler) -> web.StreamResponse:
    begin_request(request)
    return await handler(request)


def _json(value: object, status: int = HTTPStatus.OK) -> web.Response:
    return web.Response(status=status, text=text_of(value), content_type="application/json")
