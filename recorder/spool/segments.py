"""The queue's directory: its lock, its segments, and what does not belong there.

Takes encoded records, gives files that hold them for certain once `write` has returned, and their
bytes back. Never has a file half written for good: what failed is undone before the next writing.

    lock                      held by the one process that uses the queue
    cursor-NAME               how far the consumer NAME has come
    0000000000000100.segment  records from point 256 (hex 100) on
    *.damaged-1               moved aside, because it could not be used
"""

import errno
import fcntl
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from recorder.spool.records import HEADER_BYTES, VERSION, decode_header, encode_header, scan

_PIECE_BYTES: Final = 4096
_NAME: Final = re.compile(r"([0-9a-f]{16})\.segment")

_REMEDIES: Final = {
    errno.ENOSPC: "free space on that disk",
    errno.EDQUOT: "free space, or raise the quota",
    errno.EROFS: "mount it writable, and check whether the disk or SD card fails",
    errno.EIO: "check the disk or SD card, it fails",
    errno.EACCES: "give the user of the recorder the right to write there",
    errno.EPERM: "give the user of the recorder the right to write there",
}

_log = structlog.get_logger(__name__)


class QueueLocked(Exception):  # noqa: N818  # a name that says what is the case
    """Another process uses this queue."""


@dataclass(slots=True)
class Found:
    """A segment as it lies on the disk; times are Unix seconds."""

    path: Path
    first: int
    size: int
    created_at: float
    written_at: float


@dataclass(frozen=True, slots=True)
class Encoded:
    """The bytes of one record, the number of its first point and the number behind its last."""

    first: int
    end: int
    data: bytes


