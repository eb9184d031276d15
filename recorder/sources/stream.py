"""What a source hands its bytes to.

Takes nothing, gives the contract between sources and the stages behind them. Never does I/O.
"""

from typing import Protocol


class StreamHandler(Protocol):
    """One connection's or file's reader, fed in order, then finished exactly once."""

    @property
    def useful(self) -> bool:
        """Whether the stream has brought a valid frame: such a connection is kept under a flood."""

    def feed(self, chunk: bytes, received_at_ns: int) -> None:
        """Take the next bytes and the Unix time in ns of their receipt. Never waits."""

    def finish(self) -> None:
        """Learn that no more will come."""
