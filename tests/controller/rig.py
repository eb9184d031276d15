"""A controller in a directory: busybox and strace alone in its PATH, masters, and receivers."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import which

import pytest

from recorder.controller.script import Stream, render
from tests.controller import master
from tests.support import influxd

BUSYBOX = which("busybox") or ""
STRACE = which("strace") or ""
APPLETS = ("sh", "nc", "sleep", "grep", "ls", "mkdir", "mv", "rm", "cat", "cp", "pidof", "ps")


def wait_until(what: str, holds: Callable[[], bool]) -> None:
    """Return as soon as `holds()`, fail with `what` when it does not."""
    try:
        influxd.wait_until(holds)
    except TimeoutError:
        pytest.fail(f"never: {what}")


def status_of(pid: int) -> dict[str, str]:
    """Give what /proc/PID/status says, empty once the process is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


class Master:
    """A polling process of a name; see master.py."""

    def __init__(self, name: str, interval_seconds: float, file: Path, comm: str | None = None) -> None:
        self.file = file
        arguments = [name, master.__file__, comm or name, str(interval_seconds), str(file)]
        self.process = subprocess.Popen(arguments, executable=sys.executable)
        self.pid = self.process.pid
        wait_until("the master polls", lambda: file.exists() and self.polls() > 0)

    def polls(self) -> int:
        polls, _, _ = master.LAYOUT.unpack(self.file.read_bytes() or bytes(master.LAYOUT.size))
        return int(polls)

    def longest_pause_seconds(self) -> float:
        """Give the longest time between two polls, up to now."""
        _, last, longest = master.LAYOUT.unpack(self.file.read_bytes())
        return float(max(longest, time.monotonic() - last))

    def tracer(self) -> int:
        return int(status_of(self.pid).get("TracerPid", "0"))

    def is_free(self) -> bool:
        """Tell whether nothing traces it and nothing stopped it."""
        return self.tracer() == 0 and status_of(self.pid)["State"][0] in "SRD"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Receiver:
    """A TCP receiver that keeps all text of all connections, or takes only `bytes_per_second`."""

    def __init__(self, port: int = 0, bytes_per_second: int | None = None) -> None:
        self.connections = 0
        self.text = b""
        self._bytes_per_second = bytes_per_second
        self._clients: list[socket.socket] = []
        self._closed = threading.Event()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if bytes_per_second is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, bytes_per_second)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen()
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._clients.append(client)
            self._threads.append(threading.Thread(target=self._take, args=(client,)))
            self._threads[-1].start()

    def _take(self, client: socket.socket) -> None:
        paced = self._bytes_per_second
        while paced != 0 and not (paced and self._closed.wait(0.1)):
            try:
                chunk = client.recv(max(1, paced // 10) if paced else 65536)
            except OSError:
                break
            if not chunk:
                break
            self.text += chunk

    def lines(self) -> list[str]:
        return self.text.decode().splitlines()

    def close(self) -> None:
        self._closed.set()
        for opened in (self._listener, *self._clients):
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()
        for thread in self._threads:
            thread.join()


class Controller:
    """A directory that plays the controller's file system, with the script installed in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.script = directory / "ess-stream.sh"
        self.run_directory = directory / "run"
        self.path = directory / "bin"
        self._told = directory / "told"
        self.path.mkdir()
        for applet in APPLETS:
            (self.path / applet).symlink_to(BUSYBOX)
        self.name = f"PCSMgr{secrets.token_hex(3)}"
        self.other_name = f"Meter{secrets.token_hex(3)}"
        self._masters: list[Master] = []
        self._receivers: list[Receiver] = []

    def install(self, streams: Sequence[Stream], strace: str = STRACE) -> None:
        text = render("127.0.0.1", streams, strace=strace, run_directory=str(self.run_directory))
        self.script.write_text(text)

    def install_one(self, receiver: Receiver) -> None:
        self.install([Stream((self.name,), receiver.port)])

    def master(
        self, interval_seconds: float = 0.05, name: str | None = None, comm: str | None = None
    ) -> Master:
        file = self.directory / f"master-{len(self._masters)}"
        started = Master(name or self.name, interval_seconds, file, comm)
        self._masters.append(started)
        return started

    def receiver(self, port: int = 0, bytes_per_second: int | None = None) -> Receiver:
        opened = Receiver(port, bytes_per_second)
        self._receivers.append(opened)
        return opened

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command of the script to its end."""
        return subprocess.run(
            self._command(*arguments),
            env={"PATH": str(self.path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=influxd.TIMEOUT_SECONDS,
            check=False,
        )

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run the script in the foreground, and end it with TERM if it still lives; see `told`."""
        with self._told.open("wb") as told:
            process = subprocess.Popen(
                self._command("run"), env={"PATH": str(self.path)}, stdin=subprocess.DEVNULL, stderr=told
            )
        with process:
            try:
                yield process
            finally:
                process.terminate()
                process.wait(timeout=influxd.TIMEOUT_SECONDS)

    def told(self) -> str:
        """Give what `running` has said so far."""
        return self._told.read_text()

    def _command(self, *arguments: str) -> list[str]:
        return [str(self.path / "sh"), str(self.script), *arguments]

    def shells(self) -> list[int]:
        """Give the shells that run the script."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if str(self.script).encode() in entry.read_bytes():
                    found.append(int(entry.parent.name))
        return found

    def nc(self) -> int:
        return int((self.run_directory / f"{self.name}.nc").read_text())

    def close(self) -> None:
        if self.script.exists():
            self.call("stop")
        for started in self._masters:
            started.kill()
        for opened in self._receivers:
            opened.close()
        for pid in self.shells():
            os.kill(pid, signal.SIGKILL)