class SegmentDirectory:
    """The files of one queue; open, and locked, until `close`.

    Args:
        path: the directory; made, for its owner only, when it is not there. What stands in its
            place is moved aside.
        segment_bytes: a segment that has reached this size is not written any more.

    Raises:
        QueueLocked: another process uses it.
        OSError: it cannot be made or written.
    """

    def __init__(self, path: Path, segment_bytes: int) -> None:
        self.path = path
        self._segment_bytes = segment_bytes
        self._undo: list[tuple[Path, int]] = []
        self._current: tuple[int, Path, int] | None = None
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and not path.is_dir():
            set_aside(path, "is no directory")
        path.mkdir(mode=0o700, exist_ok=True)
        if (path / "lock").is_dir():
            set_aside(path / "lock", "is a directory")
        self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except BlockingIOError:
            os.close(self._lock)
            raise QueueLocked(
                f"another recorder uses the queue in {path}; stop it, or give this one its own data_dir"
            ) from None
        except OSError:
            os.close(self._lock)
            raise

    def segments(self) -> list[Found]:
        """Give the segments in order; what looks like one and is not is moved aside.

        Raises:
            OSError: the directory cannot be read.
        """
        found = []
        for path in sorted(self.path.iterdir()):
            name = _NAME.fullmatch(path.name)
            if name:
                first = int(name[1], 16)
                segment, problem = self._look_at(path, first)
                if segment is None:
                    set_aside(path, problem)
                else:
                    found.append(segment)
        return found

    def last_number(self, found: Sequence[Found]) -> int:
        """Give the number behind the last point of the last of these segments; 0 without any.

        Raises:
            OSError: it cannot be read.
        """
        if not found:
            return 0
        last = found[-1]
        records = scan(self.read(last.path, 0, last.size))
        return max((record.end for record in records), default=last.first)

    def cursor_path(self, consumer: str) -> Path:
        """Give the path of a consumer's cursor; a directory in its place is moved aside.

        Raises:
            OSError: it cannot be moved.
        """
        path = self.path / f"cursor-{consumer}"
        if path.is_dir():
            set_aside(path, "is a directory")
        return path

    def limit_set_aside(self, max_bytes: int) -> None:
        """Delete the oldest files that were moved aside, until the others fit.

        Raises:
            OSError: one cannot be deleted.
        """
        files = [(path.stat(), path) for path in self.path.glob("*.damaged-*") if path.is_file()]
        nbytes = sum(stat.st_size for stat, _ in files)
        for stat, path in sorted(files, key=lambda file: file[0].st_mtime):
            if nbytes <= max_bytes:
                break
            path.unlink()
            nbytes -= stat.st_size

    def probe(self) -> None:
        """See whether the next commit can be stored.

        Raises:
            OSError: the file system is read-only or full.
        """
        state = os.fstatvfs(self._directory)
        if state.f_flag & os.ST_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        if state.f_bavail * state.f_frsize < self._segment_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def read(self, path: Path, start: int, end: int) -> bytes:
        """Give the bytes of a segment; those that the disk cannot read are zeros.

        Raises:
            OSError: it cannot be opened.
        """
        with path.open("rb", buffering=0) as file:
            try:
                return os.pread(file.fileno(), end - start, start)
            except OSError as error:
                _log.error("the disk cannot read a part of the queue", file=path.name, reason=error.strerror)
                return b"".join(
                    _piece(file.fileno(), at, min(_PIECE_BYTES, end - at))
                    for at in range(start, end, _PIECE_BYTES)
                )

    def write(self, records: Sequence[Encoded], now: float) -> list[tuple[Path, int, int]]:
        """Store records for certain, in the segment that is being written and in new ones.

        Args:
            records: in the order of their numbers.
            now: Unix seconds, for the header of a new segment.

        Returns:
            For each segment that grew: its path, the number behind its last point, and its size.

        Raises:
            OSError: none of the records is stored.
        """
        self._repair()
        grown: list[tuple[Path, int, int]] = []
        before = self._current
        if before is not None:
            self._undo.append(before[1:])
        try:
            for record in records:
                if self._current is None or self._current[2] >= self._segment_bytes:
                    self._begin(record.first, now)
                assert self._current is not None
                file, path, size = self._current
                _write_all(file, record.data, size)
                self._current = (file, path, size + len(record.data))
                if grown and grown[-1][0] == path:
                    grown.pop()
                grown.append((path, record.end, size + len(record.data)))
            if self._current is not None:
                os.fdatasync(self._current[0])
        except OSError:
            self._finish_current()
            with suppress(OSError):
                self._repair()
            raise
        self._undo.clear()
        return grown

    def delete(self, path: Path) -> None:
        """Remove a segment.

        Raises:
            OSError: it is still there.
        """
        if self._current is not None and self._current[1] == path:
            self._finish_current()
        path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the files and give the lock back."""
        self._finish_current()
        os.close(self._directory)
        os.close(self._lock)

    def _look_at(self, path: Path, first: int) -> tuple[Found | None, str]:
        """Give a segment, or why it cannot be used."""
        if not path.is_file() or path.is_symlink():
            return None, "is no file"
        try:
            stat = path.stat()
            found = Found(path, first, stat.st_size, stat.st_mtime, stat.st_mtime)
            header = decode_header(self.read(path, 0, HEADER_BYTES))
            if header is None:
                # Only the start may be damaged: records have checksums of their own.
                whole = next(scan(self.read(path, 0, stat.st_size)), None)
                return (found, "") if whole else (None, "is empty, or not of this program")
        except OSError as error:
            return None, f"cannot be opened: {error.strerror}"
        if header.version > VERSION:
            return None, "was written by a newer version"
        found.created_at = header.created_at
        return (found, "") if header.first == first else (None, "has another segment's name")

    def _begin(self, first: int, now: float) -> None:
        """Start the segment whose first point has this number; the one before is stored for certain."""
        if self._current is not None:
            os.fdatasync(self._current[0])
            self._finish_current()
        path = self.path / f"{first:016x}.segment"
        self._undo.append((path, 0))
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._current = (file, path, HEADER_BYTES)
        _write_all(file, encode_header(first, now), 0)
        os.fsync(self._directory)

    def _finish_current(self) -> None:
        if self._current is not None:
            os.close(self._current[0])
            self._current = None

    def _repair(self) -> None:
        """Bring files back to the size that they had before a writing that failed."""
        while self._undo:
            path, size = self._undo[-1]
            if size:
                with suppress(FileNotFoundError):
                    os.truncate(path, size)
            else:
                path.unlink(missing_ok=True)
            self._undo.pop()


def set_aside(path: Path, problem: str) -> None:
    """Rename what cannot be used, and say so.

    Raises:
        OSError: it cannot be renamed.
    """
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    path.rename(aside)
    _log.error("moved aside, the queue starts afresh there", file=path.name, why=problem, now=aside.name)


def remedy_for(error: Exception) -> str:
    """Say what the user can do about a disk that cannot be used."""
    number = error.errno if isinstance(error, OSError) else None
    return _REMEDIES.get(number or 0, "check data_dir and its disk")


def _write_all(file: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, at)
        view, at = view[written:], at + written


def _piece(file: int, at: int, size: int) -> bytes:
    try:
        return os.pread(file, size, at).ljust(size, b"\0")
    except OSError:
        return bytes(size)
