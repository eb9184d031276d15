"""Randomness that a seed determines.

Takes a seed and a time, gives numbers. Never keeps more than the two nodes around the time asked for.
"""

from random import Random


def seeded(*parts: object) -> Random:
    """Give a generator that the `parts`, in their order, determine."""
    return Random("/".join(map(str, parts)))  # noqa: S311 - a simulation needs no secrecy


class SmoothNoise:
    """Noise from 0 to 1: a random node every `period_seconds`, joined by a smooth curve.

    Args:
        seed: what tells this noise from another.
        period_seconds: the time between two nodes, s.
    """

    def __init__(self, seed: str, period_seconds: int) -> None:
        self._seed = seed
        self._period_seconds = period_seconds
        self._node: int | None = None
        self._here = 0.0
        self._rise = 0.0

    def at(self, epoch_seconds: int) -> float:
        """Give the noise at a time, whatever times were asked for before."""
        node, since = divmod(epoch_seconds, self._period_seconds)
        if node != self._node:
            self._node = node
            self._here = seeded(self._seed, node).random()
            self._rise = seeded(self._seed, node + 1).random() - self._here
        x = since / self._period_seconds
        return self._here + self._rise * x * x * (3 - 2 * x)
