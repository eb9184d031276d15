"""How the program logs: one line an event, on standard error.

Takes a level, sets structlog up. Never logs a secret: callers pass names and counts.
"""

import logging
import sys
from collections.abc import Callable

import structlog

EVERY_SECONDS = 10.0


class SeldomLog:
    """Logs what a flood would repeat: each event at most once in ten seconds, with how many were kept back.

    Args:
        write: a logger's method, such as `log.warning`.
        clock: monotonic seconds.
    """

    def __init__(self, write: Callable[..., object], clock: Callable[[], float]) -> None:
        self._write = write
        self._clock = clock
        self._kept_back: dict[str, int] = {}
        self._next_at: dict[str, float] = {}

    def __call__(self, event: str, **details: object) -> None:
        """Log the event, or count it; `event` is one of a few fixed texts."""
        now = self._clock()
        if now < self._next_at.get(event, now):
            self._kept_back[event] = self._kept_back.get(event, 0) + 1
            return
        self._next_at[event] = now + EVERY_SECONDS
        kept_back = self._kept_back.pop(event, 0)
        self._write(event, **details, **({"and_as_many_more": kept_back} if kept_back else {}))


def set_up_logging(level: str) -> None:
    """Log at `level` (debug, info, warning, error) and above; in colour where a person looks on."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Plain tracebacks: rich ones print local variables, and with them passwords.
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
