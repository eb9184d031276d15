import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from recorder.controller.script import Stream
from tests.controller.rig import STRACE, Controller, status_of, wait_until
from tests.support.influxd import TIMEOUT_SECONDS
from tests.support.needs import needs_root

pytestmark = needs_root

LINE = re.compile(r'\d{10}\.\d{6} (?:read|write)\(\d+, "(?:\\x[0-9a-f]{2})+", \d+\) += \d+')


def test_text_of_each_process_arrives_with_its_stamps_on_its_own_port(controller: Controller) -> None:
    """Two streams carry whole lines of `strace -ttt`, each of its own process."""
    receivers = controller.receiver(), controller.receiver()
    masters = controller.master(), controller.master(name=controller.other_name)
    controller.install(
        [
            Stream((name,), r.port)
            for name, r in zip((controller.name, controller.other_name), receivers, strict=True)
        ]
    )
    with controller.running():
        wait_until("both streams carry text", lambda: all(len(r.lines()) > 20 for r in receivers))
    for receiver, traced in zip(receivers, masters, strict=True):
        first, *rest = receiver.lines()
        assert first.endswith(f"Process {traced.pid} attached")
        assert all(LINE.fullmatch(line) for line in rest[:20])


def test_both_processes_share_one_stream(controller: Controller) -> None:
    """One connection carries the lines of two processes, each prefixed with its pid."""
    receiver = controller.receiver()
    masters = controller.master(), controller.master(name=controller.other_name)
    controller.install([Stream((controller.name, controller.other_name), receiver.port)])
    with controller.running():
        prefixes = [f"[pid {traced.pid:5}] ".encode() for traced in masters]
        wait_until("lines of both arrive", lambda: all(prefix in receiver.text for prefix in prefixes))
        assert receiver.connections == 1


def test_a_late_second_process_joins_the_stream(controller: Controller) -> None:
    """A shared stream begins with the one process there is, and takes the other when it appears."""
    receiver = controller.receiver()
    controller.master()
    controller.install([Stream((controller.name, controller.other_name), receiver.port)])
    with controller.running():
        wait_until("the first is traced", lambda: len(receiver.lines()) > 4)
        late = controller.master(name=controller.other_name)
        wait_until("the second is traced", lambda: f"[pid {late.pid:5}] ".encode() in receiver.text)


def test_stream_returns_after_the_receiver_was_away(controller: Controller) -> None:
    """A receiver that goes and comes back on the same port gets text again."""
    receiver = controller.receiver()
    traced = controller.master()
    controller.install_one(receiver)
    with controller.running():
        wait_until("text arrives", lambda: len(receiver.lines()) > 4)
        receiver.close()
        wait_until("the process is let go", traced.is_free)
        receiver = controller.receiver(receiver.port)
        wait_until("text arrives again", lambda: len(receiver.lines()) > 4)


def test_stream_returns_after_nc_was_killed(controller: Controller) -> None:
    """A killed nc is replaced, and a new connection carries the text."""
    receiver = controller.receiver()
    controller.master()
    controller.install_one(receiver)
    with controller.running():
        wait_until("text arrives", lambda: len(receiver.lines()) > 4)
        os.kill(controller.nc(), signal.SIGKILL)
        wait_until("a second attach", lambda: receiver.text.count(b"attached") == 2)


def test_stream_follows_a_restarted_process(controller: Controller) -> None:
    """A process of the same name and a new pid is found and traced."""
    receiver = controller.receiver()
    traced = controller.master()
    controller.install_one(receiver)
    with controller.running():
        wait_until("text arrives", lambda: len(receiver.lines()) > 4)
        traced.kill()
        successor = controller.master()
        wait_until("the new process is traced", lambda: f"Process {successor.pid}".encode() in receiver.text)


def test_shared_stream_follows_one_restarted_process(controller: Controller) -> None:
    """Where strace goes on with the other process, the one that was restarted is traced again, too."""
    receiver = controller.receiver()
    controller.master()
    traced = controller.master(name=controller.other_name)
    controller.install([Stream((controller.name, controller.other_name), receiver.port)])
    with controller.running():
        wait_until("both are traced", lambda: receiver.text.count(b"attached") == 2)
        traced.kill()
        successor = controller.master(name=controller.other_name)
        wait_until("the new process is traced", lambda: f"Process {successor.pid}".encode() in receiver.text)


def test_idle_process_is_let_go_when_the_receiver_leaves(controller: Controller) -> None:
    """A process that says nothing, so that strace never notices the broken pipe, is freed all the same."""
    receiver = controller.receiver()
    traced = controller.master(interval_seconds=3600)
    controller.install_one(receiver)
    with controller.running():
        wait_until("the process is traced", lambda: b"attached" in receiver.text)
        receiver.close()
        wait_until("the process is let go", traced.is_free)


