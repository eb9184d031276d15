"""The health answer over HTTP, for Docker and for people.

Takes a function that tells the health, answers `GET /healthz` with it as JSON: 200 where all is well,
503 where it is not. Read-only, and small on purpose.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

_MAX_HEADER_BYTES: Final = 8190


@dataclass(frozen=True, slots=True)
class Health:
    """Whether all is well; `problems` are sentences that say what is not, and what to do."""

    problems: tuple[str, ...]
    details: dict[str, Any]

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


class HealthServer:
    """Serves `/healthz` on one address.

    Args:
        bind: the address to listen on.
        port: the TCP port; 0 takes any free one.
        health: called for each request; must not wait.
    """

    def __init__(self, bind: str, port: int, health: Callable[[], Health]) -> None:
        self._bind = bind
        self._health = health
        self._runner: web.AppRunner | None = None
        self.port = port

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be bound.
        """
        application = web.Application(client_max_size=0)
        application.router.add_get("/healthz", self._answer)
        self._runner = web.AppRunner(
            application, access_log=None, max_line_size=_MAX_HEADER_BYTES, max_field_size=_MAX_HEADER_BYTES
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, self._bind, self.port).start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Stop answering."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, _request: web.Request) -> web.Response:
        health = self._health()
        return web.json_response(
            {"healthy": health.healthy, "problems": health.problems, **health.details},
            status=200 if health.healthy else 503,
            headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
        )
