"""A Dockerfile carried out on this machine, without Docker.

Takes a Dockerfile, a build context and an empty directory that stands for the image's `/`. Copies what
it copies, runs what it runs with the system's shell, and remembers what it declares. All stages share
the one directory, so that a file copied between stages keeps its path. Knows only the instructions and
forms that the project's Dockerfile has; anything else is an error. Never writes outside the directory.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

# Directories of the image; all others in a command, as /usr/sbin/nologin, stay those of the machine.
_OF_IMAGE = re.compile(r"(?<![\w.$/-])/(?=(?:opt|src|var/lib)\b)")
_USER_TOOLS = ("groupadd", "useradd")


class Instruction(NamedTuple):
    """One instruction, with its continuation lines joined."""

    name: str
    argument: str


def instructions(text: str) -> Iterator[Instruction]:
    """The instructions of a Dockerfile, without comments."""
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in kept.replace("\\\n", " ").splitlines():
        if line.strip():
            name, argument = line.split(maxsplit=1)
            yield Instruction(name, argument.strip())


@dataclass
class NativeBuild:
    """The state of a build in `root`; `run` carries a whole Dockerfile out."""

    context: Path
    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    declared: dict[str, str] = field(default_factory=dict)
    directory: Path = Path()

    def run(self, text: str) -> None:
        """Carry out each instruction; CalledProcessError where a command fails."""
        self._prepare_machine()
        for instruction in instructions(text):
            getattr(self, f"_{instruction.name.lower()}")(instruction.argument)

    def inside(self, text: str) -> str:
        """A command or a path with the image's directories in their place on this machine."""
        return _OF_IMAGE.sub(f"{self.root}/", text)

    def command(self, *arguments: str) -> list[str]:
        """What starts the container with these arguments: its user, and no capability."""
        user, group = self.declared["USER"].split(":")
        entrypoint = json.loads(self.declared["ENTRYPOINT"])
        dropped = ["--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        return ["setpriv", f"--reuid={user}", f"--regid={group}", *dropped, *entrypoint, *arguments]

    def _prepare_machine(self) -> None:
        """Make what the base image has: a Python, and tools that make users inside the directory."""
        for directory in ("etc", "usr/local", "usr/bin", "var/lib", "opt"):
            (self.root / directory).mkdir(parents=True)
        subprocess.run([_python(), "-m", "venv", self.root / "usr/local"], check=True)
        for name in _USER_TOOLS:
            tool = self.root / "usr/bin" / name
            tool.write_text(f'#!/bin/sh\nexec {shutil.which(name)} --prefix {self.root} "$@"\n')
            tool.chmod(0o755)
        for name in ("passwd", "group", "shadow", "gshadow"):
            (self.root / "etc" / name).touch()

    def _from(self, argument: str) -> None:
        path = f"{self.root}/usr/local/bin:{self.root}/usr/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "VIRTUAL_ENV", "ESS_"))
        }
        self.environment = {**inherited, "PATH": path}
        self.declared = {"FROM": argument}
        self.directory = self.root

    def _env(self, argument: str) -> None:
        for assignment in shlex.split(argument):
            name, value = assignment.split("=", 1)
            self.environment[name] = self.inside(value).replace("$PATH", self.environment["PATH"])
        # The real build has an empty cache anyway; here it spares the package index.
        self.environment.pop("PIP_NO_CACHE_DIR", None)

    def _workdir(self, argument: str) -> None:
        self.directory = Path(self.inside(argument))
        self.directory.mkdir(parents=True, exist_ok=True)

    def _copy(self, argument: str) -> None:
        words = shlex.split(argument)
        if words[0].startswith("--from="):
            _, source, target = words
            assert source == target
            assert Path(self.inside(source)).exists()
            return
        *sources, target = words
        for source in sources:
            assert self._reaches_builder(source), f"{source} is in .dockerignore"
            here = self.context / source
            if here.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(here, self.directory / target, ignore=ignored)
            else:
                shutil.copy(here, self.directory / target)

    def _reaches_builder(self, source: str) -> bool:
        lines = (self.context / ".dockerignore").read_text().splitlines()
        return "*" in lines and f"!{source}" in lines

    def _run(self, argument: str) -> None:
        subprocess.run(
            ["/bin/sh", "-c", self.inside(argument)], cwd=self.directory, env=self.environment, check=True
        )

    def _declare(self, name: str, argument: str) -> None:
        self.declared[name] = argument

    def __getattr__(self, name: str) -> object:
        """Instructions that only declare something."""
        declaring = {"label", "user", "volume", "expose", "stopsignal", "healthcheck", "entrypoint", "cmd"}
        if name.removeprefix("_") not in declaring:
            raise AttributeError(name)
        return lambda argument: self._declare(name.removeprefix("_").upper(), argument)


def _python() -> str:
    """A Python that can make virtual environments, if possible one that every user of the machine may run."""
    probe = "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"
    for candidate in ("/usr/local/bin/python3", "/usr/bin/python3"):
        if Path(candidate).exists() and subprocess.run([candidate, "-c", probe], check=False).returncode == 0:
            return candidate
    return sys.executable