def test_strace_starts_only_once_connected(controller: Controller) -> None:
    """While nobody listens, the script tries again and no process is ever traced."""
    receiver = controller.receiver()
    receiver.close()
    traced = controller.master()
    controller.install_one(receiver)
    with controller.running():
        wait_until("it tells", lambda: "does the recorder run there?" in controller.told())
        assert traced.is_free()
    assert "can't connect" in controller.told()
    assert "streaming" not in controller.told()


def test_only_the_exact_name_is_traced(controller: Controller) -> None:
    """A process whose name merely begins alike stays untouched, and the script says that it waits."""
    receiver = controller.receiver()
    longer = controller.master(name=f"{controller.name}2")
    controller.install_one(receiver)
    with controller.running():
        wait_until("it tells", lambda: "no process of this name runs" in controller.told())
        assert longer.is_free()


def test_process_that_renamed_its_main_thread_is_found(controller: Controller) -> None:
    """A process is known by the name it was started with, too."""
    receiver = controller.receiver()
    traced = controller.master(comm="worker")
    controller.install_one(receiver)
    with controller.running():
        wait_until("it is traced", lambda: f"Process {traced.pid}".encode() in receiver.text)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_any_end_of_the_script_frees_the_process(controller: Controller, number: signal.Signals) -> None:
    """TERM, INT and HUP leave no tracer, no stopped process and no shell behind."""
    receiver = controller.receiver()
    traced = controller.master()
    controller.install_one(receiver)
    with controller.running() as process:
        wait_until("text arrives", lambda: len(receiver.lines()) > 4)
        process.send_signal(number)
        assert process.wait(timeout=TIMEOUT_SECONDS) == 0
        assert traced.is_free()
        assert controller.shells() == []


def test_stop_frees_the_process(controller: Controller) -> None:
    """`stop` returns when nothing is traced any more, and `status` tells the difference."""
    receiver = controller.receiver()
    traced = controller.master()
    controller.install_one(receiver)
    assert controller.call("start").returncode == 0
    wait_until("text arrives", lambda: len(receiver.lines()) > 4)
    wait_until("status tells", lambda: f"streaming process {traced.pid}" in controller.call("status").stdout)
    assert controller.call("status").returncode == 0
    assert controller.call("stop").stdout == "stopped\n"
    assert traced.is_free()
    assert controller.shells() == []
    assert controller.call("status").returncode == 1


def test_streams_end_when_their_main_process_was_killed(controller: Controller) -> None:
    """After kill -9 of the main shell alone its streams notice, let go and end by themselves."""
    receiver = controller.receiver()
    traced = controller.master()
    controller.install_one(receiver)
    with controller.running() as process:
        wait_until("text arrives", lambda: len(receiver.lines()) > 4)
        process.kill()
        process.wait()
        wait_until("no shell is left", lambda: controller.shells() == [])
        assert traced.is_free()


def test_killed_stream_is_replaced(controller: Controller) -> None:
    """After kill -9 of the shell that guards a stream the main one lets go and starts another."""
    receiver = controller.receiver()
    controller.master()
    controller.install_one(receiver)
    with controller.running():
        wait_until("text arrives", lambda: len(receiver.lines()) > 4)
        os.kill(int((controller.run_directory / f"{controller.name}.pid").read_text()), signal.SIGKILL)
        wait_until("a second attach", lambda: receiver.text.count(b"attached") == 2)


@pytest.mark.parametrize("command", ["start", "stop"])
def test_leftovers_of_killed_shells_are_ended(controller: Controller, command: str) -> None:
    """After kill -9 of every shell of the script, `stop` frees the process, and `start` streams anew."""
    receiver = controller.receiver()
    traced = controller.master()
    controller.install_one(receiver)
    with controller.running() as process:
        wait_until("text arrives", lambda: len(receiver.lines()) > 4)
        leftover, nc = traced.tracer(), controller.nc()
        for pid in controller.shells():
            os.kill(pid, signal.SIGKILL)
        process.wait()
        assert traced.tracer() == leftover
        assert controller.call(command).returncode == 0
        wait_until("strace and nc ended", lambda: not status_of(leftover) and not status_of(nc))
        if command == "start":
            wait_until("a second attach", lambda: receiver.text.count(b"attached") == 2)
            controller.call("stop")
        assert traced.is_free()


