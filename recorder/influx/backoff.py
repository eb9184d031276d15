"""How long to wait before the next attempt.

Takes a source of randomness, gives seconds. Never waits itself.
"""

from random import Random


class Backoff:
    """Waits that double from `first_seconds` to `longest_seconds`, each shortened by up to a half.

    The jitter keeps many recorders from coming back to one database in the same moment.
    """

    def __init__(self, rng: Random, first_seconds: float = 1.0, longest_seconds: float = 60.0) -> None:
        self._rng = rng
        self._first_seconds = first_seconds
        self._longest_seconds = longest_seconds
        self._next_seconds = first_seconds

    def reset(self) -> None:
        """Start again from the first wait, after a success."""
        self._next_seconds = self._first_seconds

    def wait_seconds(self) -> float:
        """The next wait; the one after it is twice as long."""
        bound = self._next_seconds
        self._next_seconds = min(2 * bound, self._longest_seconds)
        return bound * self._rng.uniform(0.5, 1.0)
