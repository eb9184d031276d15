"""The lines that InfluxDB refuses, kept in files for a person to look at and to send again.

Takes lines with reasons, gives files of JSON lines in one directory. Bounded in size: the oldest file
goes first, counted. A disk that does not take them never stops the caller. Every call blocks.

    rejected-000001.jsonl   one line each: {"rejected_at": "2026-06-18T11:00:00Z", "reason": ..., "line": ...}
    *.replaying             a file that `ess-recorder replay --dead-letters` has taken, until it is done
    lock                    held while a file is written or taken, by whatever process
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import structlog

_log = structlog.get_logger(__name__)

DIRECTORY = "dead-letters"
_NAMES = "rejected-" + 6 * "[0-9]" + ".jsonl"
_TAKEN = ".replaying"


class DeadLetters:
    """The dead-letter files of one directory, which is created with the first dead letter.

    `now` gives the time that is written beside a line. `added` counts lines that were stored, `unwritten`
    those that the disk did not take, `dropped` those whose file went because there were more than
    `max_files` of `max_file_bytes`; all since the start. `waiting` is whether there are files, as of the
    last `look`. `problem` tells what is wrong with the disk and what to do about it, and is empty while all
    is well.
    """

    def __init__(
        self,
        directory: Path,
        now: Callable[[], datetime],
        *,
        max_file_bytes: int = 4 << 20,
        max_files: int = 8,
    ) -> None:
        self._directory = directory
        self._now = now
        self._max_file_bytes = max_file_bytes
        self._max_files = max_files
        self.added = 0
        self.unwritten = 0
        self.dropped = 0
        self.waiting = False
        self.problem = ""

    def add(self, lines: Sequence[bytes], reasons: Sequence[str]) -> None:
        """Store lines, each with its reason, durably; what the disk does not take is counted."""
        at = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
        letters = [
            json.dumps({"rejected_at": at, "reason": reason, "line": line.decode("utf-8", "surrogateescape")})
            for line, reason in zip(lines, reasons, strict=True)
        ]
        try:
            self._store("".join(f"{letter}\n" for letter in letters).encode())
        except OSError as error:
            self.unwritten += len(letters)
            self.problem = (
                f"rejected points are counted but not kept in {self._directory}: "
                f"{error.strerror or error}; make room there, and let the recorder write there"
            )
            _log.error("dead letters can not be stored", reason=str(error), lines=len(letters))
        else:
            self.added += len(letters)
            self.waiting = True
            self.problem = ""

    def look(self) -> None:
        """See whether files wait, whichever process wrote, sent or deleted them."""
        try:
            self.waiting = any(self._directory.glob(_NAMES + "*"))
        except OSError as error:
            _log.debug("the dead letters can not be listed", reason=str(error))

    def take(self, files: Sequence[Path] = ()) -> list[Path]:
        """Take files, or all of the directory, out of the writer's way: to be read, sent and deleted.

        Oldest first. What an interrupted attempt took before is among all.

        Raises:
            OSError: the directory can not be written.
        """
        if not files and not self._directory.is_dir():
            return []
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            return [_taken(file) for file in files or sorted(self._directory.glob(_NAMES + "*"))]

    def _store(self, text: bytes) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            files = sorted(self._directory.glob(_NAMES))
            if not files or files[-1].stat().st_size + len(text) > self._max_file_bytes:
                files.append(self._next_file())
            for oldest in files[: -self._max_files]:
                with oldest.open("rb") as file:
                    self.dropped += sum(1 for _ in file)
                oldest.unlink()
                _log.warning("the oldest dead letters were deleted", file=oldest.name)
            descriptor = os.open(files[-1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with open(descriptor, "ab") as file:  # noqa: PTH123  # a path has no file mode
                file.write(text)
                file.flush()
                os.fsync(descriptor)

    def _next_file(self) -> Path:
        """Name a new file; its number is above those of the files that were taken, too."""
        last = max((file.name for file in self._directory.glob(_NAMES + "*")), default="rejected-000000")
        return self._directory / f"rejected-{int(last[9:15]) + 1:06}.jsonl"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _taken(file: Path) -> Path:
    return file if file.name.endswith(_TAKEN) else file.rename(file.with_name(file.name + _TAKEN))


def lines_in(file: Path) -> Iterator[bytes]:
    """Give the refused lines that a dead-letter file holds; what is no dead letter is left out.

    Raises:
        OSError: the file can not be read.
    """
    with file.open(encoding="utf-8", errors="replace") as letters:
        for letter in letters:
            try:
                line = json.loads(letter)["line"]
                yield line.encode("utf-8", "surrogateescape")
            except (ValueError, LookupError, TypeError, AttributeError):
                _log.warning("no dead letter", file=file.name, text=letter[:80])
