"""The script that streams from the controller, filled in for one home.

Takes the recorder's address and what to trace, gives the text of a POSIX shell script. Never runs it.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

DEFAULT_STRACE = "/root/strace"
DEFAULT_RUN_DIRECTORY = "/var/run/ess-stream"

_LONGEST_PROCESS_NAME = 15
"""The kernel keeps no more of a process name (TASK_COMM_LEN in proc(5))."""

_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_%-]*|:[A-Fa-f0-9:.]+")
_PATH = re.compile(r"/[^\0\n]*[^\0\n/]")
_PROCESS = re.compile(rf"[A-Za-z0-9_.-]{{1,{_LONGEST_PROCESS_NAME}}}")


@dataclass(frozen=True, slots=True)
class Stream:
    """The processes that one strace is attached to, and the recorder's TCP port for their text."""

    processes: tuple[str, ...]
    port: int


def render(
    host: str,
    streams: Sequence[Stream],
    *,
    strace: str = DEFAULT_STRACE,
    run_directory: str = DEFAULT_RUN_DIRECTORY,
) -> str:
    """Give the script for a recorder at `host`.

    Args:
        host: name or address of the recorder, as `nc` on the controller takes it.
        streams: what to trace, and where to send it.
        strace: absolute path of strace on the controller.
        run_directory: where the script keeps its process numbers; under /tmp where that is read-only.

    Raises:
        ValueError: a value that the controller's shell or kernel cannot take; the message names it.
    """
    if not _HOST.fullmatch(host):
        raise ValueError(f"host {host!r} is neither a host name nor an address")
    for what, path in (("strace", strace), ("run directory", run_directory)):
        if not _PATH.fullmatch(path):
            raise ValueError(f"{what} {path!r} is not an absolute path of a file")
    if len(strace.rpartition("/")[2].encode()) > _LONGEST_PROCESS_NAME:
        raise ValueError(f"the file name in {strace!r} is longer than {_LONGEST_PROCESS_NAME} bytes")
    for stream in streams:
        for process in stream.processes:
            if not _PROCESS.fullmatch(process):
                raise ValueError(f"{process!r} is not a process name of 1 to {_LONGEST_PROCESS_NAME} letters")
        if not 1 <= stream.port <= 65535:
            raise ValueError(f"port {stream.port} is not between 1 and 65535")
    values = {
        "@HOST@": host,
        "@STREAMS@": " ".join(f"{'+'.join(stream.processes)}:{stream.port}" for stream in streams),
        "@STRACE@": strace,
        "@RUN@": run_directory,
    }
    text = files(__package__).joinpath("ess-stream.sh").read_text(encoding="utf-8")
    return re.sub("@[A-Z]+@", lambda mark: shlex.quote(values[mark[0]]), text)
