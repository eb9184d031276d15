"""File systems that fail, for the recorder's queue and for InfluxDB.

Takes a directory, gives wrappers that begin a program with a file system of its own there, in a mount
namespace that goes with the process, and an `Influxd` in such a place. Mounts nothing that others see.
"""

import os
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType

from tests.faults.matrix import CannotInjectError
from tests.support.influxd import TIMEOUT_SECONDS, Influxd, wait_until


@cache
def namespace_command(*kinds: str) -> tuple[str, ...]:
    """The command that begins a program in new namespaces, `--mount` or `--net` for example.

    Raises:
        CannotInjectError: the kernel or its settings do not allow it.
    """
    command = ("unshare", *kinds) if os.geteuid() == 0 else ("unshare", "--map-root-user", *kinds)
    tried = subprocess.run([*command, "true"], capture_output=True, check=False)
    if tried.returncode != 0:
        raise CannotInjectError(f"no namespaces here: {tried.stderr.decode().strip()}")
    return command


def on_tmpfs(directory: Path, size_mb: int, options: str = "") -> list[str]:
    """The wrapper that gives a program a tmpfs of its own on `directory`.

    Raises:
        CannotInjectError: there are no mount namespaces.
    """
    directory.mkdir(parents=True, exist_ok=True)
    script = f'mount -t tmpfs -o size={size_mb}m{options} tmpfs "$0" && exec "$@"'
    return [*namespace_command("--mount"), "sh", "-c", script, str(directory)]


def on_ext4(directory: Path, size_mb: int) -> list[str]:
    """The wrapper that gives a program an ext4 of its own on `directory`, which an error makes read-only.

    Raises:
        CannotInjectError: nothing can be mounted over a loop device.
    """
    directory.mkdir(parents=True, exist_ok=True)
    image = directory.with_suffix(".ext4")
    script = (
        f'truncate -s {size_mb}M "{image}" && mkfs.ext4 -q "{image}" && '
        f'mount -o loop,errors=remount-ro "{image}" "$0"'
    )
    command = [*namespace_command("--mount"), "sh", "-c"]
    tried = subprocess.run([*command, script, str(directory)], capture_output=True, check=False)
    if tried.returncode != 0:
        raise CannotInjectError(f"no ext4 on a loop device here: {tried.stderr.decode().strip()}")
    return [*command, f'{script} && exec "$@"', str(directory)]


def break_ext4(pid: int, directory: Path) -> None:
    """Let the ext4 that a process has on `directory` meet an error."""
    mounts = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    device = next(line.split()[-2] for line in mounts if line.split()[4] == str(directory))
    Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_text("1")


def seen_by(pid: int, path: Path) -> Path:
    """The path under which a process in a mount namespace of its own sees `path`."""
    return Path(f"/proc/{pid}/root{path}")


def fill(ballast: Path) -> None:
    """Write until the file system is full."""
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


class SmallInfluxd(Influxd):
    """An `influxd` whose data lie on a tmpfs of `size_mb`, which outlives the server until `__exit__`."""

    def __init__(self, directory: Path, size_mb: int) -> None:
        self.store = directory / "store"
        super().__init__(
            directory,
            sections={"data": {"dir": f'"{self.store}/data"', "wal-dir": f'"{self.store}/wal"'}},
        )
        self._holder = subprocess.Popen([*on_tmpfs(self.store, size_mb), "sleep", "infinity"])
        self.ballast = seen_by(self._holder.pid, self.store / "ballast")
        wait_until(self.ballast.parent.is_mount)

    def command(self) -> list[str]:
        """The command that starts the server on its small file system."""
        enter = ["nsenter", "--target", str(self._holder.pid), "--mount"]
        if os.geteuid() != 0:
            enter += ["--user", "--preserve-credentials"]
        return [*enter, *super().command()]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._holder.kill()
        self._holder.wait(timeout=TIMEOUT_SECONDS)
