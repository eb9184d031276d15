"""The gravest hazard: strace holds the traced process while nobody takes its text."""

from tests.controller.rig import Controller, wait_until
from tests.support.needs import needs_root

pytestmark = needs_root

LONGEST_PAUSE_SECONDS = 60
"""Two looks of the script, a second apart; all else is for a machine that is busy with other things."""

REAL_RATE_INTERVAL_SECONDS = 0.06
"""Four lines of some 65 bytes a poll: the 4 KB/s of a real home."""


def test_blocked_receiver_holds_a_fast_master_for_seconds_at_most(controller: Controller) -> None:
    """A receiver that never reads, and text far above the real rate: polls pause, and go on."""
    receiver = controller.receiver(bytes_per_second=0)
    traced = controller.master(interval_seconds=0)
    controller.install_one(receiver)
    with controller.running():
        wait_until("it tells", lambda: "the network blocks process" in controller.told())
        wait_until("the process is let go", traced.is_free)
        polls = traced.polls()
        wait_until("it polls on", lambda: traced.polls() > polls + 100)
        wait_until("it was traced again", lambda: receiver.connections >= 3)
    assert traced.longest_pause_seconds() < LONGEST_PAUSE_SECONDS


def test_blocked_receiver_never_holds_a_master_at_the_real_rate(controller: Controller) -> None:
    """At 4 KB/s the script leaves a stuck connection before the pipe is full: no poll waits for it."""
    receiver = controller.receiver(bytes_per_second=0)
    traced = controller.master(REAL_RATE_INTERVAL_SECONDS)
    controller.install_one(receiver)
    with controller.running():
        wait_until("it tells", lambda: "the network" in controller.told())
        wait_until("it was let go", traced.is_free)
    assert "the network does not keep up" in controller.told()
    assert "blocks" not in controller.told()


def test_slow_receiver_is_left_although_it_still_reads(controller: Controller) -> None:
    """A receiver that takes a part of the text only would slow the polls down for ever: it is left."""
    receiver = controller.receiver(bytes_per_second=50_000)
    traced = controller.master(interval_seconds=0)
    controller.install_one(receiver)
    with controller.running():
        wait_until("it tells", lambda: "the network" in controller.told())
        wait_until("it was let go", traced.is_free)
    assert traced.longest_pause_seconds() < LONGEST_PAUSE_SECONDS