def test_stopped_strace_is_ended_and_its_process_runs_on(controller: Controller) -> None:
    """A strace that was itself stopped holds the process; the script sees it and lets go."""
    receiver = controller.receiver()
    traced = controller.master()
    controller.install_one(receiver)
    with controller.running():
        wait_until("text arrives", lambda: len(receiver.lines()) > 4)
        os.kill(traced.tracer(), signal.SIGSTOP)
        wait_until("a second attach", lambda: receiver.text.count(b"attached") == 2)
    polls = traced.polls()
    wait_until("it polls on", lambda: traced.polls() > polls)


def test_second_start_is_refused(controller: Controller) -> None:
    """`start` and `run` fail and name the process that runs already."""
    controller.install_one(controller.receiver())
    controller.call("start")
    main = (controller.run_directory / "pid").read_text().strip()
    for command in ("start", "run"):
        refused = controller.call(command)
        assert refused.returncode == 1
        assert f"already runs as process {main}" in refused.stderr


def test_missing_strace_is_said_and_waited_for(controller: Controller) -> None:
    """Without strace `start` says where to copy it, `status` repeats it, and a copied one is used."""
    receiver = controller.receiver()
    controller.master()
    strace = controller.directory / "strace"
    controller.install([Stream((controller.name,), receiver.port)], strace=str(strace))
    started = controller.call("start")
    assert f"strace is missing: copy a static strace for this processor to {strace}" in started.stderr
    wait_until("status tells", lambda: "strace is missing" in controller.call("status").stdout)
    strace.symlink_to(STRACE)
    wait_until("text arrives", lambda: len(receiver.lines()) > 4)


def test_strace_for_another_processor_is_said(controller: Controller) -> None:
    """A strace that cannot run is told from a missing one."""
    strace = controller.directory / "strace"
    strace.write_bytes(b"\x7fELF\x00")
    strace.chmod(0o755)
    controller.install([Stream((controller.name,), 1)], strace=str(strace))
    assert "built for this processor?" in controller.call("start").stderr


def test_process_traced_by_another_program_is_left_alone(controller: Controller) -> None:
    """A foreign tracer is named and not ended."""
    debugger = controller.directory / "debugger"
    debugger.symlink_to(STRACE)
    traced = controller.master()
    controller.install_one(controller.receiver())
    with subprocess.Popen(
        [debugger, "-o", os.devnull, "-p", str(traced.pid)], stderr=subprocess.DEVNULL
    ) as foreign:
        try:
            wait_until("the foreign tracer is attached", lambda: traced.tracer() == foreign.pid)
            with controller.running():
                wait_until("it tells", lambda: f"by debugger, process {foreign.pid}" in controller.told())
            assert traced.tracer() == foreign.pid
        finally:
            foreign.terminate()


def test_missing_nc_is_said(controller: Controller) -> None:
    """A controller whose busybox lacks nc gets told so, and nothing starts."""
    controller.install_one(controller.receiver())
    (controller.path / "nc").unlink()
    started = controller.call("start")
    assert started.returncode == 1
    assert "nc is missing" in started.stderr
    assert not controller.run_directory.exists()


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("rc.local", "#!/bin/sh\nmount -a\n\nexit 0\n", "#!/bin/sh\nmount -a\n\n{}\nexit 0\n"),
        ("rcS", "#!/bin/sh\necho 'a\\nb'   \n", "#!/bin/sh\necho 'a\\nb'   \n{}\n"),
        ("inittab", "::sysinit:/etc/rcS\n", "::sysinit:/etc/rcS\n{}\n"),
    ],
)
def test_boot_line_is_added_once_and_taken_out(
    controller: Controller, name: str, before: str, after: str
) -> None:
    """`install` twice adds one line where it is reached, `uninstall` gives the old file, mode kept."""
    controller.install_one(controller.receiver())
    file: Path = controller.directory / name
    file.write_text(before)
    file.chmod(0o750)
    assert controller.call("install", str(file)).returncode == 0
    assert controller.call("install", str(file)).returncode == 0
    respawn = name == "inittab"
    line = f"::respawn:/bin/sh {controller.script} run" if respawn else f"sh {controller.script} start || :"
    assert file.read_text() == after.format(line)
    assert controller.call("uninstall", str(file)).returncode == 0
    assert file.read_text() == before
    assert file.stat().st_mode & 0o777 == 0o750


def test_boot_file_that_is_not_there_is_said(controller: Controller) -> None:
    """`install` into a missing file writes nothing and shows the line."""
    controller.install_one(controller.receiver())
    refused = controller.call("install", str(controller.directory / "absent"))
    assert refused.returncode == 1
    assert f"sh {controller.script} start" in refused.stderr
    assert not (controller.directory / "absent").exists()
