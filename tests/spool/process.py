"""A process of its own that uses a durable queue, for faults that only a process can have.

    python -m tests.spool.process DIRECTORY LINES ROUNDS

In each round it appends so many numbered lines, commits, and prints a JSON line: how many lines were
appended, whether they were stored, and the problem. With ROUNDS 0 it goes on until it is killed. A shell
command in the environment variable `BEFORE_<round>` runs before that round.
"""

import json
import os
import subprocess
import sys
from itertools import count
from pathlib import Path

from recorder.spool.durable import DurableQueue, Limits


def line(number: int) -> bytes:
    """The line with this number."""
    return b"pcs,n=%040d v=1.0 %d" % (number, number)


def main(directory: str, lines: str, rounds: str) -> None:
    """Append and commit."""
    queue = DurableQueue(Path(directory), Limits())
    queue.open()
    for done in range(int(rounds)) if int(rounds) else count():
        before = os.environ.get(f"BEFORE_{done}")
        if before:
            subprocess.run(before, shell=True, check=True)
        first = done * int(lines)
        queue.append([line(number) for number in range(first, first + int(lines))])
        stored = queue.commit()
        depth = queue.depth()
        said = {
            "appended": first + int(lines), "stored": stored, "problem": queue.problem,
            "points": depth.points, "dropped": depth.dropped,
        }  # fmt: skip
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()
    queue.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
